"""``profile``: save, list, show, apply and delete named sets of values."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from tars_settings.cli.common import Common, command
from tars_settings.cli.look import say_revealed
from tars_settings.cli.options import DryRunOption, ReasonOption, RevealOption, TimeoutOption, WaitOption, YesOption
from tars_settings.cli.profiles import SERVICE, Profile, check_name, opened_here, parse_profile, profile_of, says, wish
from tars_settings.cli.ratify import confirmed
from tars_settings.cli.reading import Reading, Values, spoken_for
from tars_settings.cli.remembering import connected
from tars_settings.cli.render import Table, moment_text, rows_of, value_text
from tars_settings.cli.undoing import (
    Push,
    carry_out,
    change_documents,
    change_table,
    check_unchanged,
    check_values,
    schemas_of,
)
from tars_settings.cli.values import assignments, typed
from tars_settings.core.delta import Assignment
from tars_settings.core.names import ALL, Scope, overlap
from tars_settings.core.register import Register, effective
from tars_settings.core.undo import Change, in_pushes
from tars_settings.errors import DecryptionError, MalformedError, RefusedError, UsageError
from tars_settings.schema import is_secret
from tars_settings.writer import Writer
from tars_settings.writer.values import algorithm_of, sealed

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The profile, such as night")]
WhatArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SERVICE[@INSTANCE] [KEY=VALUE...]]...", help="What is in it; by default all that is set"),
]
OnlyArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[SERVICE[@INSTANCE]]...", help="Only these; by default all of it")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "save", save)
    command(app, "list", list_profiles)
    command(app, "show", show)
    command(app, "apply", apply)
    command(app, "delete", delete)


# --- saving -----------------------------------------------------------------------------------------------------------


def save(
    common: Common,
    name: NameArgument,
    what: WhatArgument = None,
    reason: ReasonOption = "",
    timeout_s: TimeoutOption = 5.0,
) -> int:
    """Save values under a name: those that are set now in the scopes that are named, or those that are given.

    A profile with a secret in it is encrypted as a whole. One of the same name is replaced.

    Example: tars-settings profile save night stt-worker vad_threshold=0.7 tts-worker
    """
    check_name(name)
    with connected(common, may_push=True) as writer:
        wanted = _wanted(what or ()) or dict.fromkeys(_all_scopes(writer), None)
        profile = _collected(common, writer, wanted)
        if not any(profile.scopes.values()):
            raise RefusedError("nothing is set there: there is nothing to save")
        writer.sync(SERVICE)
        held = writer.view(SERVICE).get(name)
        hidden = bool(profile.secret) or (held is not None and held.assignment.is_secret)
        said: dict[str, Any] = {"secret" if hidden else "plain": (name,), "reason": reason}
        receipt = writer.push(SERVICE, {name: profile.value()}, **said)
        report = receipt.wait(timeout_s, "retained")
    done = report.stage == "retained"
    common.out.document({"name": name, "epoch": receipt.epoch, "stage": report.stage, **_counts(profile)})
    number = sum(map(len, profile.scopes.values()))
    common.out.note(f"profile {name}: {number} values of {', '.join(sorted(profile.scopes))}; {report.stage}")
    return 0 if done else 1


def _wanted(words: Sequence[str]) -> dict[str, list[str] | None]:
    """Return by scope the KEY=VALUE words that follow it; None where none does."""
    found: dict[str, list[str] | None] = {}
    scope = ""
    for word in words:
        if "=" not in word:
            scope = str(Scope.parse(word))
            found.setdefault(scope, None)
        elif not scope:
            raise UsageError("whose value is it? Name a service before KEY=VALUE")
        else:
            found[scope] = [*(found[scope] or []), word]
    if SERVICE in found:
        raise UsageError(f"{SERVICE} are no part of a profile")
    return found


def _all_scopes(writer: Writer) -> list[str]:
    known = {ALL, *writer.agent.replicator.peer.registers.scopes(), *spoken_for(writer, None)}
    return sorted(known - {SERVICE})


def _collected(common: Common, writer: Writer, wanted: dict[str, list[str] | None]) -> Profile:
    scopes: dict[str, dict[str, Any]] = {}
    secret: set[str] = set()
    for scope, words in wanted.items():
        writer.sync(scope)
        standing = {one.key: one for one in effective(writer.view(scope).values())}
        schemas = schemas_of(writer, scope)
        values = (
            {key: opened_here(one, common.environment()) for key, one in standing.items()}
            if words is None
            else typed(assignments(words), schemas)
        )
        hidden = {key for key, one in standing.items() if one.assignment.is_secret}
        hidden |= {key for key in values if any(is_secret(schema, key) for schema in schemas)}
        secret |= {f"{scope} {key}" for key in values if any(overlap(key, one) for one in hidden)}
        if values:
            scopes[scope] = dict(sorted(values.items()))
    return Profile(scopes, frozenset(secret))


# --- looking ----------------------------------------------------------------------------------------------------------


def list_profiles(common: Common, timeout_s: TimeoutOption = 5.0) -> int:
    """List the profiles: what they are about, who saved them, when and why.

    Example: tars-settings profile list
    """
    with connected(common) as writer:
        writer.sync(SERVICE, timeout_s)
        found = {name: one for name, one in sorted(writer.view(SERVICE).items()) if not one.assignment.unset}
        reading = Reading(writer.trust, {SERVICE: found}, "broker")
    told = [_about(common, reading, name, one) for name, one in found.items()]
    common.out.document({"profiles": told})
    columns = ("name", "services", "values", "writer", "at", "reason")
    rows = [
        (one["name"], "\n".join(one["services"]), one["values"], one["writer"], moment_text(one["at"]), one["reason"])
        for one in told
    ]
    common.out.table(Table(columns, rows_of(rows)))
    if not told:
        common.out.note("no profile was saved; type: tars-settings profile save NAME")
    return 0


def _about(common: Common, reading: Reading, name: str, register: Register) -> dict[str, Any]:
    counts: dict[str, Any] = {"services": [], "values": None, "secrets": None}
    with contextlib.suppress(DecryptionError, MalformedError):
        counts = _counts(parse_profile(opened_here(register, common.environment())))
    body = register.delta.body
    said = {"writer": reading.writer_name(register), "at": body.at, "by": body.by, "reason": body.reason}
    return {"name": name, **counts, "encrypted": register.assignment.is_secret, **said}


def _counts(profile: Profile) -> dict[str, Any]:
    number = sum(map(len, profile.scopes.values()))
    return {"services": sorted(profile.scopes), "values": number, "secrets": len(profile.secret)}


def show(common: Common, name: NameArgument, reveal: RevealOption = None, timeout_s: TimeoutOption = 5.0) -> int:
    """Show what a profile sets. Secrets are masked.

    Example: tars-settings profile show night
    """
    with connected(common) as writer:
        writer.sync(SERVICE, timeout_s)
        winners = writer.view(SERVICE)
        reading = Reading(writer.trust, {}, "broker")
    profile = profile_of(name, winners, common.environment())
    values = Values(reading, common.environment(), reveal or ())
    rows = [(scope, key, one) for scope, keys in sorted(profile.scopes.items()) for key, one in sorted(keys.items())]
    told = [
        {
            "scope": scope,
            "key": key,
            "secret": profile.is_secret(scope, key),
            "value": values.plain(scope, key, value, secret=profile.is_secret(scope, key)),
        }
        for scope, key, value in rows
    ]
    common.out.document({"name": name, "values": told})
    text = [(one["scope"], one["key"], value_text(one["value"])) for one in told]
    common.out.table(Table(("scope", "key", "value"), rows_of(text)))
    say_revealed(common, values)
    return 0


# --- applying ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """What a profile changes in one scope."""

    scope: str
    now: dict[str, Register]
    changes: tuple[Change, ...]
    pushes: tuple[tuple[Assignment, ...], ...]
    values: Values
    reading: Reading


def apply(
    common: Common,
    name: NameArgument,
    only: OnlyArgument = None,
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    wait: WaitOption = True,
    timeout_s: TimeoutOption = 5.0,
) -> int:
    """Push what a profile sets, as far as it is not set already. What it changes is shown first.

    Each scope is a push of its own, one after the other: nothing is atomic across services. What the profile does not
    name stays as it is. Ends at the first push that does not get through, and says what was pushed and what was not.

    Example: tars-settings profile apply night
    """
    with connected(common, may_push=not dry_run) as writer:
        writer.sync(SERVICE, timeout_s)
        profile = profile_of(name, writer.view(SERVICE), common.environment())
        steps = [_step(common, writer, profile, scope) for scope in _chosen(profile, name, only or ())]
        steps = [one for one in steps if one.changes]
        _announce(common, name, steps)
        failure, code, documents = "", 0, []
        if steps and not dry_run:
            confirmed(common, f"Push profile {name} to {len(steps)} scopes, one after the other?", yes=yes)
            for one in steps:
                check_unchanged(writer, one.scope, one.now)
            why = reason or f"profile {name}"
            pushes = [Push(one.scope, assign, why) for one in steps for assign in one.pushes]
            pushed = carry_out(common, writer, pushes, waited=wait, timeout_s=timeout_s)
            failure, code, documents = pushed.failure, pushed.code, pushed.documents(waited=wait)
        scopes = [
            {"scope": one.scope, "changes": change_documents(one.changes, one.values, one.reading)} for one in steps
        ]
        common.out.document(
            {"name": name, "dry_run": dry_run, "scopes": scopes, "pushes": documents, "failure": failure}
        )
        return code


def _chosen(profile: Profile, name: str, only: Sequence[str]) -> list[str]:
    wanted = [str(Scope.parse(word)) for word in only]
    if strangers := [scope for scope in wanted if scope not in profile.scopes]:
        raise UsageError(f"profile {name} sets nothing in {', '.join(strangers)}")
    return wanted or sorted(profile.scopes, key=lambda scope: (scope != ALL, scope))


def _step(common: Common, writer: Writer, profile: Profile, scope: str) -> _Step:
    environment = common.environment()
    writer.sync(scope)
    now = writer.view(scope)
    standing = {one.key: one for one in effective(now.values())}
    schemas = schemas_of(writer, scope)
    wanted: dict[str, Register] = {}
    for key, value in profile.scopes[scope].items():
        held = standing.get(key)
        hidden = profile.is_secret(scope, key) or (held is not None and held.assignment.is_secret)
        hidden = hidden or any(is_secret(schema, key) for schema in schemas)
        item = (
            Assignment(key, secret=sealed(environment, scope, key, value, algorithm_of(held), writer.agent.clock.token))
            if hidden
            else Assignment(key, set=value)
        )
        wanted[key] = wish(scope, item)
    changes = tuple(
        Change(key, standing.get(key), one)
        for key, one in sorted(wanted.items())
        if not says(standing.get(key), one, environment)
    )
    items = {one.key: one.then.assignment for one in changes if one.then is not None}
    pushes = in_pushes(items, effective(wanted.values()))
    check_values([item for push in pushes for item in push], schemas, environment.secret_keys())
    service = Scope.parse(scope).service
    known = {} if service is None else {service: tuple(schemas)}
    reading = Reading(writer.trust, {scope: now}, "broker", schemas=known)
    return _Step(scope, now, changes, pushes, Values(reading, environment), reading)


def _announce(common: Common, name: str, steps: Sequence[_Step]) -> None:
    rows = [(one.scope, *row) for one in steps for row in change_table(one.changes, one.values, then="").rows]
    common.out.table(Table(("scope", "key", "now", f"profile {name}"), tuple(rows)))
    if not steps:
        common.out.note(f"the fleet says what profile {name} says: nothing to push")
    elif sum(len(one.pushes) for one in steps) > 1:
        common.out.note("one push a scope, one after the other: nothing is atomic across services")


def delete(
    common: Common,
    name: NameArgument,
    reason: ReasonOption = "",
    yes: YesOption = False,
    timeout_s: TimeoutOption = 5.0,
) -> int:
    """Delete a profile. What it was applied to stays as it is; history remembers the profile.

    Example: tars-settings profile delete night
    """
    check_name(name)
    with connected(common, may_push=True) as writer:
        writer.sync(SERVICE)
        held = writer.view(SERVICE).get(name)
        if held is None or held.assignment.unset:
            raise RefusedError(f"there is no profile {name!r}; type: tars-settings profile list")
        confirmed(common, f"Delete profile {name}?", yes=yes)
        receipt = writer.unset(SERVICE, [name], reason=reason)
        report = receipt.wait(timeout_s, "retained")
    common.out.document({"name": name, "epoch": receipt.epoch, "stage": report.stage})
    common.out.note(f"profile {name} deleted; {report.stage}")
    return 0 if report.stage == "retained" else 1
