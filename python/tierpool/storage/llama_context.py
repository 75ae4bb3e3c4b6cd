"""A loaded model and its context in llama.cpp, and the decoding of batches."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from tierpool._core import TierpoolError
from tierpool.storage.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tierpool.storage.llama_settings import LlamaSettings


class LlamaModel:
    """A model that llama.cpp has mapped. Closing twice does nothing."""

    def __init__(self, library: Any, path: str, settings: LlamaSettings) -> None:
        self._library = library
        self.handle = library.llama_model_load_from_file(os.fsencode(path), settings.model_parameters(library))
        if not self.handle:
            raise ModelError(f"llama.cpp cannot load {path}; its reason is in the log 'tierpool'")

    def close(self) -> None:
        """Free it; its contexts are closed before."""
        if self.handle:
            self._library.llama_model_free(self.handle)
            self.handle = None


class LlamaContext:
    """One sequence of tokens. One call at a time; closing twice does nothing."""

    def __init__(self, library: Any, model: LlamaModel, parameters: Any) -> None:
        self._library = library
        self.handle = library.llama_init_from_model(model.handle, parameters)
        if not self.handle:
            raise TierpoolError("llama.cpp cannot make a context; its reason is in the log 'tierpool'")
        self._memory = library.llama_get_memory(self.handle)
        self._vocabulary_size = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model.handle))
        self.batch_tokens: int = library.llama_n_batch(self.handle)
        self._batch = library.llama_batch_init(self.batch_tokens, 0, 1)
        shape = (self.batch_tokens,)
        self._tokens = np.ctypeslib.as_array(self._batch.token, shape)
        self._positions = np.ctypeslib.as_array(self._batch.pos, shape)
        self._has_logits = np.ctypeslib.as_array(self._batch.logits, shape)
        np.ctypeslib.as_array(self._batch.n_seq_id, shape)[:] = 1
        for index in range(self.batch_tokens):
            self._batch.seq_id[index][0] = 0

    def decode(self, tokens: Sequence[int], position: int, *, wants_logits: bool) -> int:
        """Compute one batch from `position` on, and return llama.cpp's status: 0 unless something went wrong."""
        count = len(tokens)
        self._batch.n_tokens = count
        self._tokens[:count] = tokens
        self._positions[:count] = np.arange(position, position + count)
        self._has_logits[:count] = 0
        self._has_logits[count - 1] = wants_logits
        status: int = self._library.llama_decode(self.handle, self._batch)
        return status

    def logits(self) -> NDArray[np.float32]:
        """Copy the logits of the last position that was decoded with any."""
        found = self._library.llama_get_logits_ith(self.handle, -1)
        if not found:
            raise TierpoolError("llama.cpp has no logits for the last token")
        logits: NDArray[np.float32] = np.ctypeslib.as_array(found, (self._vocabulary_size,)).copy()
        return logits

    def truncate(self, position: int) -> bool:
        """Forget what lies at `position` and behind; False if the model can only forget everything, as it does then."""
        if self._library.llama_memory_seq_rm(self._memory, 0, position, -1):
            return True
        self._library.llama_memory_clear(self._memory, True)
        return False

    def close(self) -> None:
        """Free it."""
        if self.handle:
            self._library.llama_batch_free(self._batch)
            self._library.llama_free(self.handle)
            self.handle = None
