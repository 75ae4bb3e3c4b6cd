"""Reading traces, replaying them, and finding the smallest heap for them."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from tierpool import MemoryPool, TierpoolError, TraceError, _core
from tierpool.trace import Trace, fit, packaged_trace, read_trace, replay

EVENTS = ("a,0,1024", "a,1,8", "f,0,1024", "a,0,300")


def write_trace(path: Path, events: Iterable[str] = EVENTS, header: str = "{}", columns: str = "op,id,bytes") -> Path:
    text = "\n".join([f"# {header}", columns, *events]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture(params=["trace.csv.gz", "trace.csv"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


@pytest.fixture
def pool() -> Iterable[MemoryPool]:
    with MemoryPool(heap_size_mb=32, num_heaps=1, warmup_sizes=[], log_exhaustion=False) as pool:
        yield pool


def error_of(path: Path) -> str:
    with pytest.raises(TraceError) as raised:
        read_trace(path)
    assert isinstance(raised.value, ValueError)
    assert isinstance(raised.value, TierpoolError)
    assert str(path) in str(raised.value)
    return str(raised.value)


class TestReading:
    def test_counts_and_header(self, path: Path) -> None:
        header = {"name": "x", "torch_reserved_over_peak": 1.5, "anything": [1, None]}
        trace = read_trace(write_trace(path, header=json.dumps(header)))
        assert trace.header == header
        assert (trace.core.event_count, trace.core.allocation_count) == (4, 3)
        assert trace.core.peak_live_bytes == 1032

    def test_packaged_trace(self) -> None:
        trace = read_trace(packaged_trace())
        assert trace.header["name"] == "llama-1b-decode"
        assert trace.core.event_count == trace.header["events"] == 94304
        assert trace.core.allocation_count == 47152
        assert trace.core.peak_live_bytes == 12_619_808

    def test_unknown_packaged_trace(self) -> None:
        with pytest.raises(FileNotFoundError, match=r"'nothing'; known: .*llama-1b-decode"):
            packaged_trace("nothing")

    def test_no_events(self, path: Path) -> None:
        assert read_trace(write_trace(path, [])).core.event_count == 0

    def test_largest_numbers_and_leading_zeros(self, path: Path) -> None:
        trace = read_trace(write_trace(path, [f"a,{2**63 - 1},007", f"f,{2**63 - 1},7"]))
        assert trace.core.peak_live_bytes == 7

    def test_windows_line_ends_and_no_line_end_at_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.csv"
        path.write_bytes(b"# {}\r\nop,id,bytes\r\na,0,16\r\nf,0,16")
        assert read_trace(path).core.event_count == 2

    def test_path_as_string(self, path: Path) -> None:
        assert read_trace(str(write_trace(path))).core.event_count == 4

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            read_trace(tmp_path / "no.csv.gz")


class TestBadEvents:
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("x,2,8", "unknown operation 'x'"),
            ("af,2,8", "unknown operation 'af'"),
            (",2,8", "unknown operation ''"),
            ("a,2", "not the three fields"),
            ("a,2,8,9", "not the three fields"),
            ("", "found '', not the three fields"),
            ("a,2,-8", "bytes is '-8'; it must be an integer of 0 or more"),
            ("a,-2,8", "id is '-2'; it must be an integer of 0 or more"),
            ("a,2,8.5", "bytes is '8.5'"),
            ("a,2,1e3", "bytes is '1e3'"),
            ("a,2, 8", "bytes is ' 8'"),
            ("a,2,", "bytes is ''"),
            ("a,,8", "id is ''"),
            ("a,2,\N{ARABIC-INDIC DIGIT ONE}", "bytes is"),
            (f"a,2,{2**63}", "the limit is 2**63 - 1"),
            (f"a,{2**63},8", "the limit is 2**63 - 1"),
            ("a,2,1" + 5000 * "0", "the limit is 2**63 - 1"),
            (f"a,2,{2**63 - 1}", "1 EiB live at once"),
            ("f,9,8", "id 9 is freed, but was never allocated"),
            ("f,0,1024", "id 0 is freed with 1024 bytes, but was allocated with 300 in line 6"),
            ("a,1,8", "id 1 is allocated, but is live since line 4"),
        ],
    )
    def test_names_line_and_problem(self, path: Path, line: str, message: str) -> None:
        error = error_of(write_trace(path, [*EVENTS, line, "a,77,8"]))
        assert "line 7:" in error
        assert message in error
        assert len(error) < 500

    def test_second_free(self, path: Path) -> None:
        error = error_of(write_trace(path, [*EVENTS, "f,0,300", "f,0,300"]))
        assert "line 8: id 0 is freed again, after line 7" in error

    def test_a_comma_short_here_and_one_too_many_there(self, path: Path) -> None:
        assert "line 3: found 'a,0', not" in error_of(write_trace(path, ["a,0", "a,1,8,9"]))


class TestBadFiles:
    @pytest.mark.parametrize(
        ("header", "message"),
        [
            ("{", "line 1: the header is not valid JSON"),
            ("[1]", "line 1: the header is a JSON list"),
            ("", "line 1: the header is not valid JSON"),
            ("[" * 100_000, "line 1: the header is not valid JSON"),
        ],
    )
    def test_header(self, path: Path, header: str, message: str) -> None:
        assert message in error_of(write_trace(path, header=header))

    def test_no_header(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.csv"
        path.write_text("op,id,bytes\na,0,8\n")
        assert "line 1: found 'op,id,bytes'; a trace begins with" in error_of(path)

    def test_no_columns(self, path: Path) -> None:
        assert "line 2: found 'a,0,8'; the second line must be" in error_of(write_trace(path, [], columns="a,0,8"))

    @pytest.mark.parametrize("content", [b"", b"\n", b"\x00\xff\n" * 9])
    def test_no_trace_at_all(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "trace.csv"
        path.write_bytes(content)
        assert "line 1: found" in error_of(path)

    def test_ending_gz_without_gzip(self, tmp_path: Path) -> None:
        path = write_trace(tmp_path / "trace.csv").rename(tmp_path / "trace.csv.gz")
        assert "not a gzip file" in error_of(path)

    @pytest.mark.parametrize("kept", [0.01, 0.3, 0.9, 0.99999])
    def test_truncated_gzip(self, tmp_path: Path, kept: float) -> None:
        path = tmp_path / "trace.csv.gz"
        whole = packaged_trace().read_bytes()
        path.write_bytes(whole[: int(len(whole) * kept)])
        assert re.search("line [0-9]+: the gzip file ends early", error_of(path))

    def test_corrupt_gzip(self, tmp_path: Path) -> None:
        path = tmp_path / "trace.csv.gz"
        whole = bytearray(packaged_trace().read_bytes())
        for position in range(len(whole) // 2, len(whole) // 2 + 64):
            whole[position] ^= 0x5A
        path.write_bytes(whole)
        assert re.search("line [0-9]+: the gzip file (is corrupt|ends early)", error_of(path))

    def test_wrong_checksum(self, tmp_path: Path) -> None:
        path = write_trace(tmp_path / "trace.csv.gz")
        whole = bytearray(path.read_bytes())
        whole[-8] ^= 1
        path.write_bytes(whole)
        assert "the gzip file is corrupt" in error_of(path)

    def test_text_cut_inside_a_number(self, tmp_path: Path) -> None:
        path = write_trace(tmp_path / "trace.csv", header='{"events": 4}')
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:3]) + b"a,1,80"[:-1])
        assert "line 4: the file ends early: it has 2 of 4 events" in error_of(path)


class TestCore:
    @staticmethod
    def columns(count: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.full(count, ord("a"), np.uint8), np.arange(count, dtype=np.uint64), np.ones(count, np.uint64)

    def test_wrong_types_are_refused(self) -> None:
        ops, ids, sizes = self.columns()
        for wrong in (ids.astype(np.int64), ids.astype(float)):
            with pytest.raises(TypeError):
                _core.Trace(ops, wrong, sizes, first_line=3)

    def test_lengths_must_agree(self) -> None:
        ops, ids, sizes = self.columns(2)
        with pytest.raises(ValueError, match=r"operations \(2\) as ids \(2\) and sizes \(1\)"):
            _core.Trace(ops, ids, sizes[:1], first_line=3)


class TestReplay:
    def test_result(self, path: Path, pool: MemoryPool) -> None:
        result = replay(write_trace(path), pool)
        assert result.pop("ns_per_event") > 0
        assert result == {
            "events": 4,
            "allocations": 3,
            "peak_live_bytes": 1032,
            "capacity_bytes": 32 << 20,
            "hit_rate": 1.0,
            "fallback_allocations": 0,
        }
        assert pool.get_statistics().active_allocations == 0

    def test_counts_this_replay_only(self, tmp_path: Path, pool: MemoryPool) -> None:
        trace = read_trace(write_trace(tmp_path / "trace.csv", ["a,0,8", f"a,1,{64 << 20}"]))
        for _ in range(2):
            result = replay(trace, pool)
            assert (result["fallback_allocations"], result["hit_rate"]) == (1, 0.5)

    def test_writes_every_buffer(self, tmp_path: Path, pool: MemoryPool) -> None:
        replay(write_trace(tmp_path / "trace.csv", ["a,0,1000"]), pool, write=True)
        assert bytes(pool.allocate(1000)) == bytes([0x5A]) * 1000

    def test_empty_trace(self, path: Path, pool: MemoryPool) -> None:
        result = replay(write_trace(path, []), pool)
        assert (result["events"], result["hit_rate"], result["ns_per_event"]) == (0, 0.0, 0.0)

    def test_simulated_memory_cannot_be_written(self, path: Path) -> None:
        with MemoryPool(device="simulated", warmup_sizes=[]) as pool:
            trace = read_trace(write_trace(path))
            assert replay(trace, pool)["hit_rate"] == 1.0
            with pytest.raises(ValueError, match="cannot reach the memory of device 'simulated'"):
                replay(trace, pool, write=True)

    def test_direct_and_malloc(self, path: Path) -> None:
        core = read_trace(write_trace(path)).core
        for write in (False, True):
            assert _core.replay_direct(core, "host", write) > 0
            assert _core.replay_malloc(core, write) > 0
        with pytest.raises(ValueError, match="'host'"):
            _core.replay_direct(core, "hots")


class TestFit:
    def test_packaged_trace(self) -> None:
        rows = {row["placement"]: row for row in fit(packaged_trace())}
        assert list(rows) == _core.placement_names()
        assert float(rows["good-fit"]["capacity_over_peak"]) <= 1.10
        assert min(float(row["capacity_over_peak"]) for row in rows.values()) <= 1.07

    def test_capacity_serves_the_trace(self) -> None:
        trace = read_trace(packaged_trace())
        for row in fit(trace):
            assert row["capacity_over_peak"] == int(row["capacity_bytes"]) / trace.core.peak_live_bytes
            size = f"{row['capacity_bytes']}B"
            with MemoryPool(
                device="simulated",
                heap_size_mb=size,
                num_heaps=1,
                warmup_sizes=[],
                placement=row["placement"],
                magazines=False,
            ) as pool:
                assert replay(trace, pool)["hit_rate"] == 1.0

    def test_chosen_placements(self, path: Path) -> None:
        trace: Trace = read_trace(write_trace(path, ["a,0,256"]))
        assert fit(trace, ("best-fit",)) == [
            {"placement": "best-fit", "capacity_bytes": 256, "capacity_over_peak": 1.0}
        ]
        with pytest.raises(ValueError, match="good-fit"):
            fit(trace, ("god-fit",))

    def test_empty_trace(self, path: Path) -> None:
        for row in fit(write_trace(path, [])):
            assert (row["capacity_bytes"], row["capacity_over_peak"]) == (256, 0.0)
