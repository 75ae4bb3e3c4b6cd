"""What each tensor is for, and what of a model may be streamed.

Names are those of the GGUF specification and of llama.cpp, which are the same for all architectures; what differs by
architecture is which tensors may leave memory and at which nodes of the graph their use is announced. One table says so
for the architectures that are proven; every other one runs from memory alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Role(str, Enum):
    """What a tensor does in the model."""

    ATTENTION = "attention"
    NORM = "norm"
    EMBEDDING = "embedding"
    OUTPUT = "output"
    ROUTER = "router"
    SHARED_EXPERT = "shared expert"
    EXPERT = "expert"
    DENSE_FFN = "dense FFN"
    OTHER = "other"


@dataclass(frozen=True)
class Architecture:
    """What may be streamed of one architecture, and where the graph must stop for it.

    Attributes
    ----------
    expert_stop, layer_stop : str
        The graph's node, without its layer's number, after which the experts of the layer are known, and before which
        the layer's dense FFN must be in memory. Empty where the architecture has no such tensors.
    expert_names, layer_names : tuple of str
        The streamed tensors' names after ``blk.N.``. Biases and scales stay in memory: they are small, and the router's
        choice indexes them directly.
    """

    expert_stop: str
    expert_names: tuple[str, ...]
    layer_stop: str
    layer_names: tuple[str, ...]


_EXPERT_NAMES = ("ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight")
_LAYER_NAMES = ("ffn_gate.weight", "ffn_up.weight", "ffn_down.weight")
_EXPERTS_ONLY = Architecture("ffn_moe_topk", _EXPERT_NAMES, "", ())
_LAYERS_ONLY = Architecture("", (), "ffn_inp", _LAYER_NAMES)

ARCHITECTURES: Final = {
    "llama": Architecture("ffn_moe_topk", _EXPERT_NAMES, "ffn_inp", _LAYER_NAMES),  # with experts: Mixtral
    "qwen2": _LAYERS_ONLY,
    "qwen3": _LAYERS_ONLY,
    "qwen3moe": _EXPERTS_ONLY,
    "gpt-oss": _EXPERTS_ONLY,
}

_IN_LAYER = re.compile(r"blk\.(\d{1,6})\.(.+)", re.DOTALL)

# The first that matches the whole name without its layer and its ending.
_ROLES = (
    (re.compile(r".*norm(_\d+)?|.*_norm_\w+"), Role.NORM),
    (re.compile(r"(token_embd|token_types|position_embd|per_layer_token_embd)"), Role.EMBEDDING),
    (re.compile(r"output"), Role.OUTPUT),
    (re.compile(r"ffn_\w+_shexp|\w+_chexps"), Role.SHARED_EXPERT),
    (re.compile(r"ffn_gate_inp|ffn_gate_tid2eid|exp_probs_b"), Role.ROUTER),
    (re.compile(r"ffn_\w+_exps|ffn_(gate|up|down)\.\d+"), Role.EXPERT),
    (re.compile(r"ffn_(gate|up|down|gate_up|act)"), Role.DENSE_FFN),
    (re.compile(r"attn_\w+"), Role.ATTENTION),
)
_ENDING = re.compile(r"\.(weight|bias|scale|input_scale)$")


def split_name(name: str) -> tuple[int | None, str]:
    """Split off the layer: ``blk.3.attn_q.weight`` is ``(3, "attn_q.weight")``, and ``output.weight`` has no layer."""
    found = _IN_LAYER.fullmatch(name)
    return (int(found[1]), found[2]) if found else (None, name)


def role_of(name: str) -> Role:
    """Tell the role of the tensor called `name`."""
    stem = _ENDING.sub("", split_name(name)[1])
    return next((role for pattern, role in _ROLES if pattern.fullmatch(stem)), Role.OTHER)
