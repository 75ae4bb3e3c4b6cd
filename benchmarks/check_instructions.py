"""Count the instructions of the pool's hot paths and compare with what is committed.

    python benchmarks/check_instructions.py build/benchmarks/benchmarks/cpp/hot_paths [--update]

Counted by callgrind, so the same on a busy machine. One path's count is the difference of two runs that differ only in
how often they take it. Ends with 1 when a path takes more than the tolerance above its committed count.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

COMMITTED = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.10
FEWER_PAIRS, MORE_PAIRS = 35_000, 70_000  # whole batches of 1,750


def total_instructions(program: str, path: str, pairs: int) -> int:
    """Run the program under callgrind and give the instructions of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "callgrind.out")
        valgrind = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={output}"]
        subprocess.run([*valgrind, program, path, str(pairs)], check=True)
        counted = re.search(r"^(?:summary|totals): (\d+)", output.read_text(), re.MULTILINE)
    if counted is None:
        raise RuntimeError(f"callgrind counted nothing for {path}")
    return int(counted.group(1))


def instructions(program: str, path: str) -> float:
    """Give the instructions of one pair."""
    more, fewer = (total_instructions(program, path, pairs) for pairs in (MORE_PAIRS, FEWER_PAIRS))
    return round((more - fewer) / (MORE_PAIRS - FEWER_PAIRS), 1)


def report(counted: dict[str, float], committed: dict[str, float]) -> list[str]:
    """Print every path and give those that take too many."""
    for path, count in counted.items():
        print(f"{path:<24} {count:>8.1f} instructions a pair, committed {committed[path]:>8.1f}")
    return [path for path, count in counted.items() if count > committed[path] * (1 + TOLERANCE)]


def main() -> int:
    """Count and compare, or count and commit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("program", help="hot_paths, as CMake built it")
    parser.add_argument("--update", action="store_true", help=f"write the counts to {COMMITTED.name}")
    options = parser.parse_args()
    committed = json.loads(COMMITTED.read_text())
    counted = {path: instructions(options.program, path) for path in committed}
    too_many = report(counted, committed)
    if options.update:
        COMMITTED.write_text(json.dumps(counted, indent=2) + "\n")
    elif too_many:
        print(f"more than {TOLERANCE:.0%} above the committed count: {', '.join(too_many)}")
        print("find the reason, or accept it:")
        print(f"  python benchmarks/check_instructions.py {options.program} --update")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
