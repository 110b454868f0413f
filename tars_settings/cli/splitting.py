"""How a push that is larger than a delta may be is cut into several, each of which fits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from tars_settings.core.delta import MAX_ASSIGNMENTS, MAX_FANOUT_BYTES
from tars_settings.core.wire import MAX_ENVELOPE_BYTES, encode
from tars_settings.errors import TooLargeError

FRAME_BYTES: Final = 1024
"""An envelope around its assignments: signature, key id, scope, numbers, who and when; the reason comes besides."""
_AROUND_BYTES: Final = 112
"""Around one assignment: names, punctuation, and the digest of what it replaces."""
_SECRET_BYTES: Final = 160
"""Around an encrypted value: nonce, tag, algorithm and key id."""


def parts_of(values: Mapping[str, Any], secret: Collection[str] = (), *, reason: str = "") -> list[dict[str, Any]]:
    """Return the values in as many parts as deltas are needed, in order; one part where one delta holds them.

    >>> [len(part) for part in parts_of({f"key_{n}": n for n in range(130)})]
    [64, 64, 2]

    Raises:
        TooLargeError: one value alone is over the limit of an envelope.
    """
    frame = FRAME_BYTES + len(encode(reason))
    parts: list[dict[str, Any]] = [{}]
    held_bytes = 0
    for key, value in values.items():
        added_bytes = _bytes_of(key, value, is_secret=key in secret)
        if frame + added_bytes > MAX_ENVELOPE_BYTES:
            limit = MAX_ENVELOPE_BYTES // 1024
            raise TooLargeError(f"{key}: its value alone is over the {limit} KiB that an envelope may have")
        if parts[-1] and not _fits(len(parts[-1]) + 1, frame + held_bytes + added_bytes):
            parts.append({})
            held_bytes = 0
        parts[-1][key] = value
        held_bytes += added_bytes
    return parts


def _bytes_of(key: str, value: Any, *, is_secret: bool) -> int:
    plain = len(encode(value))
    return _AROUND_BYTES + len(key) + (_SECRET_BYTES + plain * 4 // 3 if is_secret else plain)


def _fits(keys: int, payload_bytes: int) -> bool:
    within = payload_bytes <= MAX_ENVELOPE_BYTES and payload_bytes * keys <= MAX_FANOUT_BYTES
    return keys <= MAX_ASSIGNMENTS and within


def refusal(parts: Sequence[Mapping[str, Any]]) -> TooLargeError:
    """Return the error that says which split would fit."""
    sizes = " + ".join(str(len(part)) for part in parts)
    last = parts[0] and list(parts[0])[-1]
    return TooLargeError(
        f"{sum(map(len, parts))} keys are more than one delta holds ({MAX_ASSIGNMENTS} keys, {MAX_ENVELOPE_BYTES // 1024} "
        f"KiB, {MAX_FANOUT_BYTES // 1024} KiB over their topics). They fit in {len(parts)}, of {sizes} keys: the first "
        f"ends with {last}. --split pushes them one after the other; that is not atomic: workers apply each by itself"
    )
