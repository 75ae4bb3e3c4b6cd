"""Run all benchmarks that need a GPU, and write what they show: JSON, tables with ratios, and which targets were met.

    python benchmarks/run_cuda.py [--out FOLDER] [--repetitions N] [PROGRAM ...]

A program that fails is named at the end, and the others still run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import cuda_targets
import machine
import report
from results import Results, Row, load_rows

HERE = Path(__file__).resolve().parent
PROGRAMS = ("cuda_calls", "cuda_pinned", "cuda_copies", "cuda_memory")


def describe() -> dict[str, str]:
    """Describe the machine and its GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    name, _, driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.partition(",")
    return {"GPU": name.strip(), "driver": driver.strip(), **machine.describe(HERE)}


def run(programs: list[str], repetitions: int, out: Path) -> tuple[str, list[str]]:
    """Run one program after the other, and save what there is after each. Returns the table, and what failed."""
    machine_text, text = describe(), ""
    rows: list[Row] = []
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for program in programs:
            output = Path(folder, f"{program}.json")
            command = [sys.executable, str(HERE / "python" / f"{program}.py"), "--repetitions", str(repetitions)]
            done = subprocess.run([*command, "--json", str(output)], check=False)
            if done.returncode == 0:
                rows += load_rows(output)
            else:
                failed.append(program)
            text = save(Results(machine_text, rows), out)
    return text, failed


def save(results: Results, folder: Path) -> str:
    """Write both files. Returns the text of the readable one."""
    judged = cuda_targets.verdicts(results.rows)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cuda_results.json"
    results.save(path)
    stored = json.loads(path.read_text())
    stored["targets"] = [asdict(verdict) for verdict in judged]
    path.write_text(json.dumps(stored, indent=1) + "\n")
    text = report.markdown(results) + "\n" + cuda_targets.markdown(judged)
    (folder / "cuda_results.md").write_text(text)
    return text


def main() -> int:
    """Run everything."""
    parser = argparse.ArgumentParser(description="Run all benchmarks that need a GPU.")
    parser.add_argument("programs", nargs="*", default=PROGRAMS)
    parser.add_argument("--out", type=Path, default=HERE.parent / "build" / "cuda_results")
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    text, failed = run(list(options.programs), options.repetitions, options.out)
    print(text)
    for program in failed:
        print(f"FAILED: {program}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
