"""Grants: what a writer may write, matched on parsed segments (``fnmatch`` would let ``a/*`` cross a slash).

A grant is ``SCOPES`` or ``SCOPES.KEYS``. ``SCOPES`` is ``_all``, ``service`` or ``service@instance``; each name is
exact, or a prefix with a trailing ``*``. Without ``@`` it covers a service and all of its instances. ``_all`` is
covered by nothing but itself. ``KEYS`` is a dotted path of exact or ``*``-trailed segments; it covers that key and
everything below.
"""

from __future__ import annotations

import functools
import re
from typing import Final

from tars_settings.core.names import ALL, Scope

_PATTERN: Final = re.compile(
    r"(?:_all|(?:\*|[a-z][a-z0-9_-]{0,62}\*?)(?:@(?:\*|[a-z][a-z0-9_-]{0,62}\*?))?)"
    r"(?:\.(?:\*|[A-Za-z][A-Za-z0-9_]*\*?))*",
    re.ASCII,
)


def is_grant(text: str) -> bool:
    """Return whether *text* is a grant."""
    return len(text) <= 256 and _PATTERN.fullmatch(text) is not None


def covers(grant: str, scope: str, key: str) -> bool:
    """Return whether the grant covers one key of one scope.

    >>> covers("audio-*", "audio-out", "gain"), covers("audio-*", "llm-worker", "model")
    (True, False)
    >>> covers("llm-worker.model", "llm-worker@pi-3", "model.name"), covers("*", "_all", "x")
    (True, False)
    """
    scopes, *keys = grant.split(".")
    parts = key.split(".")
    return (
        touches(grant, scope)
        and bool(scopes)
        and len(keys) <= len(parts)
        and all(_fits(pattern, part) for pattern, part in zip(keys, parts, strict=False))
    )


def reaches(grant: str, scope: str, key: str) -> bool:
    """Return whether an assignment may change what a reader finds under the grant.

    More than :func:`covers`: setting a whole model sets what lies below, and a wider scope shows wherever a narrower
    one says nothing.

    >>> reaches("llm.model.name", "llm", "model"), reaches("llm@pi-3", "llm", "x"), reaches("llm.a", "_all", "a")
    (True, True, True)
    >>> reaches("llm.model", "llm", "motd"), reaches("_all.model", "llm", "model")
    (False, False)
    """
    parts = zip(grant.split(".")[1:], key.split("."), strict=False)
    return shows_in(grant, scope) and all(_fits(pattern, part) for pattern, part in parts)


@functools.lru_cache(maxsize=4096)
def shows_in(grant: str, scope: str) -> bool:
    """Return whether a scope is one of the grant's, or shows in one of them."""
    pattern = grant.partition(".")[0]
    if touches(grant, scope) or pattern == ALL:
        return pattern != ALL or scope == ALL
    wanted = Scope.parse(scope)
    return scope == ALL or (wanted.instance is None and _fits(pattern.partition("@")[0], wanted.service or ""))


@functools.lru_cache(maxsize=4096)
def touches(grant: str, scope: str) -> bool:
    """Return whether the grant covers anything in a scope."""
    pattern = grant.partition(".")[0]
    if ALL in (pattern, scope):
        return pattern == scope
    services, at, instances = pattern.partition("@")
    wanted = Scope.parse(scope)
    if not _fits(services, wanted.service or ""):
        return False
    return not at or (wanted.instance is not None and _fits(instances, wanted.instance))


@functools.lru_cache(maxsize=4096)
def covers_scope(grant: str, scope: str) -> bool:
    """Return whether the grant covers every key of a scope.

    >>> covers_scope("audio-*", "audio-out"), covers_scope("llm.model", "llm"), covers_scope("llm.*", "llm")
    (True, False, True)
    """
    return touches(grant, scope) and all(part == "*" for part in grant.split(".")[1:2]) and grant.count(".") < 2


def _fits(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
