"""``confirm``, ``revert`` and ``promote``: what becomes of values that are on trial.

What is on trial is found in the fleet's own values: whoever holds a writer's key can settle it, from any host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from tars_settings.cli import outcome
from tars_settings.cli.common import INTERRUPTED, Common, command
from tars_settings.cli.moments import now
from tars_settings.cli.options import AnswersOption, ByOption, ReasonOption
from tars_settings.cli.reading import spoken_for
from tars_settings.cli.render import Table
from tars_settings.cli.session import session
from tars_settings.cli.tried import left_s, span
from tars_settings.core.names import ALL, Scope
from tars_settings.errors import NothingOnTrialError, RefusedError, UsageError
from tars_settings.writer import Receipt, Report, Writer
from tars_settings.writer.opentrials import OpenTrial, moved

ScopeArgument = Annotated[
    str, typer.Argument(metavar="SERVICE[@INSTANCE]", help="Where something is on trial; _all for every service")
]
ServiceArgument = Annotated[str, typer.Argument(metavar="SERVICE", help="Whose canary")]
PushOption = Annotated[int | None, typer.Option("--push", metavar="EPOCH", min=1, help="Only the push of this epoch")]
CanaryOption = Annotated[
    str | None,
    typer.Option("--canary", metavar="ID", help="Which canary, where several are open; its beginning will do"),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "confirm", confirm)
    command(app, "revert", revert)
    command(app, "promote", promote)


def confirm(
    common: Common,
    target: ScopeArgument,
    push: PushOption = None,
    reason: ReasonOption = "",
    by: ByOption = None,
    timeout_s: AnswersOption = 5.0,
) -> int:
    """Keep what is on trial in a scope: workers do not go back by themselves any more, or take it up again.

    What is undone for longer than it was tried is named with --push.

    Example: tars-settings confirm stt-worker
    """
    scope = Scope.parse(target)

    def settle(writer: Writer, course: Course) -> None:
        try:
            course.pushed(writer.confirm(str(scope), epoch=push, reason=reason or "confirmed", by=by), timeout_s)
        except NothingOnTrialError as error:
            found = canaries(writer, scope) if push is None and scope.instance is None else {}
            if not found:
                raise
            raise NothingOnTrialError(f"{error}\nA canary is open: tars-settings promote {scope}") from None

    return _settled(common, Course("confirm", str(scope)), settle)


def revert(
    common: Common,
    target: ScopeArgument,
    push: PushOption = None,
    canary: CanaryOption = None,
    reason: ReasonOption = "",
    by: ByOption = None,
    timeout_s: AnswersOption = 5.0,
) -> int:
    """End what is on trial now: in a scope and, of a service, on its canaries. Workers go back to what was before.

    Example: tars-settings revert stt-worker
    """
    scope = Scope.parse(target)
    if canary is not None and push is not None:
        raise UsageError("--push names one push, --canary one proposal: say one of them")

    def settle(writer: Writer, course: Course) -> None:
        members = _members(writer, scope, canary) if push is None else []
        course.canary = members[0].trial.canary if canary is not None else None
        why = {"reason": reason or "reverted", "by": by}
        writer.sync(str(scope))
        if canary is None and (not members or writer.trials(str(scope))):
            course.pushed(writer.revert(str(scope), epoch=push, **why), timeout_s)
        take_back(writer, members, course, timeout_s, **why)

    return _settled(common, Course("revert", str(scope)), settle)


def _members(writer: Writer, scope: Scope, canary: str | None) -> list[OpenTrial]:
    if scope.instance is not None or scope.service is None:
        if canary is not None:
            raise UsageError("--canary is a service's: name the service alone")
        return []
    found = canaries(writer, scope)
    if canary is None:
        return [one for members in found.values() for one in members]
    return chosen(found, canary, str(scope))


def promote(
    common: Common,
    service: ServiceArgument,
    canary: CanaryOption = None,
    reason: ReasonOption = "",
    by: ByOption = None,
    timeout_s: AnswersOption = 5.0,
) -> int:
    """Make what a canary tried the whole service's: pushes it there, then ends the canary on its instances.

    Exit code 1 where a worker refuses it; then the canary goes on, and ends by itself.

    Example: tars-settings promote stt-worker
    """
    scope = service_alone(service)

    def settle(writer: Writer, course: Course) -> None:
        promote_on(writer, scope, chosen(canaries(writer, scope), canary, service), course, timeout_s, reason, by)

    return _settled(common, Course("promote", service), settle)


def service_alone(text: str) -> Scope:
    """Return the scope of a service.

    Raises:
        UsageError: it is another kind of scope.
    """
    scope = Scope.parse(text)
    if scope.service is None or scope.instance is not None:
        raise UsageError(f"{text}: a canary is tried on instances of a service; name the service alone")
    return scope


# --- what is open -----------------------------------------------------------------------------------------------------


def canaries(writer: Writer, scope: Scope) -> dict[str, list[OpenTrial]]:
    """Return the open canaries of a service by their ids, each with what is on trial on its instances."""
    found: dict[str, list[OpenTrial]] = {}
    service = None if str(scope) == ALL else scope.service
    for name in sorted(spoken_for(writer, scope)) if service is not None else ():
        if Scope.parse(name).instance is None:
            continue
        writer.sync(name)
        for one in writer.trials(name):
            if one.trial.canary:
                found.setdefault(one.trial.canary, []).append(one)
    return found


def chosen(found: dict[str, list[OpenTrial]], wanted: str | None, service: str) -> list[OpenTrial]:
    """Return the members of the canary whose id begins so, or of the only one that is not over for long.

    Raises:
        NothingOnTrialError: there is none.
        RefusedError: there are several.
    """
    fitting = [
        members
        for canary, members in sorted(found.items())
        if (canary.startswith(wanted) if wanted else any(one.is_fresh(now()) for one in members))
    ]
    if not fitting:
        undone = "".join(f"\n  {members[0].trial.canary[:8]}, undone: {_told(members)}" for members in found.values())
        raise NothingOnTrialError(f"no canary of {service} is open{f' as {wanted}' if wanted else ''}{undone}")
    if len(fitting) > 1:
        several = "\n".join(f"  {members[0].trial.canary[:8]}: {_told(members)}" for members in fitting)
        raise RefusedError(f"several canaries of {service} are open; say which with --canary:\n{several}")
    return fitting[0]


def _told(members: Sequence[OpenTrial]) -> str:
    where = ", ".join(one.delta.scope for one in members)
    body = members[0].delta.body
    return f"{', '.join(members[0].keys)} on {where}, {body.reason or 'no reason given'}, by {body.by}"


# --- settling ---------------------------------------------------------------------------------------------------------


@dataclass
class Course:
    """How far it came: what Ctrl-C must tell, and the document."""

    action: str
    target: str
    canary: str | None = None
    done: list[tuple[Receipt, Report]] = field(default_factory=list)
    own: dict[str, list[str]] = field(default_factory=dict)
    refused: bool = False

    def pushed(self, receipts: Iterable[Receipt], timeout_s: float) -> bool:
        """Wait for pushes, and return whether all of them are done."""
        course = [(receipt, receipt.wait(timeout_s)) for receipt in receipts]
        self.done += course
        return all(outcome.exit_code(report) == 0 for _, report in course)

    @property
    def exit_code(self) -> int:
        """0 where every push was read back, and no worker refused one."""
        return 1 if self.refused else max((outcome.exit_code(report) for _, report in self.done), default=0)

    def document(self) -> dict[str, Any]:
        """Return it as a document."""
        return {
            "action": self.action,
            "target": self.target,
            "canary": self.canary,
            "pushes": [outcome.document(*one) for one in self.done],
            "own": self.own,
        }

    def show(self, common: Common) -> None:
        """Tell what was done."""
        for receipt, report in self.done:
            common.out.table(_table(receipt, report))
            common.out.note(outcome.verdict(receipt, report))
        for worker, keys in self.own.items():
            common.out.note(f"{worker} has values of its own again, as before the canary: {', '.join(keys)}")


def _table(receipt: Receipt, report: Report) -> Table:
    table = outcome.table(report)
    return Table(("scope", *table.columns), tuple((receipt.scope, *row) for row in table.rows))


def _settled(common: Common, course: Course, settle: Callable[[Writer, Course], None]) -> int:
    try:
        with session(common, read_only=False) as writer:
            settle(writer, course)
    except KeyboardInterrupt:
        done = ", ".join(f"{receipt.scope} epoch {receipt.epoch}" for receipt, _ in course.done)
        common.out.note(
            f"interrupted: {f'{done} is pushed' if done else 'nothing was pushed, as far as is known'}; the rest is as "
            f"it was, and what is on trial goes back by itself: see tars-settings list {course.target}"
        )
        return INTERRUPTED
    common.out.document(course.document())
    course.show(common)
    return course.exit_code


def take_back(writer: Writer, members: Iterable[OpenTrial], course: Course, timeout_s: float, **why: Any) -> None:
    """End what is on trial on instances; all are pushed before the first is waited for."""
    receipts = [
        writer.push_as_is(one.delta.scope, one.reverted(), instead_of=one.delta.stamp.digest.hex(), **why)
        for one in members
        if one.check()
    ]
    course.pushed(receipts, timeout_s)


def promote_on(
    writer: Writer,
    scope: Scope,
    members: Sequence[OpenTrial],
    course: Course,
    timeout_s: float,
    reason: str = "",
    by: str | None = None,
) -> None:
    """Push what a canary tried to its service, and where all took it, end it on the instances.

    Raises:
        RefusedError: newer pushes hold a part of it on every instance.
        DecryptionError: a secret that it tried can't be decrypted here.
    """
    if not members:
        raise RefusedError("someone pushed something newer over all of the canary; push what you want")
    course.canary = members[0].trial.canary
    whole = next((one for one in members if len(one.keys) == len(one.delta.assign)), None)
    if whole is None:
        where = ", ".join(one.delta.scope for one in members)
        raise RefusedError(f"newer pushes hold a part of the canary on {where}: push what you want")
    why = reason or whole.delta.body.reason or "promoted"
    assign = moved(whole, str(scope), writer.environment, writer.agent.clock.token)
    if not course.pushed([writer.push_as_is(str(scope), assign, reason=why, by=by)], timeout_s):
        course.refused = True
        return
    take_back(writer, members, course, timeout_s, reason="the canary was promoted", by=by)
    for one in members:
        if own := sorted(item.key for item in one.reverted() if not item.unset):
            course.own[one.delta.scope] = own


def rest(members: Iterable[OpenTrial]) -> str:
    """Return when the last of a canary's trials ends, in words."""
    return span(max((left_s(one.delta, now()) for one in members), default=0.0))
