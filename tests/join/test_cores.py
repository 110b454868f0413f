"""Checking many things on more than one core."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tars_settings.agent import cores
from tars_settings.agent.cores import MOST_THREADS, WORTH_A_THREAD, on_all_cores

MANY = range(WORTH_A_THREAD * 8 + 3)


def threads_of(items: Sequence[int]) -> tuple[list[int], set[str]]:
    names: set[str] = set()

    def check(item: int) -> int:
        names.add(threading.current_thread().name)
        return item * 2

    return list(on_all_cores(check, items)), names


def with_cores(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(cores, "_cores", lambda: count)


def test_many_are_shared_out_and_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cores(monkeypatch, 2)
    found, names = threads_of(MANY)
    assert found == [item * 2 for item in MANY]
    assert len(names) == 2
    others = names - {threading.current_thread().name}
    assert len(others) == 1, "the caller does a share itself"
    assert not [one for one in threading.enumerate() if one.name in others], "the threads end with the call"


@pytest.mark.parametrize(("count", "items"), [(1, MANY), (8, range(WORTH_A_THREAD * 2 - 1)), (8, range(0))])
def test_one_core_or_few_signatures_are_not_worth_a_thread(
    monkeypatch: pytest.MonkeyPatch, count: int, items: range
) -> None:
    with_cores(monkeypatch, count)
    found, names = threads_of(items)
    assert found == [item * 2 for item in items]
    assert names <= {threading.current_thread().name}


def test_a_large_host_is_not_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cores(monkeypatch, 64)
    asked: list[int] = []

    class Counted(ThreadPoolExecutor):
        def __init__(self, workers: int, **more: Any) -> None:
            asked.append(workers)
            super().__init__(workers, **more)

    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor", Counted)
    found, _ = threads_of(MANY)
    assert found == [item * 2 for item in MANY]
    assert asked == [MOST_THREADS - 1]


def test_where_no_thread_is_to_be_had_one_checks_all(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cores(monkeypatch, 2)
    refused: list[Callable[..., Any]] = []

    def refuse(_pool: ThreadPoolExecutor, function: Callable[..., Any], *_: Any) -> None:
        refused.append(function)
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
    found, names = threads_of(MANY)
    assert refused
    assert found == [item * 2 for item in MANY]
    assert names == {threading.current_thread().name}


def test_this_host_says_how_many_cores_there_are() -> None:
    assert cores._cores() >= 1
