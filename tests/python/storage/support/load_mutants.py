"""Give damaged models that our checks accept to llama.cpp, and print the number of each before it is loaded.

``python load_mutants.py MODEL KIND SEED FIRST COUNT``: of the accepted mutants those from FIRST to before COUNT.
MODEL is written to. KIND is ``bytes`` or ``values``.
"""

from __future__ import annotations

import os
import resource
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from header_mutations import mutations, value_mutations

from tierpool import TierpoolError
from tierpool.storage.engine_llama import load_engine
from tierpool.storage.errors import ModelError, PlanError
from tierpool.storage.gguf import read_model
from tierpool.storage.limits import read_limits
from tierpool.storage.planner import plan_model
from tierpool.storage.profile import Profile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierpool.storage.plan import Plan

BUDGET_BYTES = 1 << 30
ADDRESS_BYTES = 4 << 30


def accepted(path: str, kind: str, seed: int) -> Iterator[Plan]:
    """Yield the plan of each mutant that has one, with the mutant in its file."""
    profile = Profile(path, True, 2e9, 1.5e9, 20e9, read_limits())
    whole = Path(path).read_bytes()
    header = whole[: min(tensor.offset_bytes for tensor in read_model(path).tensors)]
    mutate = {"bytes": mutations, "values": value_mutations}[kind]
    descriptor = os.open(path, os.O_RDWR)
    for damaged in mutate(header, seed):
        # Offsets count from the header's end, so that the data moves with it where the form stayed right.
        os.pwrite(descriptor, damaged + whole[len(header) :], 0)
        os.ftruncate(descriptor, max(len(whole), len(damaged) + len(whole) - len(header)))
        try:
            plan = plan_model(read_model(path), profile, BUDGET_BYTES, context=256, threads=1)
        except (ModelError, PlanError):
            continue
        yield plan


def use(plan: Plan) -> str:
    """Load and compute a little; the error, if there is one."""
    try:
        engine = load_engine(plan)
    except TierpoolError as error:
        return str(error)
    try:
        engine.evaluate([5, 6])
        engine.tokenize("w1 and \N{LATIN SMALL LETTER U WITH DIAERESIS}\n", add_special=True, parse_special=True)
        engine.detokenize(7)
    except (TierpoolError, ValueError) as error:
        return str(error)
    finally:
        engine.close()
    return ""


def main() -> None:
    """Load mutants until there were enough."""
    path, kind, seed, first, count = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    for number, plan in enumerate(islice(accepted(path, kind, seed), count)):
        if number >= first:
            print(number, flush=True)
            print("refused" if use(plan) else "loaded", flush=True)


if __name__ == "__main__":
    main()
