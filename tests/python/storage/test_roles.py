"""Roles by name."""

from __future__ import annotations

import pytest

from tierpool.storage.roles import ARCHITECTURES, Role, role_of, split_name


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("token_embd.weight", Role.EMBEDDING),
        ("output.weight", Role.OUTPUT),
        ("output_norm.weight", Role.NORM),
        ("blk.0.attn_norm.weight", Role.NORM),
        ("blk.0.attn_norm_2.weight", Role.NORM),
        ("blk.12.attn_q_norm.weight", Role.NORM),
        ("blk.12.post_attention_norm.weight", Role.NORM),
        ("blk.0.attn_q.weight", Role.ATTENTION),
        ("blk.0.attn_k.bias", Role.ATTENTION),
        ("blk.0.attn_qkv.weight", Role.ATTENTION),
        ("blk.0.attn_kv_a_mqa.weight", Role.ATTENTION),
        ("blk.0.attn_output.weight", Role.ATTENTION),
        ("blk.0.attn_sinks.weight", Role.ATTENTION),
        ("blk.0.ffn_gate_inp.weight", Role.ROUTER),
        ("blk.0.ffn_gate_inp.bias", Role.ROUTER),
        ("blk.0.exp_probs_b.bias", Role.ROUTER),
        ("blk.0.ffn_gate_inp_shexp.weight", Role.SHARED_EXPERT),
        ("blk.0.ffn_up_shexp.weight", Role.SHARED_EXPERT),
        ("blk.0.ffn_up_exps.weight", Role.EXPERT),
        ("blk.0.ffn_gate_up_exps.weight", Role.EXPERT),
        ("blk.0.ffn_up_exps.bias", Role.EXPERT),
        ("blk.0.ffn_down.7.weight", Role.EXPERT),
        ("blk.0.ffn_gate.weight", Role.DENSE_FFN),
        ("blk.0.ffn_down.weight", Role.DENSE_FFN),
        ("blk.0.ffn_norm.weight", Role.NORM),
        ("rope_freqs.weight", Role.OTHER),
        ("blk.0.ssm_a", Role.OTHER),
        ("something new", Role.OTHER),
    ],
)
def test_roles(name: str, role: Role) -> None:
    assert role_of(name) is role


def test_layers_are_split_off() -> None:
    assert split_name("blk.31.ffn_up.weight") == (31, "ffn_up.weight")
    assert split_name("output.weight") == (None, "output.weight")
    assert split_name("blk.x.ffn_up.weight") == (None, "blk.x.ffn_up.weight")


def test_only_weights_of_experts_and_dense_layers_are_streamed() -> None:
    for architecture in ARCHITECTURES.values():
        for name in architecture.expert_names:
            assert role_of(f"blk.0.{name}") is Role.EXPERT
        for name in architecture.layer_names:
            assert role_of(f"blk.0.{name}") is Role.DENSE_FFN
        assert all(name.endswith(".weight") for name in architecture.expert_names + architecture.layer_names)
        assert bool(architecture.expert_stop) == bool(architecture.expert_names)
        assert bool(architecture.layer_stop) == bool(architecture.layer_names)
