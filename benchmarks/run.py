"""Run all benchmarks and write what they show: JSON, a Markdown table with ratios, and the README's plot.

    pip install '.[bench]'
    python benchmarks/run.py [--out FOLDER] [--against EARLIER.json] [--quick]

Builds the C++ programs in build/benchmarks, runs them and the Python programs, and takes medians of seven.
With `--against` it ends with 1 when a row became worse beyond noise.
"""

from __future__ import annotations

import argparse
import os
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
CPP_PROGRAMS = ("pool_benchmark", "block_allocator_benchmark", "placement_benchmark")
REPETITIONS, MIN_SECONDS = 7, 0.1
QUICK_REPETITIONS, QUICK_MIN_SECONDS = 1, 0.01
# jemalloc and tcmalloc, opened at run time, take more of it than glibc leaves for such libraries.
TUNABLES = {"GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=65536"}


def build(folder: Path) -> None:
    """Configure and build the C++ programs."""
    subprocess.run(["cmake", "-S", HERE.parent, "-B", folder, "-DTIERPOOL_BUILD_BENCHMARKS=ON"], check=True)
    subprocess.run(["cmake", "--build", folder, "--parallel", "2"], check=True)


def run_cpp(program: Path, output: Path, quick: bool) -> list[Row]:
    """Run one google-benchmark program, its rows in random order so that what disturbs one disturbs all."""
    command = [
        str(program),
        f"--benchmark_repetitions={QUICK_REPETITIONS if quick else REPETITIONS}",
        f"--benchmark_min_time={QUICK_MIN_SECONDS if quick else MIN_SECONDS}",
        "--benchmark_enable_random_interleaving=true",
        "--benchmark_out_format=json",
        f"--benchmark_out={output}",
    ]
    subprocess.run(command, check=True, env=os.environ | TUNABLES, stdout=subprocess.DEVNULL)
    return load_google_benchmark(output)


def run_python(program: Path, output: Path, quick: bool) -> list[Row]:
    """Run one Python program with this interpreter."""
    repetitions = QUICK_REPETITIONS if quick else REPETITIONS
    command = [sys.executable, str(program), "--repetitions", str(repetitions), "--json", str(output)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return load_rows(output)


def python_programs() -> list[Path]:
    """List the programs; `measure` is what they share."""
    return sorted(path for path in (HERE / "python").glob("*.py") if path.stem != "measure")


def run_all(folder: Path, quick: bool) -> list[Row]:
    """Run everything, one program after the other."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "rows.json")
        for name in CPP_PROGRAMS:
            print(f"running {name}", flush=True)
            rows += run_cpp(folder / "benchmarks" / "cpp" / name, output, quick)
        for program in python_programs():
            print(f"running {program.name}", flush=True)
            rows += run_python(program, output, quick)
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
