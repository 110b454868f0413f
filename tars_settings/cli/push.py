"""``push`` and ``unset``: what writes to the fleet."""

from __future__ import annotations

import dataclasses
import difflib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from tars_settings.cli import canary as canaries
from tars_settings.cli.carrying import How, carry_out
from tars_settings.cli.change import Change, CosignedChange
from tars_settings.cli.common import Common, command
from tars_settings.cli.cosigning import CosignedOption, CosignOption, draft_in
from tars_settings.cli.files import Content, read_content
from tars_settings.cli.options import (
    ByOption,
    ModelOption,
    PlainOption,
    QuorumOption,
    ReasonOption,
    RehearseOption,
    SecretOption,
    SplitOption,
    WaitAllOption,
    WaitOption,
)
from tars_settings.cli.quorum import Quorum
from tars_settings.cli.render import MASK, value_text
from tars_settings.cli.tried import seconds
from tars_settings.cli.values import assignments, checked_keys, model_of
from tars_settings.cli.wanted import check_all, wanted
from tars_settings.core.names import Scope, overlap
from tars_settings.core.register import Register
from tars_settings.errors import UsageError
from tars_settings.schema import is_secret, schema_hash, schema_of
from tars_settings.settings import Settings, service_of
from tars_settings.writer import Receipt, Writer

TargetArgument = Annotated[
    str, typer.Argument(metavar="SERVICE[@INSTANCE]", help="Whom it addresses; _all for every service")
]
TargetOrNone = Annotated[
    str | None, typer.Argument(metavar="SERVICE[@INSTANCE]", help="Whom it addresses; _all for every service")
]
WordsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="What to set, such as vad_threshold=0.6")
]
FileOption = Annotated[
    str | None,
    typer.Option(
        "--file", "-f", metavar="FILE", help="Set what a .env, .json, .yaml or .toml file says; - reads stdin"
    ),
]
FormatOption = Annotated[
    str | None, typer.Option("--format", metavar="FORMAT", help="The file's format: env, json, yaml or toml")
]
SkipOption = Annotated[bool, typer.Option("--skip-unknown", help="Leave out what is no setting of the workers")]
KeysArgument = Annotated[list[str], typer.Argument(metavar="KEY...", help="What to unset")]
ExpectOption = Annotated[
    int | None, typer.Option("--expect-epoch", metavar="N", min=0, help="Refuse when the scope is not at this epoch")
]
TimeoutOption = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long to wait for them")]

RevertOption = Annotated[
    str | None,
    typer.Option(
        "--revert-after", metavar="SPAN", help="Workers go back by themselves after 10m (say), unless it is confirmed"
    ),
]
CanaryOption = Annotated[
    str | None,
    typer.Option(
        "--canary", metavar="NAMES|N%", help="Try it on these instances (pi-3,pi-4) or on a share (10%) first"
    ),
]
BakeOption = Annotated[
    str | None, typer.Option("--bake", metavar="SPAN", help="How long to watch the canary; 5m by default")
]
PromoteOption = Annotated[
    bool | None, typer.Option("--promote/--ask", help="Promote a healthy canary, or (by default) leave that to you")
]

SCHEMA_WITHIN_S: Final = 3.0
_POLL_S: Final = 0.01
_MASKED: Final = f"{MASK} stands for a secret that is not shown; leave it out, or give a value"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "push", push)
    command(app, "unset", unset)


def push(
    common: Common,
    target: TargetOrNone = None,
    words: WordsArgument = None,
    file: FileOption = None,
    form: FormatOption = None,
    skip_unknown: SkipOption = False,
    reason: ReasonOption = "",
    by: ByOption = None,
    model: ModelOption = None,
    secret: SecretOption = None,
    plain: PlainOption = False,
    expect_epoch: ExpectOption = None,
    split: SplitOption = False,
    dry_run: RehearseOption = False,
    revert_after: RevertOption = None,
    canary: CanaryOption = None,
    bake: BakeOption = None,
    promote: PromoteOption = None,
    cosign: CosignOption = None,
    cosigned: CosignedOption = None,
    wait: WaitOption = True,
    wait_all: WaitAllOption = False,
    quorum: QuorumOption = None,
    timeout_s: TimeoutOption = 5.0,
) -> int:
    """Set keys of a service, and see which workers applied them.

    Values are typed by --model, else by the schemas that workers published, else by their looks. Where a grant demands
    the consent of others, --cosign writes a draft for them ('keys cosign'), and --cosigned publishes it.

    Example: tars-settings push stt-worker vad_threshold=0.6 --reason "noisy kitchen"
    """
    how = how_of(
        wait=wait,
        wait_all=wait_all,
        quorum=quorum,
        timeout_s=timeout_s,
        split=split,
        dry_run=dry_run,
        draft=cosign,
    )
    if cosigned is not None:
        if target or words or file or cosign or dry_run:
            raise UsageError("--cosigned FILE: the draft says what is set, as others saw it; leave everything else out")
        draft = draft_in(common, cosigned)
        change = CosignedChange(Scope.parse(draft.body.scope), draft.body.scope, draft=draft.text)
        return carry_out(common, lambda _: change, how)
    if not target or not (words or file):
        raise UsageError("nothing to push: say SERVICE KEY=VALUE, or SERVICE --file FILE; see push --help")
    content = Content() if file is None else read_content(file, form)
    options: dict[str, Any] = {"reason": reason, "by": by, "expect_epoch": expect_epoch}
    scope = Scope.parse(target)
    asked = _Asked(
        scope,
        assignments(words or ()),
        content,
        _model_for(model, scope),
        checked_keys(secret or ()),
        plain=plain,
        skip_unknown=skip_unknown,
        options=options,
    )
    if canary is not None:
        _check_canary(how, expect_epoch)
        more: dict[str, Any] = {"promote": bool(promote), "timeout_s": timeout_s}
        plan = canaries.Plan.of(target, canary, bake or "5m", revert_after, **more)
        return canaries.carry_out(common, asked.on_trial, plan)
    if bake is not None or promote is not None:
        raise UsageError("--bake, --promote and --ask are for a --canary")
    options |= _trial(revert_after)
    return carry_out(common, asked.change, how)


def _trial(revert_after: str | None) -> dict[str, Any]:
    return {} if revert_after is None else {"revert_after_s": seconds(revert_after, "--revert-after")}


def _check_canary(how: How, expect_epoch: int | None) -> None:
    if how.wait == "nobody" or expect_epoch is not None:
        raise UsageError("--canary waits, and pushes to other scopes: leave --no-wait and --expect-epoch out")
    if how.draft is not None:
        raise UsageError("a --canary is several pushes, each of which would need consent: have one to all cosigned")
    if how.dry_run or how.split or how.quorum is not None or how.wait == "everyone":
        raise UsageError("--canary does not go with --dry-run, --split, --quorum and --wait all")


@dataclass(frozen=True)
class _Asked:
    """What the words, the file and the options of a push ask for, before any schema is known."""

    scope: Scope
    texts: Mapping[str, str]
    content: Content
    settings: type[Settings] | None
    secrets: tuple[str, ...]
    plain: bool
    skip_unknown: bool
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.content == Content():
            _check_secrets(self.secrets, self.texts)

    def change(self, writer: Writer) -> Change:
        """Return the change, typed and described by the schemas in use.

        Raises:
            UsageError: nothing of it is a setting of the workers.
            InvalidValueError, PlainOrSecretError: as :func:`check_all` does.
        """
        schemas = published(writer, self.scope) if self.settings is None else [schema_of(self.settings)]
        found = wanted(self.texts, self.content, schemas, skip_unknown=self.skip_unknown)
        if not found.values and not found.complaints:
            raise UsageError("nothing to push: none of these names is a setting of the workers")
        if not found.complaints:
            _check_secrets(self.secrets, found.values)
        change = Change(
            self.scope,
            self.settings or str(self.scope),
            found.values,
            options=self.options,
            notes=found.told,
            schemas=tuple(schemas),
        )
        return as_described(writer, change, found.complaints, secrets=self.secrets, plain=self.plain)

    def on_trial(self, writer: Writer) -> tuple[canaries.Push, str]:
        """Return how the change is pushed to one instance, and a text that tells it from other changes."""
        change = self.change(writer)
        texts = {key: value_text(value) for key, value in change.values.items()}

        def push(writer: Writer, to: Scope, **more: Any) -> Receipt:
            target = change.target if self.settings is not None else str(to)
            here = dataclasses.replace(change, scope=to, target=target)
            # An instance's own scope may hold a key encrypted that is plain everywhere else.
            return as_described(writer, here, (), secrets=self.secrets, plain=True).push(writer, **more)

        return push, canaries.proposal_of(texts, change.secret)


def _check_secrets(secrets: Iterable[str], keys: Iterable[str]) -> None:
    if strangers := sorted(set(secrets) - set(keys)):
        raise UsageError(f"--secret {', '.join(strangers)}: this push does not set it")


def unset(
    common: Common,
    target: TargetArgument,
    keys: KeysArgument,
    reason: ReasonOption = "",
    by: ByOption = None,
    expect_epoch: ExpectOption = None,
    dry_run: RehearseOption = False,
    revert_after: RevertOption = None,
    cosign: CosignOption = None,
    wait: WaitOption = True,
    wait_all: WaitAllOption = False,
    quorum: QuorumOption = None,
    timeout_s: TimeoutOption = 5.0,
) -> int:
    """Take the fleet's opinion on keys away: the next lower source shows again.

    Example: tars-settings unset stt-worker vad_threshold
    """
    scope, names = Scope.parse(target), checked_keys(keys)
    options: dict[str, Any] = {"reason": reason, "by": by, "expect_epoch": expect_epoch, **_trial(revert_after)}
    how = how_of(wait=wait, wait_all=wait_all, quorum=quorum, timeout_s=timeout_s, dry_run=dry_run, draft=cosign)

    def prepare(writer: Writer) -> Change:
        schemas = tuple(published(writer, scope)) if dry_run else ()
        notes = _not_set(writer, scope, names)
        return Change(scope, str(scope), unset=names, options=options, notes=notes, schemas=schemas)

    return carry_out(common, prepare, how)


def _not_set(writer: Writer, scope: Scope, keys: Iterable[str]) -> tuple[str, ...]:
    """Return what is to be said of keys that a scope does not set: most often they are misspelt."""
    writer.sync(str(scope))
    held = [key for key, one in writer.view(str(scope)).items() if not one.assignment.unset]
    notes = []
    for key in keys:
        if not any(overlap(key, one) for one in held):
            near = difflib.get_close_matches(key, held)
            notes.append(f"{scope} does not set {key}" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    return tuple(notes)


def how_of(*, wait: bool, wait_all: bool, quorum: str | None, **more: Any) -> How:
    """Return how a push is to be carried out, as its options say.

    Raises:
        UsageError: they contradict each other.
    """
    if not wait and (wait_all or quorum is not None):
        raise UsageError("--no-wait waits for no worker: leave --quorum and --wait all out")
    wanted_quorum = None if quorum is None else Quorum.of(quorum)
    return How("everyone" if wait_all else "asked" if wait else "nobody", quorum=wanted_quorum, **more)


def _model_for(name: str | None, scope: Scope) -> type[Settings] | None:
    if name is None:
        return None
    model = model_of(name)
    service = service_of(model)
    if scope.service is None or (service is not None and service != scope.service):
        raise UsageError(f"--model {name}: it belongs to the service {service!r}, and {scope} is addressed")
    return model


def published(writer: Writer, scope: Scope) -> list[bytes]:
    """Return the schemas of the workers that a scope bears on; those of live workers are waited for, a moment.

    A worker publishes its schema a little after it is ready, so a push that follows on its heels would not see it.
    """
    due_s = time.monotonic() + SCHEMA_WITHIN_S
    while True:
        live = [one for one in writer.presences(scope.service) if one.state != "offline"]
        services = {scope.service} if scope.service is not None else {one.service for one in live}
        found = [schema for service in sorted(services) for schema in writer.schemas(service)]
        known = {schema_hash(schema) for schema in found}
        if all(one.schema in known for one in live if one.schema) or time.monotonic() > due_s:
            return found
        time.sleep(_POLL_S)


@dataclass(frozen=True)
class Told:
    """What schemas and signed deltas say of keys: secrets, plain ones, and those of which nobody says anything."""

    secret: frozenset[str]
    plain: frozenset[str]
    undescribed: frozenset[str]

    @classmethod
    def of(cls, writer: Writer, scope: Scope, keys: Iterable[str], schemas: Sequence[bytes]) -> Told:
        """Ask the schemas, and the scope's winners."""
        writer.sync(str(scope))
        return cls.by(writer.view(str(scope)), keys, schemas)

    @classmethod
    def by(cls, held: Mapping[str, Register], keys: Iterable[str], schemas: Sequence[bytes]) -> Told:
        """Ask the schemas, and what a scope *held*."""
        said = {key: {is_secret(schema, key) for schema in schemas} for key in keys}
        encrypted = {key for key, one in held.items() if one.assignment.is_secret}
        secret = frozenset(key for key, words in said.items() if True in words or key in encrypted)
        plain = frozenset(key for key, words in said.items() if (False in words or key in held) and key not in secret)
        return cls(secret, plain, frozenset(said) - secret - plain)


def as_described(
    writer: Writer, change: Change, complaints: Sequence[str], *, secrets: Sequence[str] = (), plain: bool = False
) -> Change:
    """Return a change with its secrets and plain keys known: by schemas, by signed deltas, and by what was said.

    Raises:
        InvalidValueError, PlainOrSecretError: as :func:`check_all` does, with the *complaints* that there are already.
    """
    told = Told.of(writer, change.scope, change.values, change.schemas)
    secret = {*secrets, *told.secret}
    undescribed = sorted(told.undescribed - secret)
    wrong = [
        *complaints,
        *(f"{key}: {_MASKED}" for key, value in change.values.items() if value == MASK and key in secret),
    ]
    if not isinstance(change.target, str):
        wrong += [f"{key}: {change.target.__name__} has no such field" for key in undescribed]
        undescribed = []
    check_all(wrong, () if plain else undescribed, change.schemas)
    return dataclasses.replace(
        change, secret=frozenset(secret), plain=frozenset((told.plain | told.undescribed) - secret)
    )
