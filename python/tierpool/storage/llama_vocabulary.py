"""Text to tokens and back, and the metadata of a loaded model, as llama.cpp reads them."""

from __future__ import annotations

import ctypes
from functools import partial
from typing import TYPE_CHECKING, Any

from tierpool.storage.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_BUFFER_BYTES = 256


class LlamaVocabulary:
    """The vocabulary of a loaded model; it must not outlive the model. Any thread may call it."""

    def __init__(self, library: Any, model: Any, path: str) -> None:
        self._library = library
        self._vocabulary = library.llama_model_get_vocab(model)
        self._path = path
        self.size: int = library.llama_vocab_n_tokens(self._vocabulary)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Cut a text into tokens; as `Engine.tokenize`."""
        if add_special:
            self._require_special()
        if self._library.llama_vocab_type(self._vocabulary) == self._library.LLAMA_VOCAB_TYPE_NONE:
            raise ModelError(f"{self._path} has no tokenizer: give tokens instead of text, or convert the model again")
        data = text.encode("utf-8")
        capacity = len(data) + 8
        while True:
            tokens = (ctypes.c_int32 * capacity)()
            count = self._library.llama_tokenize(
                self._vocabulary, data, len(data), tokens, capacity, add_special, parse_special
            )
            if count >= 0:
                return list(tokens[:count])
            capacity = -count

    def detokenize(self, token: int) -> bytes:
        """Bytes of a token; as `Engine.detokenize`."""
        self._require_known(token)
        if self._library.llama_vocab_type(self._vocabulary) == self._library.LLAMA_VOCAB_TYPE_NONE:
            return b""
        capacity = _FIRST_BUFFER_BYTES
        while True:
            buffer = ctypes.create_string_buffer(capacity)
            count = self._library.llama_token_to_piece(self._vocabulary, token, buffer, capacity, 0, False)
            if count >= 0:
                return buffer.raw[:count]
            capacity = -count

    def token_text(self, token: int) -> str:
        """How the vocabulary writes a token; as `Engine.token_text`."""
        self._require_known(token)
        text: bytes | None = self._library.llama_vocab_get_text(self._vocabulary, token)
        return (text or b"").decode("utf-8", errors="replace")

    def is_end(self, token: int) -> bool:
        """Whether the token ends a generation."""
        self._require_known(token)
        return bool(self._library.llama_vocab_is_eog(self._vocabulary, token))

    def _require_special(self) -> None:
        """Refuse a tokenizer that adds a token which it lacks: llama.cpp would end the process."""
        library, vocabulary = self._library, self._vocabulary
        is_words = library.llama_vocab_type(vocabulary) == library.LLAMA_VOCAB_TYPE_WPM
        for name, is_added, token in (
            ("bos", is_words or library.llama_vocab_get_add_bos(vocabulary), library.llama_vocab_bos(vocabulary)),
            ("eos", library.llama_vocab_get_add_eos(vocabulary), library.llama_vocab_eos(vocabulary)),
            ("seperator", is_words, library.llama_vocab_sep(vocabulary)),
        ):
            if is_added and token < 0:
                raise ModelError(
                    f"{self._path}: tokenizer.ggml.{name}_token_id names no token of the vocabulary's {self.size}, but "
                    "every text is to have one; convert the model again"
                )

    def _require_known(self, token: int) -> None:
        if not 0 <= token < self.size:
            raise ValueError(f"token is {token}, the vocabulary of {self._path} has {self.size}, from 0 up")


def read_metadata(library: Any, model: Any) -> dict[str, str]:
    """Read all scalars of the model's metadata as text."""
    metadata = {}
    for index in range(library.llama_model_meta_count(model)):
        key = _text(partial(library.llama_model_meta_key_by_index, model, index))
        metadata[key] = _text(partial(library.llama_model_meta_val_str_by_index, model, index))
    return metadata


def _text(fill: Callable[[Any, int], int]) -> str:
    """Call a function that writes into a buffer and returns the length of all it would write."""
    size = _FIRST_BUFFER_BYTES
    while True:
        buffer = ctypes.create_string_buffer(size)
        length = fill(buffer, size)
        if length < size:
            return buffer.value.decode("utf-8", errors="replace")
        size = length + 1
