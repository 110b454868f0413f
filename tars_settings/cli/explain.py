"""``explain``: why a setting has its value, from the fleet's layers down to what each worker claims."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from tars_settings.cli.candidates import Candidate, candidates, defaults, dig
from tars_settings.cli.claims import Claim, claims
from tars_settings.cli.common import Common, command
from tars_settings.cli.described import Described, about
from tars_settings.cli.look import KeyArgument, check_reveal, say_how
from tars_settings.cli.options import CatchUpOption, OfflineOption, RevealOption
from tars_settings.cli.reading import NOTHING, Reading, Values, folded, read
from tars_settings.cli.render import Table, rows_of, value_text
from tars_settings.core.names import Scope, check_key, check_service
from tars_settings.core.presence import Presence
from tars_settings.errors import UsageError
from tars_settings.schema import Entry

TargetArgument = Annotated[str, typer.Argument(metavar="SERVICE[@INSTANCE]", help="Whose setting")]
InstanceOption = Annotated[
    str | None, typer.Option("--instance", metavar="INSTANCE", help="As this one running copy of it has it")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "explain", explain)


def explain(
    common: Common,
    target: TargetArgument,
    key: KeyArgument,
    instance: InstanceOption = None,
    reveal: RevealOption = None,
    offline: OfflineOption = False,
    timeout_s: CatchUpOption = 5.0,
) -> int:
    """Say why a setting has its value: who set it, what it shadows, and what each worker makes of it.

    Exit code 1 where nobody sets it and no schema in use has it. What workers say is a claim: presence is unsigned.

    Example: tars-settings explain stt-worker vad_threshold --instance pi-3
    """
    scope = _scope(target, instance)
    check_key(key)
    check_reveal(reveal or (), key)
    presences: list[Presence] = []
    reading = read(
        common,
        scope,
        offline=offline,
        timeout_s=timeout_s,
        glance=lambda writer: presences.extend(writer.presences(scope.service)),
    )
    values = Values(reading, common.environment(), reveal or ())
    story = _Story.of(reading, values, scope, key, presences)
    common.out.document(story.document())
    _show(common, story)
    say_how(common, reading, values)
    if reading.source == "replica":
        common.out.note("the workers were not asked: this is what this host's replica holds")
    if not story.is_known:
        common.out.note(f"nobody sets {key} for {scope}, and no schema in use has it")
    return 0 if story.is_known else 1


def _scope(target: str, instance: str | None) -> Scope:
    scope = Scope.parse(target)
    if scope.service is None:
        raise UsageError("explain takes a service, for it is one that has a value")
    if instance is None:
        return scope
    if scope.instance is not None:
        raise UsageError(f"{target} names an instance already; leave --instance out")
    return Scope(scope.service, check_service(instance, what="instance"))


@dataclass(frozen=True)
class _Story:
    """All that is known of one key."""

    reading: Reading
    scope: Scope
    key: str
    value: Any
    candidates: tuple[Candidate, ...]
    defaults: tuple[Entry, ...]
    claims: tuple[Claim, ...]

    @classmethod
    def of(cls, reading: Reading, values: Values, scope: Scope, key: str, presences: list[Presence]) -> _Story:
        """Gather it."""
        service = scope.service or ""
        own = reading.of(scope)
        found = candidates(own, values, key)
        known = tuple(defaults(Described(reading.schemas), service, key))
        told = tuple(claims(reading, values, presences, service, key, scope.instance))
        value = dig(folded(own, values), key)
        if value is NOTHING and len(known) == 1 and known[0].default:
            value = json.loads(known[0].default)
        return cls(reading, scope, key, value, found, known, told if reading.source == "broker" else ())

    @property
    def is_known(self) -> bool:
        """Whether anybody sets it, or any schema has it."""
        return bool(self.candidates or self.defaults)

    @property
    def is_set(self) -> bool:
        """Whether the fleet has an opinion."""
        return any(one.wins for one in self.candidates)

    def document(self) -> dict[str, Any]:
        """Return it as a document."""
        return {
            "source": self.reading.source,
            "scope": str(self.scope),
            "key": self.key,
            "set": self.is_set,
            "value": None if self.value is NOTHING else self.value,
            **about(self.defaults),
            "candidates": [one.document(self.reading) for one in self.candidates],
            "defaults": [
                {"default": one.default, "required": one.required, "secret": one.secret} for one in self.defaults
            ],
            "workers": [one.document(self.scope.service or "") for one in self.claims],
        }


def _show(common: Common, story: _Story) -> None:
    if not story.is_known:
        return
    value = "is not set" if story.value is NOTHING else f"= {value_text(story.value)}"
    common.out.line(f"{story.scope} {story.key} {value}")
    for one in story.defaults[:1]:
        text = " ".join(part for part in (one.text, f"({one.told})") if part)
        common.out.line(f"  {text}")
    common.out.table(_layers(story))
    rows = [(one.instance, one.state, one.fate, _text(one.value), one.why) for one in story.claims]
    common.out.table(Table(("worker", "state", "fate", "value", "why"), rows_of(rows)))


def _layers(story: _Story) -> Table:
    rows: list[tuple[object, ...]] = [
        (
            ">" if one.wins else "-",
            one.scope + ("" if one.key == story.key else f" {one.key}"),
            "(unset)" if one.value is NOTHING else value_text(one.value),
            "\n".join(_told(story.reading, one)),
        )
        for one in story.candidates
    ]
    mark = "-" if story.is_set else ">"
    rows += [
        (mark, "default", "(secret)" if one.secret else "(required)" if one.required else one.default or "(none)", "")
        for one in story.defaults
    ]
    return Table(("", "from", "value", "set by"), rows_of(rows))


def _told(reading: Reading, candidate: Candidate) -> list[str]:
    body, stamp = candidate.register.delta.body, candidate.register.delta.stamp
    who = reading.writer_name(candidate.register) + (f" ({body.by})" if body.by else "")
    lines = [f"epoch {stamp.epoch} by {who}", f"at {body.at}"] if body.at else [f"epoch {stamp.epoch} by {who}"]
    if body.reason:
        lines.append(f"because: {body.reason}")
    replaced = candidate.replaced
    if replaced is not None and replaced.delta is None:
        lines.append(f"replaced what {replaced.digest[:8]} said, which is not held any more")
    elif replaced is not None and replaced.delta is not None:
        what = "an unset" if replaced.value is NOTHING else value_text(replaced.value)
        lines.append(f"replaced {what} of epoch {replaced.delta.stamp.epoch}")
    return lines


def _text(value: Any) -> str:
    return "" if value is NOTHING else value_text(value)
