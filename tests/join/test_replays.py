"""A replay is over when a marker behind its subscription came back twice."""

from __future__ import annotations

from tars_settings.agent.replays import Replays


def test_two_markers_end_a_replay_and_one_does_not() -> None:
    sent: list[bytes] = []
    done: list[bool] = []
    replays = Replays(sent.append)
    replays.expect(-7, lambda: done.append(True))
    assert sent == [], "nothing before the broker has answered the subscription"
    replays.on_subscribed(-7)
    assert replays.on_marker(sent[0])
    assert (len(sent), done) == (2, [])
    assert replays.on_marker(sent[0]), "the first one again is ours, and counts once"
    assert done == []
    assert replays.on_marker(sent[1])
    assert done == [True]


def test_other_markers_are_left_to_others() -> None:
    assert not Replays(lambda payload: None).on_marker(b"3.0")


def test_a_lost_session_forgets_its_replays() -> None:
    sent: list[bytes] = []
    replays = Replays(sent.append)
    replays.expect(-1, lambda: None)
    replays.on_subscribed(-1)
    replays.reset()
    assert replays.on_marker(sent[0])
    assert len(sent) == 1


def test_garbage_on_the_marker_topic_is_passed_over() -> None:
    replays = Replays(lambda payload: None)
    for payload in (b"replay.", b"replay.x.0", b"replay.99999999999999999999.0", b"replay.\xff.1"):
        assert replays.on_marker(payload)
