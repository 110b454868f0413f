"""``push --canary``: tries a change on some workers, watches them for a while, then promotes it or takes it back.

Each chosen instance gets the change on trial in its own scope, which lies over the service's. So whatever becomes of
this shell, the workers go back by themselves.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tars_settings.cli import outcome
from tars_settings.cli.common import INTERRUPTED, Common
from tars_settings.cli.health import Health, health_of
from tars_settings.cli.render import Table
from tars_settings.cli.session import session
from tars_settings.cli.settle import Course, promote_on, service_alone, take_back
from tars_settings.cli.tried import seconds, span
from tars_settings.core.delta import MAX_TRIAL_S
from tars_settings.core.names import Scope
from tars_settings.core.presence import Presence
from tars_settings.errors import RefusedError, TarsSettingsError, UsageError
from tars_settings.writer import Receipt, Report, Writer

MARGIN_S: Final = 60
LOOK_S: Final = 0.25

Outcome = Literal["promoted", "not promoted", "waiting", "reverted"]


Push = Callable[..., Receipt]
"""Signs and publishes the change: given the writer, the scope, and options for :meth:`Writer.push`."""


@dataclass(frozen=True)
class Plan:
    """Whom to try it on (``pi-3,pi-4`` or ``10%``), for how long to watch, and whether to promote it then."""

    service: Scope
    chosen: str
    bake_s: int
    within_s: int
    promote: bool
    timeout_s: float

    @classmethod
    def of(cls, target: str, chosen: str, bake: str, revert_after: str | None, **more: Any) -> Plan:
        """Return the plan that options say; without --revert-after there is time to decide after the watching.

        Raises:
            UsageError: it is none.
        """
        bake_s = seconds(bake, "--bake")
        within_s = bake_s + max(MARGIN_S, bake_s)
        if revert_after is not None:
            within_s = seconds(revert_after, "--revert-after")
        if not bake_s < within_s <= MAX_TRIAL_S:
            raise UsageError(
                f"--bake {bake}: it is not over before the trial is, which is of {span(within_s)}, at most 7d"
            )
        return cls(service_alone(target), chosen, bake_s, within_s, **more)


def choose(chosen: str, there: Iterable[str], service: str, proposal: str) -> tuple[str, ...]:
    """Return the instances to try a proposal on, of those that are *there*: the named ones, or a share by hash.

    >>> there = ("hall", "kitchen", "pi-3", "pi-4")
    >>> choose("pi-3,hall", there, "stt-worker", "a"), len(choose("50%", there, "stt-worker", "a"))
    (('hall', 'pi-3'), 2)
    >>> choose("1%", there, "stt-worker", "a"), choose("1%", there, "stt-worker", "c")
    (('hall',), ('pi-3',))

    Raises:
        UsageError: the share is none.
        RefusedError: nobody is there, or a named one is not.
    """
    known = sorted(set(there))
    if chosen.endswith("%"):
        share = _share(chosen)
        if not known:
            raise RefusedError(f"no worker of {service} is there and ready")
        ranked = sorted(known, key=lambda instance: _rank(service, instance, proposal))
        return tuple(sorted(ranked[: math.ceil(len(known) * share / 100)]))
    named = sorted({name.strip() for name in chosen.split(",")})
    if absent := [name for name in named if name not in known]:
        wanted = ", ".join(f"{service}@{name}" for name in absent)
        raise RefusedError(f"no worker {wanted} is there and ready; there are: {', '.join(known) or 'none'}")
    return tuple(named)


def _share(text: str) -> float:
    number = text[:-1]
    share = float(number) if number.replace(".", "", 1).isdigit() and number.isascii() else 0.0
    if not 0 < share <= 100:
        raise UsageError(f"--canary {ascii(text)[:40]}: expected names of workers, or a share such as 10%")
    return share


def _rank(service: str, instance: str, proposal: str) -> bytes:
    return hashlib.blake2b(f"{service}@{instance} {proposal}".encode(), digest_size=16).digest()


# --- carrying it out --------------------------------------------------------------------------------------------------


@dataclass
class _Canary:
    """How far it came."""

    plan: Plan
    id: str
    instances: tuple[str, ...] = ()
    before: dict[str, Presence] = field(default_factory=dict)
    pushed: dict[str, tuple[Receipt, Report | None]] = field(default_factory=dict)
    health: dict[str, Health] = field(default_factory=dict)
    outcome: Outcome = "waiting"
    why: str = ""
    began_s: float = 0.0
    promotion: Course | None = None
    taken_back: Course | None = None

    @property
    def names(self) -> str:
        return ", ".join(f"{self.plan.service}@{instance}" for instance in self.instances)

    @property
    def left_s(self) -> float:
        return max(0.0, self.began_s + self.plan.within_s - time.monotonic())

    def bad(self) -> list[str]:
        return [f"{self.plan.service}@{name}: {one.why}" for name, one in self.health.items() if one.word == "bad"]

    def not_good(self) -> list[str]:
        return [f"{self.plan.service}@{name}: {one.why}" for name, one in self.health.items() if one.word != "good"]

    def members(self, writer: Writer) -> list[Any]:
        """Return what of it is still on trial."""
        scopes = [str(Scope(self.plan.service.service, instance)) for instance in self.instances]
        return [one for scope in scopes for one in writer.trials(scope) if one.trial.canary == self.id]


def carry_out(common: Common, prepare: Callable[[Writer], tuple[Push, str]], plan: Plan) -> int:
    """Try, watch, and promote or take back; tell what became of it, and return the exit code.

    *prepare* returns how the change is pushed, and a text that tells it from other changes (:func:`proposal_of`).
    """
    canary = _Canary(plan, "")
    try:
        with session(common, read_only=False) as writer:
            _try_it(common, writer, canary, *prepare(writer))
            _bake(common, writer, canary)
            _decide(common, writer, canary)
    except KeyboardInterrupt:
        common.out.note(_interrupted(canary))
        return INTERRUPTED
    except TarsSettingsError:
        if canary.pushed:
            common.out.note(f"{canary.names} {_by_itself(canary)}")
        raise
    common.out.document(_document(canary))
    _show(common, canary)
    return 0 if canary.outcome in ("promoted", "waiting") else 1


def _try_it(common: Common, writer: Writer, canary: _Canary, push: Push, proposal: str) -> None:
    plan, service = canary.plan, str(canary.plan.service)
    there = {one.instance: one for one in writer.presences(service) if one.state == "ready"}
    instances = choose(plan.chosen, there, service, proposal)
    canary.instances = instances
    canary.id = writer.agent.clock.token(16).hex()
    canary.before = {instance: there[instance] for instance in instances}
    canary.began_s = time.monotonic()
    for instance in instances:
        scope = Scope(plan.service.service, instance)
        try:
            receipt = push(writer, scope, revert_after_s=plan.within_s, canary=canary.id)
        except TarsSettingsError:
            take_back(writer, canary.members(writer), Course("revert", service), plan.timeout_s)
            raise
        canary.pushed[instance] = (receipt, None)
    common.out.note(
        f"on trial on {len(instances)} of {len(there)}: {canary.names}; watched for {span(plan.bake_s)}, "
        f"and undone by itself after {span(plan.within_s)}"
    )
    for instance, (receipt, _) in canary.pushed.items():
        canary.pushed[instance] = (receipt, receipt.wait(plan.timeout_s))


def _bake(common: Common, writer: Writer, canary: _Canary) -> None:
    """Watch until the time is over or a worker turns bad."""
    due_s = time.monotonic() + canary.plan.bake_s
    while True:
        seen = {one.instance: one for one in writer.presences(canary.plan.service.service)}
        for instance, (receipt, report) in canary.pushed.items():
            health = health_of(receipt.digest, canary.before[instance], seen.get(instance))
            if not writer.agent.connected:
                health = Health("unknown", "this shell has no connection to the broker")
            if report is not None and report.stage != "retained":
                health = Health("bad", f"the push is {report.stage}: {report.reason or 'it was not read back'}")
            if health != canary.health.get(instance):
                why = f", {health.why}" if health.why else ""
                common.out.note(f"{canary.plan.service}@{instance}: {health.word}{why}")
            canary.health[instance] = health
        left_s = due_s - time.monotonic()
        if canary.bad() or left_s <= 0:
            return
        time.sleep(min(LOOK_S, left_s))


def _decide(common: Common, writer: Writer, canary: _Canary) -> None:
    plan, service = canary.plan, str(canary.plan.service)
    if troubled := canary.not_good():
        canary.outcome, canary.why = "reverted", "; ".join(troubled)
        canary.taken_back = Course("revert", service, canary.id)
        common.out.note(f"taken back, {canary.why}")
        # What workers claim is unsigned: it is shown here, and has no place under this host's signature.
        take_back(writer, canary.members(writer), canary.taken_back, plan.timeout_s, reason="the canary was taken back")
    elif plan.promote:
        canary.promotion = Course("promote", service, canary.id)
        promote_on(writer, plan.service, canary.members(writer), canary.promotion, plan.timeout_s)
        canary.outcome = "promoted" if canary.promotion.exit_code == 0 else "not promoted"
        canary.why = "" if canary.outcome == "promoted" else "not every worker took it: see tars-settings status"


# --- telling ----------------------------------------------------------------------------------------------------------


def _document(canary: _Canary) -> dict[str, Any]:
    return {
        "service": str(canary.plan.service),
        "canary": canary.id,
        "within_s": canary.plan.within_s,
        "bake_s": canary.plan.bake_s,
        "workers": [
            {
                "worker": f"{canary.plan.service}@{instance}",
                "health": canary.health[instance].word,
                "why": canary.health[instance].why,
                "push": outcome.document(receipt, report or Report(receipt.stage)),
            }
            for instance, (receipt, report) in canary.pushed.items()
        ],
        "outcome": canary.outcome,
        "why": canary.why,
        "promotion": None if canary.promotion is None else canary.promotion.document(),
    }


def _show(common: Common, canary: _Canary) -> None:
    rows = [(f"{canary.plan.service}@{name}", one.word, one.why) for name, one in canary.health.items()]
    common.out.table(Table(("canary", "health", "why"), tuple(rows)))
    for course in (canary.promotion, canary.taken_back):
        if course is not None:
            course.show(common)
    if canary.outcome == "waiting":
        common.out.note(f"healthy after {span(canary.plan.bake_s)}. {canary.names} {_by_itself(canary)}")
    else:
        common.out.note(f"{canary.outcome}{f': {canary.why}' if canary.why else ''}")


def _by_itself(canary: _Canary) -> str:
    service = canary.plan.service
    return (
        f"will go back by itself in {span(canary.left_s)}.\nTo keep it everywhere: tars-settings promote {service}\n"
        f"To end it now:         tars-settings revert {service}"
    )


def _interrupted(canary: _Canary) -> str:
    if canary.promotion is not None or canary.taken_back is not None:
        return f"interrupted while it was settled: what is left of it on {canary.names} {_by_itself(canary)}"
    if not canary.instances:
        return "interrupted: nothing was signed, as far as is known; tars-settings list says what the fleet has"
    reached = "" if len(canary.pushed) == len(canary.instances) else "as far as it was reached, "
    return f"interrupted: {reached}{canary.names} {_by_itself(canary)}"


def proposal_of(texts: Mapping[str, str], secret: Collection[str]) -> str:
    """Return what tells a change from another one; of secrets no more than their keys: the choice can be seen."""
    return " ".join(key if key in secret else f"{key}={text}" for key, text in sorted(texts.items()))
