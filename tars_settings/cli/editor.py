"""The person's own editor on a text: in a private file, which is gone afterwards whatever happens."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Final

from tars_settings.errors import ConfigurationError, RefusedError

_LAST_RESORT: Final = "vi"
_STDERR: Final = 2


def command_of(environment: Mapping[str, str]) -> list[str]:
    """Return the editor's command: ``VISUAL``, else ``EDITOR``, else vi.

    >>> command_of({"EDITOR": "ed", "VISUAL": "code --wait"})
    ['code', '--wait']

    Raises:
        ConfigurationError: the variable can't be read as a command.
    """
    named = environment.get("VISUAL") or environment.get("EDITOR") or _LAST_RESORT
    try:
        words = shlex.split(named)
    except ValueError as error:
        raise ConfigurationError(f"the editor {named!r} is no command: {error}; see VISUAL and EDITOR") from None
    if not words:
        raise ConfigurationError(f"the editor {named!r} is no command; see VISUAL and EDITOR")
    return words


def edited(text: str, name: str) -> str:
    """Return *text* as the person's editor left it. *name* is that of the file while it is open.

    Raises:
        ConfigurationError: there is no editor.
        RefusedError: it ended with an error, or left no text.
        KeyboardInterrupt: Ctrl-C ended it.
    """
    words = command_of(os.environ)
    # A directory of its own, 0700: editors leave backups and swap files beside what they edit.
    with tempfile.TemporaryDirectory(prefix="tars-settings-edit-") as directory:
        path = Path(directory) / name
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        code = _run([*words, str(path)])
        if code in (-signal.SIGINT, 128 + signal.SIGINT):
            raise KeyboardInterrupt
        if code != 0:
            raise RefusedError(f"the editor ended with {code}: nothing was pushed")
        try:
            left = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            raise RefusedError("the editor left no text: nothing was pushed") from None
    if not left.strip():
        raise RefusedError("the text was emptied: nothing was pushed")
    return left


def _run(words: list[str]) -> int:
    # Ctrl-C in the terminal is the editor's: it must not take the file away from under it.
    def pass_over(number: int, frame: FrameType | None) -> None:
        del number, frame

    before = signal.signal(signal.SIGINT, pass_over)
    try:
        # stdout may be a pipe; an editor draws on the terminal.
        stdout = None if sys.stdout.isatty() else _STDERR
        return subprocess.run(words, stdout=stdout, check=False).returncode  # noqa: S603 - the person's own command
    except OSError as error:
        raise ConfigurationError(
            f"the editor {words[0]!r}: {error.strerror or error}; name one in VISUAL or EDITOR"
        ) from None
    finally:
        signal.signal(signal.SIGINT, before)
