"""The command line. Importing this package imports nothing foreign: the extra may not be installed."""

from __future__ import annotations

import sys
from typing import Final

_EXTRA: Final = frozenset({"typer", "rich", "click", "shellingham"})


def main() -> int:
    """Run the command line on ``sys.argv`` and return its exit code.

    0 done, 1 a negative answer, 2 usage, 3 environment (broker, disk, keys, or the extra is not installed), 130 Ctrl-C.
    """
    try:
        from tars_settings.cli.app import run  # noqa: PLC0415 - typer and rich come with the extra
    except ModuleNotFoundError as absent:
        if (absent.name or "").partition(".")[0] not in _EXTRA:
            raise  # a fault of ours stays a traceback
        print("tars-settings: the command line comes with an extra: pip install 'tars-settings[cli]'", file=sys.stderr)
        return 3
    return run()
