"""The sampler against a simple model, and what each of its settings promises."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tierpool.storage.sampler import Sampler, Sampling, candidates

LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40)
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.floats(0.1, 5),
    top_k=st.integers(0, 45),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)


def softmax(logits: list[float]) -> list[float]:
    weights = [math.exp(logit - max(logits)) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def simple_candidates(logits: list[float], sampling: Sampling) -> list[int]:
    """One step after the other, in words that leave no doubt."""
    kept = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if sampling.top_k:
        kept = kept[: sampling.top_k]
    if sampling.top_p < 1:
        total, enough = 0.0, []
        for token, chance in zip(kept, softmax([logits[token] for token in kept]), strict=True):
            if total >= sampling.top_p:
                break
            enough.append(token)
            total += chance
        kept = enough
    if sampling.min_p:
        least = logits[kept[0]] + math.log(sampling.min_p)
        kept = [token for token in kept if logits[token] >= least]
    return kept


def shifted(sampling: Sampling, share: float) -> Sampling:
    """The thresholds that are set, moved to let more tokens pass, or fewer where `share` is negative."""
    top_p = min(sampling.top_p * (1 + share), 1) if sampling.top_p < 1 else 1
    return replace(sampling, top_p=top_p, min_p=min(sampling.min_p * (1 - share), 1))


@given(LOGITS, SAMPLINGS)
@example([7.0, 8.0], Sampling(temperature=0.109375, top_k=0, top_p=1.0, min_p=0.0, seed=0))  # in float32 too coarse
@example([30.0, 25.0] + [-5.0] * 36, Sampling(temperature=1, top_k=0, top_p=1 - 2**-52, min_p=0, seed=0))
def test_candidates_are_those_of_the_simple_model(values: list[float], sampling: Sampling) -> None:
    logits = np.array(values, np.float32)
    tokens, chances = candidates(logits, sampling)
    # Sums in another order differ in their last digits, and many tokens may be less probable than that.
    fewest, most = (simple_candidates(logits.tolist(), shifted(sampling, share)) for share in (-1e-9, 1e-9))
    assert len(fewest) <= tokens.size <= len(most)
    assert tokens.tolist() == most[: tokens.size]
    assert chances == pytest.approx(softmax([float(logits[token]) / sampling.temperature for token in tokens]))


@given(LOGITS, SAMPLINGS)
def test_equal_seeds_draw_equally_and_only_candidates(values: list[float], sampling: Sampling) -> None:
    logits = np.array(values, np.float32)
    first, second = Sampler(sampling), Sampler(sampling)
    drawn = [first.choose(logits) for _ in range(5)]
    assert drawn == [second.choose(logits) for _ in range(5)]
    assert set(drawn) <= set(candidates(logits, sampling)[0].tolist())


@given(LOGITS, st.integers(0, 5), st.floats(0.01, 1), st.floats(0, 1))
def test_temperature_0_takes_the_first_of_the_most_probable(
    values: list[float], top_k: int, top_p: float, min_p: float
) -> None:
    logits = np.array(values, np.float32)
    assert Sampler(Sampling(0, top_k, top_p, min_p)).choose(logits) == int(np.flatnonzero(logits == logits.max())[0])


def test_draws_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    sampler = Sampler(Sampling(temperature=1, top_k=0, top_p=1, min_p=0, seed=7))
    counts = np.bincount([sampler.choose(logits) for _ in range(20_000)], minlength=3) / 20_000
    assert counts == pytest.approx([0.5, 0.3, 0.2], abs=0.02)


def test_different_seeds_and_no_seed_draw_differently() -> None:
    logits = np.zeros(1000, np.float32)

    def draw(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(top_k=0, top_p=1, min_p=0, seed=seed))
        return [sampler.choose(logits) for _ in range(10)]

    assert draw(1) != draw(2)
    assert draw(None) != draw(None)


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_ties_at_the_border_of_top_k_go_to_the_lower_token(count: int) -> None:
    logits = np.array([1, 3, 2, 2, 2, 0], np.float32)
    tokens, _ = candidates(logits, Sampling(top_k=count, top_p=1, min_p=0))
    assert tokens.tolist() == [1, 2, 3, 4, 0, 5][:count]


def test_tokens_that_are_impossible_are_never_drawn() -> None:
    logits = np.array([-np.inf, 0, -np.inf], np.float32)
    sampler = Sampler(Sampling(top_k=0, top_p=1, min_p=0, seed=0))
    assert {sampler.choose(logits) for _ in range(50)} == {1}


@pytest.mark.parametrize(
    ("logits", "highest"),
    [([0, np.nan], "nan"), ([0, np.inf, 1], "inf"), ([np.inf, np.nan], "nan"), ([-np.inf, -np.inf], "-inf")],
)
@pytest.mark.parametrize("sampling", [Sampling(0), Sampling(1), Sampling(1, top_k=0, top_p=1, min_p=0)])
def test_logits_that_are_no_numbers_are_refused(logits: list[float], highest: str, sampling: Sampling) -> None:
    with pytest.raises(ValueError, match=f"not numbers: the highest is {highest};"):
        Sampler(sampling).choose(np.array(logits, np.float32))


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 2},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_named(bad: dict[str, float]) -> None:
    (name,) = bad
    with pytest.raises(ValueError, match=f"{name} must be .*, got"):
        Sampling(**bad)  # type: ignore[arg-type]
