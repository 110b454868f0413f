r"""The grammar of names, and scopes as parsed values.

ASCII by ``fullmatch``: ``match`` with ``$`` would accept a trailing newline, and ``\w`` Cyrillic look-alikes.
"""

from __future__ import annotations

import functools
import re
from typing import Final

import msgspec

from tars_settings.errors import IllegalNameError

ALL: Final = "_all"
"""The scope that every service reads, lowest in precedence."""

MAX_KEY_CHARS: Final = 128
MAX_SCOPE_CHARS: Final = 127
"""Two names of at most 63, and what stands between them."""

_SERVICE: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_SEGMENT: Final = r"[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*"
_KEY: Final = re.compile(rf"{_SEGMENT}(?:\.{_SEGMENT})*", re.ASCII)
_KID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_PREFIX_SEGMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)


def is_service(name: str) -> bool:
    """Return whether *name* may name a service or an instance."""
    return _SERVICE.fullmatch(name) is not None


def is_key(key: str) -> bool:
    """Return whether *key* is a dotted path of legal segments.

    >>> is_key("audio.vad_threshold"), is_key("audio__vad"), is_key("audio_"), is_key("_audio")
    (True, False, False, False)
    """
    # The length first: what is remembered may come from anyone.
    return len(key) <= MAX_KEY_CHARS and _is_path(key)


@functools.lru_cache(maxsize=512)
def _is_path(key: str) -> bool:
    return _KEY.fullmatch(key) is not None


def is_kid(text: str) -> bool:
    """Return whether *text* is 32 lower-case hex digits: a key id, or a schema's hash."""
    return _KID.fullmatch(text) is not None


def is_prefix(prefix: str) -> bool:
    """Return whether *prefix* is one to three topic levels without wildcards or a leading ``$`` or ``_``."""
    parts = prefix.split("/")
    return len(parts) <= 3 and all(_PREFIX_SEGMENT.fullmatch(part) for part in parts)


class Scope(msgspec.Struct, frozen=True, order=True):
    """What a delta addresses: every service, one service, or one instance of it.

    >>> Scope.parse("stt-worker@pi-3")
    Scope(service='stt-worker', instance='pi-3')
    >>> str(Scope.parse("_all"))
    '_all'
    """

    service: str | None = None
    instance: str | None = None

    def __str__(self) -> str:
        if self.service is None:
            return ALL
        return self.service if self.instance is None else f"{self.service}@{self.instance}"

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Return the scope that *text* names.

        Raises:
            IllegalNameError: *text* is neither ``_all``, ``service`` nor ``service@instance``.
        """
        if text == ALL:
            return cls()
        service, at, instance = text.partition("@")
        if not is_service(service) or (at and not is_service(instance)):
            raise IllegalNameError(
                f"{ascii(text)[:80]} is no scope: expected 'service', 'service@instance' or '_all', "
                "each name lower-case [a-z][a-z0-9_-]*, at most 63 characters"
            )
        return cls(service, instance or None)


def is_scope(text: str) -> bool:
    """Return whether *text* is a legal scope."""
    return len(text) <= MAX_SCOPE_CHARS and _is_scope(text)


@functools.lru_cache(maxsize=1024)
def _is_scope(text: str) -> bool:
    if text == ALL:
        return True
    service, at, instance = text.partition("@")
    return is_service(service) and (not at or is_service(instance))


def scopes_of(service: str, instance: str) -> tuple[str, str, str]:
    """Return the scopes that one worker reads, lowest precedence first."""
    return (ALL, service, f"{service}@{instance}")


def check_service(name: str, *, what: str = "service") -> str:
    """Return *name*.

    Raises:
        IllegalNameError: it is no legal service or instance name.
    """
    if not is_service(name):
        raise IllegalNameError(
            f"{ascii(name)[:80]} is no {what} name: expected [a-z][a-z0-9_-]*, at most 63 characters"
        )
    return name


def check_key(key: str) -> str:
    """Return *key*.

    Raises:
        IllegalNameError: it is no dotted path of ``[A-Za-z][A-Za-z0-9_]*`` without ``__`` or a trailing ``_``.
    """
    if not is_key(key):
        raise IllegalNameError(
            f"{ascii(key)[:80]} is no key: expected dotted names of [A-Za-z][A-Za-z0-9_]* "
            f"without a double or trailing underscore, at most {MAX_KEY_CHARS} characters"
        )
    return key


def overlap(first: str, second: str) -> bool:
    """Return whether one key is the other or stands above it on the dotted path.

    >>> overlap("audio", "audio.gain"), overlap("audio", "audiobook")
    (True, False)
    """
    short, long = sorted((first, second), key=len)
    return long == short or long.startswith(short + ".")
