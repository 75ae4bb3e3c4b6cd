"""The tests on a GPU, over a driver without one that is built here: what needs no kernel holds on every machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tierpool import cuda

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="the driver without a GPU is built for Linux")
@pytest.mark.skipif(cuda.is_available(), reason="this machine has a GPU: the tests run on that")
def test_on_a_driver_without_a_gpu(tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("NO C++ COMPILER HERE: the driver without a GPU cannot be built")
    library = tmp_path / "libcuda.so.1"
    includes = [f"-I{ROOT / 'cpp'}", f"-I{ROOT / 'tests' / 'cpp'}", '-DTIERPOOL_FAKE_CUDA_LIBRARY=""']
    sources = sorted((ROOT / "tests" / "cpp" / "device").glob("fake_cuda_*.cpp"))
    subprocess.run([compiler, "-std=c++20", "-O1", "-fPIC", "-shared", *includes, *sources, "-o", library], check=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", "tests/python/cuda"]
    environment = {**os.environ, "LD_LIBRARY_PATH": f"{tmp_path}:{os.environ.get('LD_LIBRARY_PATH', '')}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, done.stdout
    assert int(passed.group(1)) >= 60, done.stdout
    # Nobody reads these reasons where all is well, so that none may hide among them but a GPU's absence.
    skipped = re.findall(r"^SKIPPED .*", done.stdout, re.MULTILINE)
    assert [line for line in skipped if "THIS DRIVER" not in line] == []
