"""Choose the next token from logits: top-k, top-p, min-p, then temperature, the order that llama.cpp has by default."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes
    ----------
    temperature : float
        Logits are divided by it; 0 takes the most probable token and draws nothing.
    top_k : int
        Only that many of the most probable tokens; 0 means all.
    top_p : float
        Only the most probable tokens that together reach this probability; 1 means all.
    min_p : float
        Only tokens at least this share as probable as the most probable one; 0 means all.
    seed : int or None
        Equal seeds give equal draws; None draws a seed.

    Raises
    ------
    ValueError
        When a value is out of range.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be a number from 0 on, got {self.temperature}; 0 is greedy")
        if operator.index(self.top_k) < 0:
            raise ValueError(f"top_k must be at least 0, got {self.top_k}; 0 keeps all tokens")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}; 1 keeps all tokens")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be from 0 to 1, got {self.min_p}; 0 keeps all tokens")
        if self.seed is not None and operator.index(self.seed) < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}; leave it out to have one drawn")


class Sampler:
    """Chooses tokens one after the other; for one thread at a time."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = np.random.Generator(np.random.PCG64(sampling.seed))

    def choose(self, logits: NDArray[np.float32]) -> int:
        """Return a token; of equally probable ones the lower goes first.

        Raises
        ------
        ValueError
            When a logit is not a number or infinite, or none is possible: sound weights never give that.
        """
        highest = logits.max()  # NaN where there is one
        if not np.isfinite(highest):
            raise ValueError(
                f"the model gave logits that are not numbers: the highest is {highest}; "
                "its weights are damaged or not supported"
            )
        if self._sampling.temperature == 0:
            return int(np.argmax(logits))
        tokens, chances = candidates(logits, self._sampling)
        steps = np.cumsum(chances)
        # The last step may be a little off 1.
        place = np.searchsorted(steps, self._random.random() * steps[-1], side="right")
        return int(tokens[min(int(place), tokens.size - 1)])


def candidates(logits: NDArray[np.float32], sampling: Sampling) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Tokens that may be drawn, most probable first, and their probabilities; the temperature is not 0."""
    tokens = _most_probable(logits, sampling.top_k)
    kept = logits[tokens].astype(np.float64)
    if sampling.top_p < 1:
        # As many as it takes: the last is the first with which the sum suffices.
        kept = kept[: int(np.searchsorted(np.cumsum(_probabilities(kept)), sampling.top_p)) + 1]
    if sampling.min_p > 0:
        kept = kept[: int(np.count_nonzero(kept >= kept[0] + math.log(sampling.min_p)))]
    return tokens[: kept.size], _probabilities(kept / sampling.temperature)


def _most_probable(logits: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """The `count` highest, or all: in falling order, equal ones by number."""
    if not 0 < count < logits.size:
        return np.argsort(-logits, kind="stable")
    least = np.partition(logits, logits.size - count)[logits.size - count]
    tokens = np.flatnonzero(logits >= least)
    return tokens[np.argsort(-logits[tokens], kind="stable")][:count]


def _probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.exp(logits - logits[0])
    weights /= weights.sum()
    return weights
