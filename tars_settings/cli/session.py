"""How a command is on the broker: with the options that were given, and the trust document that this host was given."""

from __future__ import annotations

from tars_settings.cli.common import CONNECT_WITHIN_S, Common
from tars_settings.cli.founding import adopt_trust
from tars_settings.writer import Writer


def session(common: Common, *, read_only: bool = True) -> Writer:
    """Return a session that looks, or with a writer's key pushes; enter it."""
    adopt_trust(common.environment())
    return Writer(read_only=read_only, connect_within_s=CONNECT_WITHIN_S, **common.given())
