"""What one worker says of a proposal: its model validates it over what the fleet says now, and nothing is applied."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any, Final

from tars_settings.core.delta import Delta
from tars_settings.core.question import Fit, QuestionBody
from tars_settings.core.register import FleetView
from tars_settings.settings.live import Rehearsal, SnapshotBuilder

_log: Final = logging.getLogger("tars_settings.agent")

MAX_MESSAGE: Final = 500


def tell_fit(
    builder: SnapshotBuilder[Any], view: FleetView, body: QuestionBody, refused_now: Collection[Delta]
) -> Fit | None:
    """Return how a proposal fits, None where a question proposes nothing.

    One that makes a delta be refused which stands now does not fit: pushed, it would take that away.
    """
    if not isinstance(body.propose, tuple):
        return None
    try:
        rehearsal = builder.rehearse(view, body.scope, body.propose)
    except Exception as error:  # noqa: BLE001 - a user's validator may raise anything, and was only asked
        _log.warning("a proposal made the model raise %s", type(error).__name__)
        return Fit("refused", f"the model raised {type(error).__name__}")
    return _fit(rehearsal, {delta.stamp.digest for delta in refused_now})


def _fit(rehearsal: Rehearsal, refused_now: Collection[bytes]) -> Fit:
    own = [one for one in rehearsal.refused if one.delta is rehearsal.own]
    others = [one for one in rehearsal.refused if one not in own and one.delta.stamp.digest not in refused_now]
    messages = [one.message for one in own]
    messages += [f"{one.delta.scope} epoch {one.delta.stamp.epoch} would be refused: {one.message}" for one in others]
    messages += [rehearsal.failure] if rehearsal.failure else []
    keys = tuple(key for one in own for key in one.keys)
    if messages:
        return Fit("refused", "; ".join(messages)[:MAX_MESSAGE], keys, dict(rehearsal.shadowed))
    unknown = f"the model does not have {', '.join(rehearsal.unknown)}" if rehearsal.unknown else ""
    return Fit("fits", unknown[:MAX_MESSAGE], rehearsal.unknown, dict(rehearsal.shadowed))
