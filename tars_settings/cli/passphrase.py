"""``keys passphrase``: a key file that only a passphrase opens."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from tars_settings.adapters.keyfiles import replace_key
from tars_settings.cli.common import Common, command
from tars_settings.cli.ratify import signing_key
from tars_settings.errors import PassphraseError
from tars_settings.trust.locked import NONCE_BYTES, SALT_BYTES, lock

NEW_PASSPHRASE: Final = "TARS_SETTINGS_NEW_PASSPHRASE"

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The file of a root's or a writer's key")]
RemoveOption = Annotated[bool, typer.Option("--remove", help="Open it for good")]


def register(keys: typer.Typer) -> None:
    """Add the command."""
    command(keys, "passphrase", passphrase)


def passphrase(common: Common, file: FileArgument, remove: RemoveOption = False) -> int:
    """Put a key file under a passphrase (Argon2id), or change or remove it.

    Asks at a terminal; elsewhere TARS_SETTINGS_PASSPHRASE opens the file and TARS_SETTINGS_NEW_PASSPHRASE locks it.

    Example: tars-settings keys passphrase root.key
    """
    path = file.expanduser().absolute()
    key = signing_key(common.environment(), path)
    if remove:
        replace_key(path, key.to_text())
    else:
        locked = lock(key, _chosen(), salt=os.urandom(SALT_BYTES), nonce=os.urandom(NONCE_BYTES))
        replace_key(path, locked)
    common.out.document({"file": str(path), "locked": not remove})
    common.out.note(
        f"{path} is open to whoever can read it"
        if remove
        else f"{path} needs its passphrase from now on; without it the key is lost. Earlier copies need none"
    )
    return 0


def _chosen() -> str:
    given = os.environ.get(NEW_PASSPHRASE)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise PassphraseError(f"nobody is there to ask: set {NEW_PASSPHRASE}")
    first = getpass.getpass("New passphrase: ")
    if getpass.getpass("Once more: ") != first:
        raise PassphraseError("these are two passphrases; the file is as it was")
    return first
