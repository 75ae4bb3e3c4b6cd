"""Three workloads in plain PyTorch, with random weights: what they allocate is what counts.

Each takes the memory that such programs take in eager mode: a Llama that serves several sequences of varying length and
grows their key-value caches, a mixture-of-experts prefill that visits its experts one by one, a GPT-2 trained on
batches of varying length. `Workload.prepare` makes what lives throughout, `Workload.run` does the work.
"""

from __future__ import annotations

import random
import time
from typing import Any

import torch
from torch.nn import functional


def weights(*shape: int, dtype: Any = torch.bfloat16) -> Any:
    """Small random numbers on the GPU."""
    return torch.randn(*shape, dtype=dtype, device="cuda") * 0.02


def norm(x: Any) -> Any:
    """RMS norm, as eager code has it: in single precision and back."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype)


class Attention:
    """Grouped-query attention with a cache that grows by concatenation."""

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        self.heads, self.kv_heads, self.size = heads, kv_heads, width // heads
        self.q, self.o = weights(width, width), weights(width, width)
        self.k, self.v = weights(width, kv_heads * self.size), weights(width, kv_heads * self.size)

    def __call__(self, x: Any, cache: list[Any] | None) -> Any:
        """Attend to what the cache holds and to `x`, batch x length x width."""
        batch, length, width = x.shape
        q = (x @ self.q).view(batch, length, self.heads, self.size).transpose(1, 2)
        k = (x @ self.k).view(batch, length, self.kv_heads, self.size).transpose(1, 2)
        v = (x @ self.v).view(batch, length, self.kv_heads, self.size).transpose(1, 2)
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
            cache[:] = [k, v]
        groups = self.heads // self.kv_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=length > 1)
        return out.transpose(1, 2).reshape(batch, length, width) @ self.o


class Llama:
    """A Llama of the 1B shape."""

    width, hidden, layer_count, vocabulary = 2048, 8192, 16, 128256

    def __init__(self) -> None:
        self.embedding = weights(self.vocabulary, self.width)
        self.attention = [Attention(self.width, 32, 8) for _ in range(self.layer_count)]
        self.gate = [weights(self.width, self.hidden) for _ in range(self.layer_count)]
        self.up = [weights(self.width, self.hidden) for _ in range(self.layer_count)]
        self.down = [weights(self.hidden, self.width) for _ in range(self.layer_count)]

    def new_caches(self) -> list[list[Any]]:
        """One empty cache a layer."""
        return [[] for _ in range(self.layer_count)]

    def next_token(self, tokens: Any, caches: list[list[Any]]) -> Any:
        """Take tokens, batch x length; give the next one of each sequence."""
        x = self.embedding[tokens]
        for layer in range(self.layer_count):
            x = x + self.attention[layer](norm(x), caches[layer])
            y = norm(x)
            x = x + (functional.silu(y @ self.gate[layer]) * (y @ self.up[layer])) @ self.down[layer]
        return (norm(x[:, -1:]) @ self.embedding.T).float().argmax(-1)


class Sequence:
    """One sequence behind a prompt of random tokens."""

    @torch.no_grad()
    def __init__(self, model: Llama, prompt_length: int) -> None:
        self.model, self.caches, self.length = model, model.new_caches(), 0
        prompt = torch.randint(0, Llama.vocabulary, (1, prompt_length), device="cuda")
        self.token = model.next_token(prompt, self.caches)

    @torch.no_grad()
    def decode_seconds(self, tokens: int) -> float:
        """Seconds that so many further tokens take."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(tokens):
            self.token = self.model.next_token(self.token, self.caches)
        torch.cuda.synchronize()
        self.length += tokens
        return time.perf_counter() - start


class ServingMix:
    """A Llama that serves eight sequences at a time: prompts and answers of random length, one token a step each."""

    slots, steps = 8, 60

    def prepare(self) -> None:
        """Make the model."""
        self.model = Llama()

    @torch.no_grad()
    def run(self) -> None:
        """Serve."""
        chosen = random.Random(1)
        live: list[list[Any]] = []
        for _ in range(self.steps):
            while len(live) < self.slots:
                prompt = torch.randint(0, Llama.vocabulary, (1, chosen.randint(32, 3000)), device="cuda")
                caches = self.model.new_caches()
                live.append([self.model.next_token(prompt, caches), caches, chosen.randint(4, 64)])
            for sequence in live:
                sequence[0] = self.model.next_token(sequence[0], sequence[1])
                sequence[2] -= 1
            live = [sequence for sequence in live if sequence[2] > 0]


class MoePrefill:
    """Prefill of prompts by a mixture of experts, shaped as Qwen3-30B-A3B but of fewer layers."""

    width, expert_hidden, experts, active, layer_count = 2048, 768, 128, 8, 4

    def prepare(self) -> None:
        """Make the model."""
        self.attention = [Attention(self.width, 32, 4) for _ in range(self.layer_count)]
        self.router = [weights(self.width, self.experts) for _ in range(self.layer_count)]
        shapes = ((self.width, self.expert_hidden),) * 2 + ((self.expert_hidden, self.width),)
        self.expert_weights = [
            [tuple(weights(*shape) for shape in shapes) for _ in range(self.experts)] for _ in range(self.layer_count)
        ]

    def _mixture(self, layer: int, x: Any) -> Any:
        flat = x.view(-1, self.width)
        shares, chosen = torch.topk(torch.softmax((flat @ self.router[layer]).float(), -1), self.active)
        shares = (shares / shares.sum(-1, keepdim=True)).to(flat.dtype)
        out = torch.zeros_like(flat)
        mask = functional.one_hot(chosen, self.experts).permute(2, 1, 0)
        for expert in range(self.experts):
            rank, token = torch.where(mask[expert])
            gate, up, down = self.expert_weights[layer][expert]
            taken = flat[token]
            y = (functional.silu(taken @ gate) * (taken @ up)) @ down
            out.index_add_(0, token, y * shares[token, rank, None])
        return out.view_as(x)

    @torch.no_grad()
    def run(self) -> None:
        """Prefill prompts of several lengths."""
        for length in (512, 2048, 4096, 1024, 3072, 4096):
            x = weights(1, length, self.width)
            for layer in range(self.layer_count):
                x = x + self.attention[layer](norm(x), None)
                x = x + self._mixture(layer, norm(x))


class Gpt2Training:
    """Training of GPT-2 124M in single precision with AdamW, on batches of varying length."""

    steps, batch, vocabulary, width = 24, 8, 50257, 768

    def prepare(self) -> None:
        """Make the model; the optimizer makes its state in the first step."""
        nn = torch.nn
        layer = nn.TransformerEncoderLayer(
            self.width, 12, 4 * self.width, batch_first=True, activation="gelu", norm_first=True
        )
        self.model = nn.ModuleDict(
            {
                "tokens": nn.Embedding(self.vocabulary, self.width),
                "positions": nn.Embedding(1024, self.width),
                "layers": nn.TransformerEncoder(layer, 12, enable_nested_tensor=False),
            }
        ).to("cuda")
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)

    def run(self) -> None:
        """Train."""
        chosen = random.Random(1)
        for _ in range(self.steps):
            length = chosen.randint(64, 1024)
            tokens = torch.randint(0, self.vocabulary, (self.batch, length), device="cuda")
            mask = torch.nn.Transformer.generate_square_subsequent_mask(length, device="cuda")
            x = self.model["tokens"](tokens) + self.model["positions"](torch.arange(length, device="cuda"))
            x = self.model["layers"](x, mask=mask, is_causal=True)
            logits = x @ self.model["tokens"].weight.T
            loss = functional.cross_entropy(logits[:, :-1].reshape(-1, self.vocabulary), tokens[:, 1:].reshape(-1))
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)


WORKLOADS: dict[str, Any] = {"llama-serving-mix": ServingMix, "moe-prefill": MoePrefill, "gpt2-training": Gpt2Training}
