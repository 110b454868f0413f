"""How a change is carried out: in one delta or several, waited for, and told about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tars_settings.cli import outcome, rehearsal
from tars_settings.cli.change import Change
from tars_settings.cli.common import INTERRUPTED, Common
from tars_settings.cli.cosigning import keep_draft
from tars_settings.cli.progress import Waiting
from tars_settings.cli.quorum import Quorum
from tars_settings.cli.session import session
from tars_settings.cli.splitting import refusal
from tars_settings.cli.tried import span
from tars_settings.core.delta import MAX_ASSIGNMENTS
from tars_settings.errors import ConflictError, TarsSettingsError, TooLargeError
from tars_settings.writer import Receipt, Report, Writer


@dataclass(frozen=True)
class How:
    """Whom a push waits for and how long, what counts as done, and whether it is carried out at all.

    With *draft* nothing is published: what is to be cosigned goes there.
    """

    wait: Literal["nobody", "asked", "everyone"] = "asked"
    timeout_s: float = 5.0
    quorum: Quorum | None = None
    split: bool = False
    dry_run: bool = False
    draft: Path | None = None

    def is_done(self, report: Report) -> bool:
        """Return whether a push of which this is known counts as done."""
        return outcome.exit_code(report, self.quorum) == 0


@dataclass
class _Course:
    """How far it came: what Ctrl-C and errors must tell."""

    receipt: Receipt | None = None
    done: list[tuple[Receipt, Report]] = field(default_factory=list)
    parts: int = 1


def carry_out(common: Common, prepare: Callable[[Writer], Change], how: How) -> int:
    """Carry out the change that *prepare* makes of an open connection, tell what became of it, return the exit code."""
    course = _Course()
    try:
        with session(common, read_only=False) as writer:
            change = prepare(writer)
            for note in change.notes:
                common.out.note(note)
            if how.dry_run:
                parts = _parts(change, how)
                return rehearsal.rehearse(
                    common, writer, parts, everyone=how.wait == "everyone", within_s=how.timeout_s
                )
            if how.draft is not None:
                return _drafted(common, writer, change, how.draft)
            _push_parts(common, writer, change, how, course)
    except KeyboardInterrupt:
        common.out.note(_interrupted(course, dry_run=how.dry_run))
        return INTERRUPTED
    except TarsSettingsError:
        if course.done:
            common.out.note(_so_far(course))
        raise
    return _tell(common, course, how)


def _drafted(common: Common, writer: Writer, change: Change, path: Path) -> int:
    parts = change.parts()
    if len(parts) > 1:
        raise refusal([one.items for one in parts])
    return keep_draft(common, change.push(writer, cosign=True), path, writer.trust)


def _parts(change: Change, how: How) -> list[Change]:
    """Return the deltas that a change needs: one unless it was said that it may be split."""
    parts = change.parts()
    if len(parts) == 1 or how.split:
        return parts
    if len(change.items) > MAX_ASSIGNMENTS:
        raise refusal([one.items for one in parts])
    return [change]  # sizes are estimated, with a margin: signing it tells


def _push_parts(common: Common, writer: Writer, change: Change, how: How, course: _Course) -> None:
    parts = _parts(change, how)
    course.parts = len(parts)
    expected: dict[str, Any] = {}
    for number, part in enumerate(parts, 1):
        course.receipt = _signed(writer, part, how, expected)
        report = _awaited(course.receipt, how, f"{change.scope} epoch {course.receipt.epoch}")
        course.done.append((course.receipt, report))
        if len(parts) > 1:
            verdict = outcome.verdict(course.receipt, report, waited=how.wait != "nobody", quorum=how.quorum)
            common.out.note(f"part {number} of {len(parts)}, {len(course.receipt.keys)} keys: {verdict}")
        if change.options.get("expect_epoch") is not None:
            expected = {"expect_epoch": course.receipt.epoch}
        if not how.is_done(report):
            return


def _signed(writer: Writer, part: Change, how: How, expected: Mapping[str, Any]) -> Receipt:
    try:
        return part.push(writer, ask_everyone=how.wait == "everyone", **expected)
    except ConflictError as error:
        since = expected.get("expect_epoch", part.options.get("expect_epoch"))
        told = "" if since is None else outcome.changes_since(writer, str(part.scope), since)
        raise ConflictError(f"{error}\n{told}".rstrip()) from None
    except TooLargeError:
        parts = part.parts()
        if how.split or len(parts) == 1:
            raise
    raise refusal([one.items for one in parts])


def _awaited(receipt: Receipt, how: How, what: str) -> Report:
    if how.wait == "nobody":
        return receipt.wait(how.timeout_s, "retained")

    def enough(report: Report) -> bool:
        return how.quorum is not None and how.quorum.is_reached(report)

    with Waiting(what) as waiting:
        return receipt.wait(how.timeout_s + receipt.spread_s, enough=waiting.on_report(enough))


def _tell(common: Common, course: _Course, how: How) -> int:
    waited = how.wait != "nobody"
    receipt, report = course.done[-1]
    document = outcome.document(receipt, report, waited=waited, quorum=how.quorum)
    if course.parts > 1:
        document["parts"] = [outcome.document(*one, waited=waited, quorum=how.quorum) for one in course.done]
    common.out.document(document)
    if waited:
        common.out.table(outcome.table(report))
    if course.parts > 1:
        common.out.note(_so_far(course))
    else:
        common.out.note(outcome.verdict(receipt, report, waited=waited, quorum=how.quorum))
    if receipt.trial_s:
        common.out.note(_by_itself(receipt))
    return 0 if how.is_done(report) and len(course.done) == course.parts else 1


def _so_far(course: _Course) -> str:
    done = len(course.done)
    epochs = ", ".join(str(receipt.epoch) for receipt, _ in course.done)
    under_way = course.receipt is not None and course.receipt is not course.done[-1][0]
    left = course.parts - done - under_way
    rest = f"; {left} were not begun, and can be pushed again" if left else ""
    return f"{done} of {course.parts} parts were pushed, as epoch {epochs}{rest}"


def _interrupted(course: _Course, *, dry_run: bool) -> str:
    before = f"{_so_far(course)}\n" if course.parts > 1 and course.done else ""
    receipt = course.receipt
    if dry_run:
        return "interrupted: nothing was signed, and nothing was changed"
    if course.done and course.done[-1][0] is receipt:
        return f"{before}interrupted"
    if receipt is None:
        return "interrupted: nothing was signed, as far as is known; tars-settings list says what the fleet has"
    tried = f"\n{_by_itself(receipt)}" if receipt.trial_s else ""
    return (
        f"{before}interrupted: {receipt.scope} epoch {receipt.epoch} is signed and on its way; "
        f"tars-settings status says who has it, and the next push finishes what is left of it{tried}"
    )


def _by_itself(receipt: Receipt) -> str:
    return (
        f"It goes back by itself after {span(receipt.trial_s)}. To keep it: tars-settings confirm {receipt.scope}\n"
        f"To end it now: tars-settings revert {receipt.scope}"
    )
