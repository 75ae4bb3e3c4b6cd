"""The numbers of a model's metadata that its memory depends on, checked and completed.

Layers and experts have the limits of llama.cpp; they also bound how many units a hostile file can ask for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from tierpool.storage.engine_limits import check_engine_limits, check_experts
from tierpool.storage.errors import ModelError
from tierpool.storage.gguf_header import LongArray

if TYPE_CHECKING:
    from tierpool.storage.gguf import Model
    from tierpool.storage.gguf_header import Value

MAX_LAYERS: Final = 512
MAX_EXPERTS: Final = 1024
MAX_WIDTH: Final = 1 << 24


@dataclass(frozen=True)
class Hyperparameters:
    """Sizes of a model.

    Attributes
    ----------
    attention : int
        Width of the queries of the widest layer.
    kv_width : int
        Numbers that the KV cache keeps for each token, all layers together.
    feed_forward : int
        Width of the widest layer's feed-forward network, of all experts that a token uses together.
    used_experts : int
        Experts that a token uses in a layer; 0 in a dense model.
    masks : int
        Attention masks: two where some layers see only a window.
    """

    layers: int
    embedding: int
    attention: int
    kv_width: int
    feed_forward: int
    vocabulary: int
    experts: int
    used_experts: int
    masks: int


def read_hyperparameters(model: Model) -> Hyperparameters:
    """Take the sizes from the metadata.

    Raises
    ------
    ModelError
        When one is missing, no whole number, out of bounds, or such that llama.cpp would end the process.
    """
    reader = MetadataReader(model)
    layers = reader.number("block_count", limit=MAX_LAYERS)
    if not layers:
        reader.fail("block_count", f"is 0, it must lie between 1 and {MAX_LAYERS}")
    check_engine_limits(model, reader, layers)
    embedding = reader.number("embedding_length")
    heads = reader.per_layer("attention.head_count", layers, default=0)
    widest = max(heads, default=0)
    kv_heads = reader.per_layer("attention.head_count_kv", layers, default=widest)
    head_width = embedding // widest if widest else 0
    key_width = reader.number("attention.key_length", default=head_width)
    value_width = reader.number("attention.value_length", default=head_width)
    experts = reader.number("expert_count", default=0, limit=MAX_EXPERTS)
    used = reader.number("expert_used_count", default=0)
    check_experts(reader, experts, used)
    dense_width = max(reader.per_layer("feed_forward_length", layers, default=0), default=0)
    expert_width = max(reader.per_layer("expert_feed_forward_length", layers, default=dense_width), default=0)
    return Hyperparameters(
        layers=layers,
        embedding=embedding,
        attention=widest * max(key_width, value_width),
        kv_width=sum(kv_heads) * (key_width + value_width),
        feed_forward=max(dense_width, expert_width * used),
        vocabulary=_vocabulary(model, reader),
        experts=experts,
        used_experts=used,
        masks=2 if reader.number("attention.sliding_window", default=0) else 1,
    )


def _vocabulary(model: Model, reader: MetadataReader) -> int:
    tokens = model.metadata.get("tokenizer.ggml.tokens")
    listed = tokens.length if isinstance(tokens, LongArray) else 0
    embedded = next((tensor.shape[-1] for tensor in model.tensors if tensor.name == "token_embd.weight"), 0)
    return max(listed, embedded, reader.number("vocab_size", default=0))


class MetadataReader:
    """Metadata of one architecture, by the keys' last part."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def fail(self, key: str, problem: str) -> NoReturn:
        """Refuse the model because of a key."""
        raise ModelError(f"{self._model.path}: {self._model.architecture}.{key} {problem}; convert the model again")

    def value(self, key: str, default: Value) -> Value:
        """Whatever the file has."""
        return self._model.metadata.get(f"{self._model.architecture}.{key}", default)

    def number(self, key: str, default: int | None = None, limit: int = MAX_WIDTH) -> int:
        """One whole number of 0 or more."""
        value = self._model.metadata.get(f"{self._model.architecture}.{key}", default)
        if value is None:
            self.fail(key, "is missing, as if this were no language model")
        return self._checked(key, value, limit)

    def per_layer(self, key: str, layers: int, default: int) -> tuple[int, ...]:
        """One number for each layer; the file may hold one for all of them."""
        value = self._model.metadata.get(f"{self._model.architecture}.{key}", default)
        if not isinstance(value, tuple):
            return (self._checked(key, value, MAX_WIDTH),) * layers
        if len(value) < layers:
            self.fail(key, f"has {len(value)} numbers for {layers} layers")
        return tuple(self._checked(key, number, MAX_WIDTH) for number in value[:layers])

    def _checked(self, key: str, value: object, limit: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(key, "is no whole number")
        if not 0 <= value <= limit:
            self.fail(key, f"is {value}, it must lie between 0 and {limit}")
        return value
