"""``push`` and ``unset``: what writes to the fleet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tars_settings.cli import canary as canaries
from tars_settings.cli import outcome
from tars_settings.cli.common import CONNECT_WITHIN_S, INTERRUPTED, Common, command
from tars_settings.cli.cosigning import CosignedOption, CosignOption, draft_in, keep_draft
from tars_settings.cli.founding import adopt_trust
from tars_settings.cli.tried import seconds, span
from tars_settings.cli.values import assignments, checked_keys, model_of, typed, typed_by_model
from tars_settings.core.names import Scope
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
KeysArgument = Annotated[list[str], typer.Argument(metavar="KEY...", help="What to unset")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept with the change")]
ByOption = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who; by default this user")]
ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="MODULE:CLASS", help="Type and check the values by this Settings class")
]
SecretOption = Annotated[list[str] | None, typer.Option("--secret", metavar="KEY", help="Encrypt this key's value")]
PlainOption = Annotated[bool, typer.Option("--plain", help="No key of this push that nobody described is a secret")]
ExpectOption = Annotated[
    int | None, typer.Option("--expect-epoch", metavar="N", min=0, help="Refuse when the scope is not at this epoch")
]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the workers' answers")]
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


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "push", push)
    command(app, "unset", unset)


@dataclass(frozen=True)
class _Wait:
    workers: bool
    timeout_s: float
    draft: Path | None = None
    """Nothing is published: what is to be cosigned goes here."""


def push(
    common: Common,
    target: TargetOrNone = None,
    words: WordsArgument = None,
    reason: ReasonOption = "",
    by: ByOption = None,
    model: ModelOption = None,
    secret: SecretOption = None,
    plain: PlainOption = False,
    expect_epoch: ExpectOption = None,
    revert_after: RevertOption = None,
    canary: CanaryOption = None,
    bake: BakeOption = None,
    promote: PromoteOption = None,
    wait: WaitOption = True,
    timeout_s: TimeoutOption = 5.0,
    cosign: CosignOption = None,
    cosigned: CosignedOption = None,
) -> int:
    """Set keys of a service, and see which workers applied them.

    Values are typed by --model, else by the schemas that workers published, else by their looks. Where a grant demands
    the consent of others, --cosign writes a draft for them ('keys cosign'), and --cosigned publishes it.

    Example: tars-settings push stt-worker vad_threshold=0.6 --reason "noisy kitchen"
    """
    if cosigned is not None:
        if target or words or cosign:
            raise UsageError("--cosigned FILE: the draft says what is set, as others saw it; leave everything else out")
        draft = draft_in(common, cosigned)
        return _carry_out(common, lambda writer: writer.push_cosigned(draft.text), _Wait(wait, timeout_s))
    if not target or not words:
        raise UsageError("expected SERVICE KEY=VALUE..., or --cosigned FILE; see tars-settings push --help")
    texts, scope = assignments(words), Scope.parse(target)
    settings = _model_for(model, scope)
    secrets = checked_keys(secret or ())
    if strangers := sorted(set(secrets) - texts.keys()):
        raise UsageError(f"--secret {', '.join(strangers)}: this push does not set it")
    options: dict[str, Any] = {"secret": secrets, "reason": reason, "by": by, "expect_epoch": expect_epoch}
    options["cosign"] = cosign is not None

    def write(writer: Writer, to: Scope = scope, **more: Any) -> Receipt:
        if settings is not None:
            return writer.push(settings, typed_by_model(settings, texts), instance=to.instance, **options, **more)
        schemas = published(writer, to)
        values = typed(texts, schemas)
        told = _Told.of(writer, to, values, schemas)
        hidden, open_ = {*secrets, *told.secret}, {*told.plain, *(told.undescribed if plain else ())}
        return writer.push(str(to), values, **(options | {"secret": hidden, "plain": open_ - hidden}), **more)

    def prepare(writer: Writer) -> tuple[canaries.Push, str]:
        schemas = published(writer, scope) if settings is None else [schema_of(settings)]
        return write, canaries.proposal_of(texts, {*secrets, *_Told.of(writer, scope, texts, schemas).secret})

    if canary is None:
        if bake is not None or promote is not None:
            raise UsageError("--bake, --promote and --ask are for a --canary")
        options |= _trial(revert_after)
        return _carry_out(common, write, _Wait(wait, timeout_s, cosign))
    if cosign is not None:
        raise UsageError(
            "a --canary is several pushes, each of which would need consent: have one to the service cosigned"
        )
    if not wait or expect_epoch is not None:
        raise UsageError("--canary waits, and pushes to other scopes: leave --no-wait and --expect-epoch out")
    how: dict[str, Any] = {"promote": bool(promote), "timeout_s": timeout_s}
    return canaries.carry_out(common, prepare, canaries.Plan.of(target, canary, bake or "5m", revert_after, **how))


def _trial(revert_after: str | None) -> dict[str, Any]:
    return {} if revert_after is None else {"revert_after_s": seconds(revert_after, "--revert-after")}


def unset(
    common: Common,
    target: TargetArgument,
    keys: KeysArgument,
    reason: ReasonOption = "",
    by: ByOption = None,
    expect_epoch: ExpectOption = None,
    revert_after: RevertOption = None,
    wait: WaitOption = True,
    timeout_s: TimeoutOption = 5.0,
    cosign: CosignOption = None,
) -> int:
    """Take the fleet's opinion on keys away: the next lower source shows again.

    Example: tars-settings unset stt-worker vad_threshold
    """
    scope, names = Scope.parse(target), checked_keys(keys)
    options: dict[str, Any] = {"reason": reason, "by": by, "expect_epoch": expect_epoch, "cosign": cosign is not None}
    options |= _trial(revert_after)
    return _carry_out(common, lambda writer: writer.unset(str(scope), names, **options), _Wait(wait, timeout_s, cosign))


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


@dataclass(frozen=True)
class _Told:
    """What schemas and signed deltas say of keys: secrets, plain ones, and those that neither describes."""

    secret: frozenset[str]
    plain: frozenset[str]
    undescribed: frozenset[str]

    @classmethod
    def of(cls, writer: Writer, scope: Scope, keys: Iterable[str], schemas: Sequence[bytes]) -> _Told:
        """Ask the schemas, and the scope's winners."""
        writer.sync(str(scope))
        said = {key: {is_secret(schema, key) for schema in schemas} for key in keys}
        encrypted = {key for key, one in writer.view(str(scope)).items() if one.assignment.is_secret}
        secret = frozenset(key for key, words in said.items() if True in words or key in encrypted)
        plain = frozenset(key for key, words in said.items() if False in words and key not in secret)
        return cls(secret, plain, frozenset(said) - secret - plain)


def _carry_out(common: Common, write: Callable[[Writer], Receipt], wait: _Wait) -> int:
    adopt_trust(common.environment())
    receipt: Receipt | None = None
    try:
        with Writer(connect_within_s=CONNECT_WITHIN_S, **common.given()) as writer:
            receipt = write(writer)
            if wait.draft is not None:
                return keep_draft(common, receipt, wait.draft, writer.trust)
            report = receipt.wait(wait.timeout_s, "applied" if wait.workers else "retained")
    except KeyboardInterrupt:
        common.out.note(_interrupted(receipt))
        return INTERRUPTED
    outcome.show(common.out, receipt, report, waited=wait.workers)
    if receipt.trial_s:
        common.out.note(_by_itself(receipt))
    return outcome.exit_code(report)


def _interrupted(receipt: Receipt | None) -> str:
    if receipt is None:
        return "interrupted: nothing was signed, as far as is known; tars-settings list says what the fleet has"
    tried = f"\n{_by_itself(receipt)}" if receipt.trial_s else ""
    return (
        f"interrupted: {receipt.scope} epoch {receipt.epoch} is signed and on its way; "
        f"tars-settings status says who has it, and the next push finishes what is left of it{tried}"
    )


def _by_itself(receipt: Receipt) -> str:
    return (
        f"It goes back by itself after {span(receipt.trial_s)}. To keep it: tars-settings confirm {receipt.scope}\n"
        f"To end it now: tars-settings revert {receipt.scope}"
    )
