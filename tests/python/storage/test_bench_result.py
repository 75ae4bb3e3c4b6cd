"""What follows from the runs of a bench."""

from __future__ import annotations

import json

import pytest
from bench_runs import FAILED, KILLED, finished, result, streaming_plan

from tierpool.storage.bench_child import ChildResult
from tierpool.storage.profile import Profile


class TestResult:
    def test_medians_of_pairs(self, profile: Profile) -> None:
        speeds = {"streamed": [10.0, 30.0, 20.0], "plain": [1.0, 2.0, 4.0], "defaults": [3.0]}
        found = result(profile, **{side: [finished(speed) for speed in speeds[side]] for side in speeds})
        assert found.speed("streamed", "warm") == 20
        assert found.speed("plain", "cold") == 2
        assert found.ratio("warm") == 10  # of 10, 15 and 5: of pairs, not of medians
        assert found.equal_logits() is True
        assert found.differing_tokens("plain") == 0
        assert found.succeeded
        values = json.loads(json.dumps(found.to_dict()))
        assert values["ratio"]["warm"] == 10
        assert values["streamed"]["warm"]["bytes_per_token"] == 100
        assert len(values["runs"]) == 7

    def test_a_killed_side_has_no_speed(self, profile: Profile) -> None:
        found = result(profile, streamed=[finished(10)], plain=[finished(1)], defaults=[KILLED])
        assert found.speed("defaults", "warm") is None
        assert found.differing_tokens("defaults") is None
        assert found.succeeded

    def test_a_killed_run_of_ours_is_a_failure(self, profile: Profile) -> None:
        found = result(profile, streamed=[finished(10), KILLED], plain=[finished(1)] * 2)
        assert (found.ratio("warm"), found.equal_logits(), found.succeeded) == (None, True, False)
        assert found.load_seconds("streamed") is None
        assert found.differing_tokens("plain") == 0

    def test_a_plain_side_that_is_killed_leaves_ours(self, profile: Profile) -> None:
        found = result(profile, streamed=[finished(10)], plain=[KILLED])
        assert (found.speed("streamed", "warm"), found.ratio("warm"), found.succeeded) == (10, None, True)
        assert (found.equal_logits(), found.differing_tokens("plain")) == (None, None)

    @pytest.mark.parametrize("ours", [[finished(10)] * 2, [KILLED, finished(10)]])
    @pytest.mark.parametrize("theirs", [[finished(1, digest="other"), KILLED], [KILLED, finished(1, digest="other")]])
    def test_runs_that_finished_are_compared_whoever_else_was_killed(
        self, profile: Profile, ours: list[ChildResult], theirs: list[ChildResult]
    ) -> None:
        found = result(profile, streamed=ours, plain=theirs)
        assert (found.equal_logits(), found.succeeded) == (False, False)

    def test_streamed_runs_that_differ_are_a_failure_without_a_plain_one(self, profile: Profile) -> None:
        found = result(profile, streamed=[finished(10), finished(10, digest="other")], plain=[KILLED] * 2)
        assert (found.equal_logits(), found.succeeded) == (False, False)

    def test_a_plain_run_with_an_error_is_no_result(self, profile: Profile) -> None:
        found = result(profile, streamed=[finished(10)], plain=[FAILED], defaults=[FAILED])
        assert (found.equal_logits(), found.succeeded) == (None, False)

    def test_what_was_read_against_misses_plan_and_bandwidth(self, profile: Profile) -> None:
        runs = [finished(10, read_bytes=read_bytes) for read_bytes in (110, 104, 300)]
        found = result(profile, plan=streaming_plan(), streamed=runs, plain=[finished(1)] * 3)
        assert found.unit_bytes == 50
        assert found.streamed("warm", "misses") == 4
        assert found.streamed("warm", "reads_over_misses") == 220 / (4 * 50)
        assert found.streamed("cold", "plan_deviation") == pytest.approx(0.10)
        assert found.streamed("warm", "bandwidth_share") == pytest.approx(1.0 / 1.3)
        assert found.direct_bytes_per_second == 1.3e9
        assert found.streamed("prompt", "reads_over_misses") is None
        assert found.load_seconds("streamed") == 2.5
        assert found.unused_share == 0.25
        values = found.to_dict()
        assert values["streamed"]["warm"]["reads_over_misses"] == 1.1
        assert values["unused_share"] == {"process": 0.25, "plan": 1.0}
        assert values["load_seconds"] == {"streamed": 2.5, "plain": 2.5, "defaults": None}
        assert values["runs"][0]["direct_bytes_per_second"] == [1.2e9, 1.4e9]

    def test_figures_that_mean_nothing_are_missing(self, profile: Profile) -> None:
        around = result(profile, plan=streaming_plan("layers"), streamed=[finished(10)], plain=[finished(1)])
        assert around.unit_bytes is None  # layers that arrive in time are no misses
        assert around.streamed("warm", "reads_over_misses") is None
        assert around.streamed("warm", "plan_deviation") == 0
        unplanned = result(profile, streamed=[finished(10, read_bytes=0)], plain=[finished(1)])
        assert unplanned.streamed("warm", "plan_deviation") is None
        killed = result(profile, plan=streaming_plan(), streamed=[KILLED], plain=[KILLED])
        assert killed.unused_share is None
        assert killed.streamed("warm", "bandwidth_share") is None

    def test_different_logits_are_a_failure(self, profile: Profile) -> None:
        other = finished(1, tokens=[5, 9, 9], digest="other")
        found = result(profile, streamed=[finished(10)], plain=[other], defaults=[other])
        assert (found.equal_logits(), found.succeeded) == (False, False)
        assert (found.differing_tokens("plain"), found.differing_tokens("defaults")) == (2, 2)
