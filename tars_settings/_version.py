"""The version, in its one place: packaging reads it from here, and it holds in an uninstalled checkout too."""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
