"""The fleet in memory, as the tests of joining have it."""

from __future__ import annotations

from tests.join.conftest import memory, started

__all__ = ["memory", "started"]
