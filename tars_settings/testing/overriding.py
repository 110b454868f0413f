"""override(): values above everything else, for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic_settings import BaseSettings

from tars_settings.join.live import lives_of
from tars_settings.sources.overrides import drop_override, push_override


@contextmanager
def override(cls: type[BaseSettings], values: Mapping[str, Any] | None = None, /, **more: Any) -> Iterator[None]:
    """Put *values* (by dotted key) above everything else of a class and its subclasses, arguments included.

    Within the block every new ``cls()`` has them, and every live object of this process: watches and callbacks hear of
    the change, on entering and on leaving. Overrides nest, the innermost wins, and leaving restores what was before::

        with tars_settings.testing.override(SttSettings, {"vad_threshold": 0.9}, language="de"):
            assert SttSettings().vad_threshold == 0.9

    For the whole process, its threads too: not for tests that run in parallel threads of one process.

    Raises:
        UsageError: the class does not have a key.
        ValidationError: a live object of the class does not validate with them; nothing stays overridden.
    """
    entry = push_override(cls, {**(values or {}), **more})
    try:
        _refresh(cls)
        yield
    finally:
        drop_override(entry)
        _refresh(cls)


def _refresh(cls: type[BaseSettings]) -> None:
    for live in lives_of(cls):
        live.refresh()
