"""``keys rotate-seal``: another key for what this host seals."""

from __future__ import annotations

import os

from tars_settings.adapters.keyfiles import replace_key
from tars_settings.cli.common import Common
from tars_settings.errors import ConfigurationError, KeyFileError
from tars_settings.sources.environment import SEAL_KEY_HEADER


def rotate(common: Common) -> int:
    """Seal this host's last known good values with a new key; the one before still opens what it sealed.

    Example: tars-settings keys rotate-seal
    """
    environment = common.environment()
    if environment.seal_key_text is not None:
        raise ConfigurationError(
            "TARS_SETTINGS_SEAL_KEY says which key it is; put a new one before it there, with a blank between"
        )
    held = environment.seal_key()
    path = environment.seal_key_path
    if held is None:
        raise KeyFileError(f"there is no {path}: nothing was sealed on this host yet")
    replace_key(path, f"{SEAL_KEY_HEADER}\n{held.followed_by(os.urandom(32)).to_text()}\n")
    common.out.document({"file": str(path)})
    common.out.note(f"{path} holds a new seal key; the one before opens what it sealed")
    return 0
