"""Generate within a plan's memory, in a memory group of 64 MiB more, and print what that took, as JSON.

``python limited_run.py MODEL SHARE TOKENS [GROUP]``; GROUP is a folder of the memory controller, which this joins.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[4] / "benchmarks" / "python"))

from streamed_runs import least_budget, plan_share, prompt_of

from tierpool.storage.engine_llama import load_engine
from tierpool.storage.gguf import read_model
from tierpool.storage.limits import read_limits
from tierpool.storage.profile import Profile

ABOVE_BYTES = 64 << 20


def limit(group: Path, size_bytes: int) -> None:
    for name in ("memory.limit_in_bytes", "memory.max"):
        if (group / name).exists():
            (group / name).write_text(str(size_bytes))


def held_bytes() -> int:
    """Anonymous and shared memory, each page once: slots are mapped twice, and resident sizes count them so."""
    fields = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(field[1]) for field in fields if field[0] in {"Pss_Anon:", "Pss_Shmem:"}) << 10


def main() -> None:
    path, share, tokens, *groups = sys.argv[1:]
    for group in groups:
        (Path(group) / "cgroup.procs").write_text("0")
    model = read_model(path)
    profile = Profile(path, True, 2e9, 1.5e9, 20e9, read_limits())
    plan = plan_share(model, profile, float(share))
    for group in groups:
        limit(Path(group), plan.budget.limit_bytes + ABOVE_BYTES)
    engine = load_engine(plan, strict=True)
    digest = hashlib.sha256()
    logits = engine.evaluate(prompt_of(2 * plan.n_ubatch + 3, engine.vocabulary_size))
    held, faults = [held_bytes()], 0
    for token in range(int(tokens)):
        digest.update(logits.tobytes())
        logits = engine.evaluate([int(logits.argmax())])
        held.append(held_bytes())
        if token == 0:
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    counters = engine.get_counters()
    found = {
        "mode": plan.mode,
        "n_ubatch": plan.n_ubatch,
        "limit_bytes": plan.budget.limit_bytes,
        "least_bytes": least_budget(model, profile),
        "weight_bytes": model.weight_bytes,
        "held_bytes": max(held),
        "major_faults": resource.getrusage(resource.RUSAGE_SELF).ru_majflt - faults,
        "read_bytes": counters.read_bytes,
        "logits": digest.hexdigest(),
    }
    engine.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
