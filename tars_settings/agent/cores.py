"""Checking many signatures on more than one core: libsodium lets go of the interpreter while it works."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")

MOST_THREADS: Final = 4
"""A worker is not alone on its host."""
WORTH_A_THREAD: Final = 32
"""Signatures (2 ms) below which starting a thread is not worth it."""


def on_all_cores(check: Callable[[T], R], items: Sequence[T]) -> Iterable[R]:
    """Return what *check* says of each item, in order; many are shared out among threads that end with the call.

    The caller does a share itself: where there are two cores, only one thread has to be started and woken.
    """
    threads = min(_cores(), MOST_THREADS, len(items) // WORTH_A_THREAD)
    if threads < 2:
        return map(check, items)
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - 5 ms, and few workers ever have so many keys

    size = -(-len(items) // threads)
    shares = [items[start : start + size] for start in range(0, len(items), size)]
    try:
        with ThreadPoolExecutor(len(shares) - 1, thread_name_prefix="tars-settings-check") as pool:
            others = [pool.submit(lambda share: [*map(check, share)], share) for share in shares[1:]]
            own = [*map(check, shares[0])]
            return own + [found for other in others for found in other.result()]
    except RuntimeError:  # no thread is to be had: the interpreter ends, or the system has no more of them
        return map(check, items)


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
