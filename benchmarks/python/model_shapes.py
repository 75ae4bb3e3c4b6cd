"""The tensors and metadata of the synthetic models, for every architecture that can be streamed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

if TYPE_CHECKING:
    from collections.abc import Iterator

ARCHITECTURES = ("llama", "mixtral", "qwen2", "qwen3", "qwen3moe", "gpt-oss")
HEAD_WIDTH = 64
_SLIDING_WINDOW = 128
_MIXED = {"Q4_K_M": (GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K)}
QUANTIZATIONS = ("Q4_0", "Q8_0", "MXFP4", "Q4_K", "Q5_K", "Q6_K", "F16", *_MIXED)

Fill = Literal["embedding", "routed embedding", "weights", "ones", "router", "small"]


@dataclass(frozen=True)
class TensorShape:
    """One tensor: dimensions in the file's order, and what fills it. ``experts`` counts pieces that must all differ."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    fill: Fill

    @property
    def size_bytes(self) -> int:
        """Bytes in the file."""
        block_weights, block_bytes = GGML_QUANT_SIZES[self.kind]
        weights = 1
        for length in self.shape:
            weights *= length
        return weights // block_weights * block_bytes

    @property
    def pieces(self) -> int:
        """Pieces that must all differ: the experts of a stack."""
        return self.shape[2] if len(self.shape) == 3 else 1


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a synthetic model; `mixtral` is the architecture `llama` with experts."""

    architecture: str
    quantization: str = "Q4_0"
    layers: int = 4
    heads: int = 5
    feed_forward: int = 480
    experts: int = 16
    used_experts: int = 4
    vocabulary: int = 512
    tied: bool = False

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture is {self.architecture!r}; known: {', '.join(ARCHITECTURES)}")
        if self.quantization not in QUANTIZATIONS:
            raise ValueError(f"quantization is {self.quantization!r}; known: {', '.join(QUANTIZATIONS)}")
        if self.tied and self.architecture == "gpt-oss":
            raise ValueError("gpt-oss always has an output of its own")
        if self.has_experts and not 0 < self.used_experts <= self.experts:
            raise ValueError(f"used_experts is {self.used_experts}, it must lie between 1 and {self.experts}")
        block_weights = max(GGML_QUANT_SIZES[kind][0] for kind in self._kinds)
        for name, width in (("64 * heads", self.embedding), ("feed_forward", self.feed_forward)):
            if width % block_weights:
                raise ValueError(f"{name} is {width}; {self.quantization} needs a multiple of {block_weights}")

    @property
    def has_experts(self) -> bool:
        """Whether it is a mixture of experts."""
        return self.architecture in {"mixtral", "qwen3moe", "gpt-oss"}

    @property
    def gguf_architecture(self) -> str:
        """What the file calls it."""
        return "llama" if self.architecture == "mixtral" else self.architecture

    @property
    def embedding(self) -> int:
        """Width of the hidden state."""
        return self.heads * HEAD_WIDTH

    @property
    def kv_heads(self) -> int:
        """The most heads for keys and values that divide the others and are a quarter of them at most."""
        return next(count for count in range(max(1, self.heads // 4), 0, -1) if self.heads % count == 0)

    @property
    def _kinds(self) -> tuple[GGMLQuantizationType, GGMLQuantizationType]:
        """The type of most matrices, and of the down projections in every other layer."""
        return _MIXED.get(self.quantization) or (GGMLQuantizationType[self.quantization],) * 2

    @property
    def size_bytes(self) -> int:
        """All tensors together."""
        return sum(tensor.size_bytes for tensor in self.tensors())

    def tensors(self) -> Iterator[TensorShape]:
        """Yield every tensor, in the order of the file."""
        matrix = self._kinds[0]
        # As the output too, an embedding of full deviation would answer each token with itself.
        untied: Fill = "routed embedding" if self.has_experts else "embedding"
        fill: Fill = "weights" if self.tied else untied
        yield TensorShape("token_embd.weight", (self.embedding, self.vocabulary), matrix, fill)
        for layer in range(self.layers):
            for tensor in (*self._attention(), *self._experts(layer), *self._dense(layer)):
                yield TensorShape(f"blk.{layer}.{tensor.name}", tensor.shape, tensor.kind, tensor.fill)
        yield _plain("output_norm.weight", (self.embedding,), "ones")
        if not self.tied:
            yield TensorShape("output.weight", (self.embedding, self.vocabulary), matrix, "weights")

    def _attention(self) -> Iterator[TensorShape]:
        matrix, width, kv_width = self._kinds[0], self.embedding, self.kv_heads * HEAD_WIDTH
        yield _plain("attn_norm.weight", (width,), "ones")
        for name, rows in (("q", width), ("k", kv_width), ("v", kv_width)):
            yield TensorShape(f"attn_{name}.weight", (width, rows), matrix, "weights")
            if self.architecture in {"qwen2", "gpt-oss"}:
                yield _plain(f"attn_{name}.bias", (rows,), "small")
        yield TensorShape("attn_output.weight", (width, width), matrix, "weights")
        if self.architecture in {"qwen3", "qwen3moe"}:
            yield _plain("attn_q_norm.weight", (HEAD_WIDTH,), "ones")
            yield _plain("attn_k_norm.weight", (HEAD_WIDTH,), "ones")
        if self.architecture == "gpt-oss":
            yield _plain("attn_output.bias", (width,), "small")
            yield _plain("attn_sinks.weight", (self.heads,), "small")
            yield _plain("post_attention_norm.weight", (width,), "ones")
        else:
            yield _plain("ffn_norm.weight", (width,), "ones")

    def _dense(self, layer: int) -> Iterator[TensorShape]:
        if self.has_experts:
            return
        for name, row, rows in self._projections():
            yield TensorShape(f"ffn_{name}.weight", (row, rows), self._projection_kind(name, layer), "weights")

    def _experts(self, layer: int) -> Iterator[TensorShape]:
        if not self.has_experts:
            return
        yield _plain("ffn_gate_inp.weight", (self.embedding, self.experts), "router")
        if self.architecture == "gpt-oss":
            yield _plain("ffn_gate_inp.bias", (self.experts,), "small")
        for name, row, rows in self._projections():
            kind = self._projection_kind(name, layer)
            yield TensorShape(f"ffn_{name}_exps.weight", (row, rows, self.experts), kind, "weights")
            if self.architecture == "gpt-oss":
                yield _plain(f"ffn_{name}_exps.bias", (rows, self.experts), "small")

    def _projections(self) -> tuple[tuple[str, int, int], ...]:
        wide, narrow = self.feed_forward, self.embedding
        return (("gate", narrow, wide), ("up", narrow, wide), ("down", wide, narrow))

    def _projection_kind(self, name: str, layer: int) -> GGMLQuantizationType:
        return self._kinds[1] if name == "down" and layer % 2 else self._kinds[0]

    def metadata(self) -> dict[str, int | float]:
        """Return the sizes that an engine needs, by key without the architecture."""
        values: dict[str, int | float] = {
            "context_length": 32768,
            "embedding_length": self.embedding,
            "block_count": self.layers,
            "feed_forward_length": self.feed_forward,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.key_length": HEAD_WIDTH,
            "attention.value_length": HEAD_WIDTH,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "rope.dimension_count": HEAD_WIDTH,
            "rope.freq_base": 10000.0,
            "vocab_size": self.vocabulary,
        }
        if self.has_experts:
            values |= {"expert_count": self.experts, "expert_used_count": self.used_experts}
        if self.architecture in {"qwen3moe", "gpt-oss"}:
            values["expert_feed_forward_length"] = self.feed_forward
        if self.architecture == "gpt-oss":
            values["attention.sliding_window"] = _SLIDING_WINDOW
        return values


def _plain(name: str, shape: tuple[int, ...], fill: Fill) -> TensorShape:
    return TensorShape(name, shape, GGMLQuantizationType.F32, fill)


def shape_of_size(architecture: str, quantization: str, size_bytes: int, **chosen: int | bool) -> ModelShape:
    """Choose a shape of about `size_bytes`: widths by class of size, then as many layers as it takes."""
    experts = architecture in {"mixtral", "qwen3moe", "gpt-oss"}
    small = size_bytes < 500 << 20
    heads, wide = ((5, 480) if small else (33, 864)) if experts else ((5, 1440) if small else (65, 11040))
    block_weights = max(
        GGML_QUANT_SIZES[kind][0] for kind in ModelShape("llama", quantization, heads=8, feed_forward=512)._kinds
    )
    if block_weights > 32:
        heads, wide = -(-heads // 4) * 4, -(-wide // 256) * 256
    values: dict[str, int | bool] = {
        "heads": heads,
        "feed_forward": wide,
        "experts": 16 if small else 64,
        "vocabulary": 512 if small else 32000,
        **chosen,
    }
    if "layers" not in chosen:
        one = ModelShape(architecture, quantization, **{**values, "layers": 1}).size_bytes  # type: ignore[arg-type]
        two = ModelShape(architecture, quantization, **{**values, "layers": 2}).size_bytes  # type: ignore[arg-type]
        values["layers"] = max(2, round((size_bytes - 2 * one + two) / (two - one)))
    return ModelShape(architecture, quantization, **values)  # type: ignore[arg-type]
