"""What llama.cpp asserts of a model's sizes and tensor types, and ends the process where it does not hold.

What it refuses by itself, such as a tensor of the wrong shape, is left to it. Of architectures outside the table only
what concerns all of them is known here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NoReturn

from tierpool.storage.errors import ModelError
from tierpool.storage.roles import ARCHITECTURES, Role, role_of, split_name

if TYPE_CHECKING:
    from tierpool.storage.gguf import Model
    from tierpool.storage.hyperparameters import MetadataReader

ROPE_SCALINGS: Final = ("none", "linear", "yarn", "longrope")

_EPSILONS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "attention.group_norm_epsilon")
_HEAD_WIDTHS = (
    "attention.value_length",
    "rope.dimension_count",
    "attention.key_length_swa",
    "attention.value_length_swa",
    "rope.dimension_count_swa",
)
# Multiplied with numbers of float32, or added to them, without being converted.
_FLOAT_ENDINGS = (".bias", ".scale", "attn_sinks.weight", "rope_freqs.weight")
_FLOAT = "F32"
# Where the queries are as wide as the embedding, llama.cpp compares their shape with that alone.
_PROJECTION = re.compile(r"attn_(q|k|v|qkv)\.(?:weight|bias)")
_WINDOWED = frozenset({"gpt-oss"})
_TRUSTED_OFFSETS = "tokenizer.ggml.precompiled_charsmap"
_NO_WEIGHTS = frozenset({"I8", "I16", "I32", "I64", "F64"})


def check_experts(reader: MetadataReader, experts: int, used: int) -> None:
    """Check how many experts there are, are used, and how they are grouped."""
    if experts and not 0 < used <= experts:
        reader.fail("expert_used_count", f"is {used}, but there are {experts} experts")
    if used and not experts:
        reader.fail("expert_used_count", f"is {used}, but there are no experts: it must be 0")
    groups = reader.number("expert_group_count", default=0)
    used_groups = reader.number("expert_group_used_count", default=0)
    if groups and groups >= experts:
        reader.fail("expert_group_count", f"is {groups}, it must be below the number of experts, {experts}")
    if groups > 1 and experts % groups:
        reader.fail("expert_group_count", f"is {groups}, it must divide the number of experts, {experts}")
    if groups > 1 and not 0 < used_groups < groups:
        reader.fail("expert_group_used_count", f"is {used_groups}, it must lie between 1 and {groups - 1}")


def check_engine_limits(model: Model, reader: MetadataReader, layers: int) -> None:
    """Check all but the experts.

    Raises
    ------
    ModelError
        Naming key or tensor, value and limit.
    """
    predicting = reader.number("nextn_predict_layers", default=0)
    if predicting > layers:
        reader.fail("nextn_predict_layers", f"is {predicting}, but there are {layers} layers")
    scaling = reader.value("rope.scaling.type", "none")
    if scaling not in ROPE_SCALINGS:
        reader.fail("rope.scaling.type", f"is {scaling!r}, it must be one of {', '.join(ROPE_SCALINGS)}")
    for key in _EPSILONS:
        epsilon = reader.value(key, 0.0)
        # Also what is no number at all.
        if not isinstance(epsilon, int | float) or not epsilon >= 0:
            reader.fail(key, f"is {epsilon!r}, it must be 0 or more")
    if model.architecture in ARCHITECTURES:
        _check_heads(model, reader, layers)
        if model.architecture in _WINDOWED:
            _check_windows(reader, layers, layers - predicting)
        _check_types(model)
        if _TRUSTED_OFFSETS in model.metadata:
            raise ModelError(
                f"{model.path}: {_TRUSTED_OFFSETS} is no part of a model of architecture {model.architecture}, and "
                "wrong offsets in it would end the process; convert the model again without it"
            )


def _check_heads(model: Model, reader: MetadataReader, layers: int) -> None:
    heads = _same_in_all_layers(reader, "attention.head_count", layers, default=0)
    kv_heads = _same_in_all_layers(reader, "attention.head_count_kv", layers, default=heads)
    if heads % kv_heads:
        reader.fail("attention.head_count_kv", f"is {kv_heads}, it must divide the number of heads, {heads}")
    natural_width = reader.number("embedding_length") // heads
    width = reader.number("attention.key_length", default=natural_width)
    if width < 2 or width % 2:
        reader.fail("attention.key_length", f"is {width}, it must be an even number above 0")
    for key in _HEAD_WIDTHS:
        other = reader.number(key, default=natural_width if key == "attention.value_length" else width)
        if other != width:
            reader.fail(key, f"is {other}, it must be attention.key_length, {width}")
    rows = {"q": heads, "k": kv_heads, "v": kv_heads, "qkv": heads + 2 * kv_heads}
    for tensor in model.tensors:
        found = _PROJECTION.fullmatch(split_name(tensor.name)[1])
        if found and tensor.shape[-1] != rows[found[1]] * width:
            _refuse(
                model,
                tensor.name,
                f"the shape {tensor.shape}",
                f"its last number must be {rows[found[1]] * width}, for {rows[found[1]]} heads of {width}",
            )


def _same_in_all_layers(reader: MetadataReader, key: str, layers: int, default: int) -> int:
    numbers = reader.per_layer(key, layers, default)
    if not numbers[0] or len(set(numbers)) > 1:
        reader.fail(key, f"is {numbers}, it must be the same in all layers, and not 0")
    return numbers[0]


def _check_windows(reader: MetadataReader, layers: int, computed: int) -> None:
    """Check that a layer has a window: from the file's list, or in all but every so-manieth layer."""
    pattern = reader.value("attention.sliding_window_pattern", 2)
    has_window = any(pattern[:layers]) if isinstance(pattern, tuple) else computed > 0 and pattern != 1
    if not has_window:
        reader.fail(
            "attention.sliding_window_pattern",
            f"is {pattern}, which gives none of {computed} layers a window; one at least must have it",
        )


def _check_types(model: Model) -> None:
    for tensor in model.tensors:
        is_plain = len(tensor.shape) == 1 or tensor.name.endswith(_FLOAT_ENDINGS) or role_of(tensor.name) is Role.NORM
        if is_plain and tensor.type_name != _FLOAT:
            _refuse(model, tensor.name, f"the type {tensor.type_name}", f"it must be {_FLOAT}")
        if tensor.type_name in _NO_WEIGHTS:
            _refuse(model, tensor.name, f"the type {tensor.type_name}", "which weights cannot have")


def _refuse(model: Model, name: str, what: str, why: str) -> NoReturn:
    raise ModelError(f"{model.path}: tensor {name!r} has {what}, {why}; convert the model again")
