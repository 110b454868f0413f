"""What a configuration of mosquitto's says of things that can't be seen from outside: what outlives a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tars_settings.cli.doctor.finding import Finding

LATE_S: Final = 60
"""Values of so many seconds before a crash may be lost, and no more."""
_QUEUE: Final = 1000
"""What mosquitto queues for a client by default."""
_DEPTH: Final = 8


def look(path: Path) -> Iterator[Finding]:
    """Yield findings on a configuration, and on what it includes; what a broker shows by itself is not looked at."""
    try:
        options = read(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        yield Finding("broker", "configuration", "problem", f"{path} can't be read: {reason}", f"ls -l {path}")
        return
    yield _persistence(options)
    yield _autosave(options)
    queue = _number(options, "max_queued_messages", _QUEUE)
    if 0 < queue <= _QUEUE:
        message = f"{queue} messages are queued for a client, and what is above that is dropped in silence"
        yield Finding("broker", "configured queue", "hint", message, "max_queued_messages 10000")
    if "acl_file" not in options and "plugin" not in options and "auth_plugin" not in options:
        message = "no access rules are configured: whoever is let in may publish everything"
        yield Finding("broker", "configured access", "hint", message, "tars-settings broker-config mosquitto")


def read(path: Path, depth: int = 0) -> dict[str, str]:
    """Return the options of a configuration, the last word on each; those of one listener are not told apart.

    Raises:
        OSError, UnicodeDecodeError: a file can't be read.
    """
    found: dict[str, str] = {}
    for line in path.read_text().splitlines():
        name, _, value = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        found[name] = value.strip()
        if name == "include_dir" and depth < _DEPTH:
            for one in sorted(Path(value.strip()).glob("*.conf")):
                found |= read(one, depth + 1)
    return found


def _persistence(options: dict[str, str]) -> Finding:
    if options.get("persistence") == "true":
        return Finding("broker", "configured persistence", "ok", "retained messages outlive a restart")
    message = "retained messages do not outlive a restart: the fleet's state is gone with the broker's process"
    return Finding("broker", "configured persistence", "warning", message, "persistence true")


def _autosave(options: dict[str, str]) -> Finding:
    interval = _number(options, "autosave_interval", 1800)
    on_changes = options.get("autosave_on_changes") == "true"
    if (on_changes and interval == 1) or (not on_changes and 0 < interval <= LATE_S):
        return Finding("broker", "configured autosave", "ok", "a crash takes away little of what was retained")
    when = f"after {interval} {'changes' if on_changes else 'seconds'}" if interval else "only when the broker ends"
    message = f"retained messages are saved {when}: a crash brings older values back"
    return Finding("broker", "configured autosave", "warning", message, "autosave_on_changes true, autosave_interval 1")


def _number(options: dict[str, str], name: str, default: int) -> int:
    value = options.get(name, "")
    return int(value) if value.isdecimal() else default
