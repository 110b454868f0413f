"""Starting all the same: where the stored values do not validate, the last known good ones, then what fits of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pydantic import ValidationError

from tars_settings.provenance.explanation import fleet_candidates
from tars_settings.provenance.fields import look_up, names_of
from tars_settings.provenance.labels import kind_of, source_named, where_of
from tars_settings.provenance.resolution import Resolution, resolutions
from tars_settings.sources.failures import Location, add_notes, secret_texts, without_secrets
from tars_settings.sources.fleet import Captured, FleetSettingsSource, warn_refused
from tars_settings.sources.fold import Said
from tars_settings.sources.settle import Nothing, Settler

if TYPE_CHECKING:
    from tars_settings.settings.model import Settings

_log = logging.getLogger("tars_settings.settings")


def recover(instance: Settings, source: FleetSettingsSource | None, failure: ValidationError) -> ValidationError | None:
    """Fall back to values that validate, in place; return the error to raise where none does."""
    if source is None:
        return without_secrets(failure, type(instance))
    captured = Captured(source)
    if not source.said.view.scopes:
        secrets = secret_texts(captured.model, captured.compose(source.folded))
        error = without_secrets(failure, captured.model, secrets)
    else:
        if _run_on_last_good(instance, source, captured):
            return None
        outcome = _run_on_what_fits(instance, source, captured)
        if outcome is None:
            return None
        error = outcome
    note_sources(error, source.resolution(source.folded, source.origin))
    return error


def _run_on_last_good(instance: Settings, source: FleetSettingsSource, captured: Captured) -> bool:
    """Validate with the last known good values alone; return whether there are any and they do."""
    for kept in source.last_goods() if source.origin == "replica" else ():
        folded = Settler(Said(kept.view), source.folder(), lambda _: None).opened().folded
        if not isinstance(captured.attempt(folded, instance), ValidationError):
            _log.warning(
                "%s: the stored fleet values do not validate here; running on the last known good", source.service
            )
            resolutions.put(instance, source.resolution(folded, "last known good"))
            return True
    return False


def _run_on_what_fits(instance: Settings, source: FleetSettingsSource, captured: Captured) -> ValidationError | None:
    """Validate with as many of the stored deltas as fit together; return the error where not even none of them does."""
    model = type(instance)
    settler = Settler(source.said, source.folder(), lambda folded: captured.attempt(folded, model.__new__(model)))
    try:
        settled = settler.settle()
    except Nothing as nothing:
        return nothing.error
    outcome = captured.attempt(settled.folded, instance)
    if isinstance(outcome, ValidationError):
        return outcome  # a validator that gives two answers to one question
    warn_refused(source.service, settled.refused)
    resolutions.put(instance, source.resolution(settled.folded, source.origin))
    return None


def note_sources(error: ValidationError, resolution: Resolution) -> None:
    """Add notes to the error that name the source of each bad value."""
    names = {used: field for field, used in _inputs(resolution.model)}

    def label(location: Location) -> str | None:
        if not location:
            return None
        key = ".".join([names.get(str(location[0]), str(location[0])), *map(str, location[1:])])
        return _source_of(resolution, key) or "no source sets it"

    add_notes(error, label)


def _inputs(model: type) -> list[tuple[str, str]]:
    return [(field.name, used) for field in names_of(model).values() for used in field.inputs]


def _source_of(resolution: Resolution, key: str) -> str | None:
    for name, state in resolution.states.items():
        if name == resolution.fleet_source:
            first = next(fleet_candidates(resolution, key), None)
            if first is not None:
                return f"from the {first}"
        elif name != "DefaultSettingsSource":
            top = key.partition(".")[0]
            for one in (key, top):
                # What a dotenv file holds and the class does not is among the state's names as it stands.
                if look_up(resolution.model, one, state)[0] or (one == top and top in state):
                    where = where_of(source_named(resolution.chain, name), name, resolution.model, one)
                    return f"from the {kind_of(name)} {where}".rstrip()
    return None
