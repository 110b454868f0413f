"""Whether a worker is well on a canary, by what it reports; and whom a canary is tried on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tars_settings.cli.canary import Plan, choose, proposal_of
from tars_settings.cli.health import health_of
from tars_settings.core.presence import MORE_REFUSED, NOT_LISTED, Presence, RefusalReport, TrialReport
from tars_settings.errors import RefusedError, UsageError

DIGEST = "ab" * 32
BEFORE = Presence(1, "stt-worker", "pi-3", "ready", notes=("the disk is slow",), ext={"session": "s1"})
WELL = msgspec.structs.replace(BEFORE, acked={DIGEST: "applied"})
REFUSAL = RefusalReport("stt-worker@pi-3", 2, DIGEST, ("vad",), "too\n  large")


@pytest.mark.parametrize(
    ("changes", "word", "why"),
    [
        ({}, "good", ""),
        ({"acked": {}}, "unknown", "it has not answered"),
        ({"state": "joining"}, "unknown", "it is joining"),
        ({"state": "offline"}, "bad", "it went offline"),
        ({"state": "degraded", "lacking": ("an index",)}, "bad", "it is degraded: lacks an index"),
        ({"state": "stale"}, "bad", "it is stale"),
        ({"ext": {"session": "s2"}}, "bad", "it was restarted"),
        ({"refused": (REFUSAL,)}, "bad", "it refused it: too large"),
        ({"refused": (msgspec.structs.replace(REFUSAL, digest="cd" * 32),)}, "good", ""),
        (
            {"acked": {DIGEST: "refused"}, "notes": ("the disk is slow", f"7 {MORE_REFUSED}")},
            "bad",
            f"it refused it: {NOT_LISTED}",
        ),
        ({"acked": {DIGEST: "refused"}}, "unknown", "it has not answered"),
        ({"notes": ("the disk is slow", "started 3 times")}, "bad", "started 3 times"),
        (
            {"trials": (TrialReport("stt-worker@pi-3", 2, DIGEST, ("vad",), 0),)},
            "bad",
            "for it the trial is over already",
        ),
        ({"trials": (TrialReport("stt-worker@pi-3", 2, DIGEST, ("vad",), 5),)}, "good", ""),
    ],
)
def test_a_worker_is_as_well_as_it_reports(changes: dict[str, Any], word: str, why: str) -> None:
    found = health_of(DIGEST, BEFORE, msgspec.structs.replace(WELL, **changes))
    assert (found.word, found.why) == (word, why)


def test_a_worker_whose_report_is_gone_is_bad() -> None:
    assert health_of(DIGEST, BEFORE, None).word == "bad"


def test_a_share_is_of_those_who_are_there_and_changes_with_the_proposal_alone() -> None:
    there = [f"pi-{n}" for n in range(200)]
    first = choose("10%", there, "stt-worker", "vad=0.6")
    assert len(first) == 20
    assert first == choose("10%", reversed(there), "stt-worker", "vad=0.6")
    assert set(first) <= set(choose("50%", there, "stt-worker", "vad=0.6"))
    assert first != choose("10%", there, "stt-worker", "vad=0.7")
    assert choose("100%", there, "stt-worker", "a") == tuple(sorted(there))
    assert len(choose("0.1%", there, "stt-worker", "a")) == 1


@pytest.mark.parametrize("share", ["0%", "101%", "-1%", "%", "a%", "\u0661%", "1e1%", "nan%"])
def test_what_is_no_share_is_a_wrong_call(share: str) -> None:
    with pytest.raises(UsageError, match="share"):
        choose(share, ["pi-1"], "stt-worker", "a")


def test_nobody_is_no_canary() -> None:
    with pytest.raises(RefusedError, match="no worker of stt-worker"):
        choose("10%", [], "stt-worker", "a")


def test_secrets_have_no_part_in_the_choice() -> None:
    assert proposal_of({"b": "1", "a": "sk-1"}, {"a"}) == proposal_of({"a": "sk-2", "b": "1"}, {"a"}) == "a b=1"


def test_there_is_time_to_decide_after_the_watching() -> None:
    plans = [Plan.of("stt-worker", "10%", bake, None, promote=False, timeout_s=5) for bake in ("10s", "5m", "2h")]
    assert [(one.bake_s, one.within_s) for one in plans] == [(10, 70), (300, 600), (7200, 14_400)]
    for bake, revert_after in (("5m", "5m"), ("4d", None), ("0s", None)):
        with pytest.raises(UsageError):
            Plan.of("stt-worker", "10%", bake, revert_after, promote=False, timeout_s=5)
    for target in ("_all", "stt-worker@pi-3"):
        with pytest.raises(UsageError, match="service alone"):
            Plan.of(target, "10%", "5m", None, promote=False, timeout_s=5)
