"""Run all benchmarks and write what they show: JSON, a Markdown table with ratios, and the README's plot.

    pip install '.[bench]'
    python benchmarks/run.py [--out FOLDER] [--against EARLIER.json] [--quick]

Builds the C++ programs in build/benchmarks, runs them and the Python programs, and takes medians of seven.
With `--against` it ends with 1 when a row became worse beyond noise.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import machine
import plot
import report
from results import Results, Row, load_google_benchmark, load_rows

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "benchmarks"
TIMED_PROGRAMS = ("pool_benchmark", "block_allocator_benchmark")
COUNTING_PROGRAMS = ("placement_benchmark",)  # the same figures in every run
# jemalloc and tcmalloc, opened at run time, take more of it than glibc leaves for such libraries.
TUNABLES = {"GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=65536"}


def build(folder: Path) -> None:
    """Configure and build the C++ programs."""
    subprocess.run(["cmake", "-S", HERE.parent, "-B", folder, "-DTIERPOOL_BUILD_BENCHMARKS=ON"], check=True)
    subprocess.run(["cmake", "--build", folder, "--parallel", "2"], check=True)


def run_cpp(program: Path, scratch: Path, repetitions: int, min_seconds: float) -> list[Row]:
    """Run every row in a process of its own, so that no allocator inherits a heap that another workload cut up.

    The repetitions are the outer loop: what disturbs the machine for a while disturbs all rows.
    """
    names = _output(program, "--benchmark_list_tests=true").split()
    outputs = []
    for repetition in range(repetitions):
        for index, name in enumerate(names):
            outputs.append(scratch / f"{program.name}-{repetition}-{index}.json")
            _output(
                program,
                f"--benchmark_filter=^{re.sub('[.+]', '.', name)}$",
                f"--benchmark_min_time={min_seconds}",
                "--benchmark_out_format=json",
                f"--benchmark_out={outputs[-1]}",
            )
    return load_google_benchmark(outputs)


def _output(program: Path, *arguments: str) -> str:
    command = [str(program), *arguments]
    done = subprocess.run(command, check=False, env=os.environ | TUNABLES, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def run_python(program: Path, output: Path, repetitions: int) -> list[Row]:
    """Run one Python program with this interpreter."""
    command = [sys.executable, str(program), "--repetitions", str(repetitions), "--json", str(output)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return load_rows(output)


def python_programs() -> list[Path]:
    """List what measures: the programs that share `measure`; `run_cuda.py` runs those that need a GPU."""
    uses_measure = re.compile(r"^(import|from) measure\b", re.MULTILINE)
    programs = sorted((HERE / "python").glob("*.py"))
    return [
        path
        for path in programs
        if not path.stem.startswith("cuda_") and uses_measure.search(path.read_text(encoding="utf-8"))
    ]


def run_all(built: Path, quick: bool) -> list[Row]:
    """Run everything, one program after the other."""
    repetitions, min_seconds = (1, 0.01) if quick else (7, 0.1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name in (*TIMED_PROGRAMS, *COUNTING_PROGRAMS):
            print(f"running {name}", flush=True)
            times = repetitions if name in TIMED_PROGRAMS else 1
            rows += run_cpp(built / "benchmarks" / "cpp" / name, scratch, times, min_seconds)
        for program in python_programs():
            print(f"running {program.name}", flush=True)
            rows += run_python(program, scratch / "rows.json", repetitions)
    return rows + load_rows(HERE / "published.json")


def write(results: Results, folder: Path) -> None:
    """Write the three files."""
    folder.mkdir(parents=True, exist_ok=True)
    results.save(folder / "results.json")
    (folder / "results.md").write_text(report.markdown(results))
    plot.draw(results.rows, folder / "plot.svg")
    print(f"wrote results.json, results.md and plot.svg to {folder}")


def main() -> int:
    """Run, write and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=BUILD, metavar="FOLDER")
    parser.add_argument("--build", type=Path, default=BUILD, metavar="FOLDER", help="where the C++ programs are built")
    parser.add_argument("--against", type=Path, metavar="FILE", help="results.json of an earlier run")
    parser.add_argument("--quick", action="store_true", help="once and briefly: shows that all run, no figures")
    options = parser.parse_args()
    earlier = Results.load(options.against) if options.against else None
    build(options.build)
    described = machine.describe(options.build)
    results = Results(described, run_all(options.build, options.quick))
    described["load after"] = f"{os.getloadavg()[0]:.2f}"
    write(results, options.out)
    if earlier is None:
        return 0
    table, worse = report.comparison(earlier, results)
    print(table)
    print(f"worse beyond noise: {', '.join(worse) or 'nothing'}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
