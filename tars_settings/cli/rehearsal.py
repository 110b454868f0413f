"""``--dry-run``: what would change, and what the workers say of it. They validate it, and apply nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from tars_settings.cli import differences, outcome
from tars_settings.cli.change import Change
from tars_settings.cli.common import Common
from tars_settings.cli.progress import Waiting
from tars_settings.cli.render import Table
from tars_settings.core.question import MAX_WITHIN_S
from tars_settings.errors import ConflictError
from tars_settings.writer import Answered, Writer

_ABOUT: Final = 100
_PER_S: Final = 500
Opinion = Literal["fits", "refused", "no answer"]


@dataclass
class _Worker:
    """What one worker says of all parts of a change."""

    opinion: Opinion = "no answer"
    messages: tuple[str, ...] = ()
    shadowed: tuple[tuple[str, str], ...] = ()

    def take(self, answer: Answered) -> None:
        if answer.fit is None:
            return
        self.opinion = "refused" if "refused" in (self.opinion, answer.fit.fate) else "fits"
        self.messages += (answer.fit.message,) if answer.fit.message else ()
        self.shadowed += tuple(sorted(answer.fit.shadowed.items()))


def rehearse(common: Common, writer: Writer, parts: Sequence[Change], *, everyone: bool, within_s: float) -> int:
    """Show what the parts of a change would do, ask the live workers, and return the exit code: 1 if any refuses.

    Raises:
        ConflictError: the scope is not at the epoch that was expected.
        TarsSettingsError: what a push of it would raise.
    """
    whole, scope = parts[0].joined(parts[1:]), str(parts[0].scope)
    reading = differences.reading_for(writer, whole.scope, whole.schemas)
    _check_epoch(writer, scope, whole.options.get("expect_epoch"))
    told = differences.differences(reading, writer.environment, whole)
    workers = _asked(writer, parts, everyone=everyone, within_s=within_s)
    common.out.document(_document(writer, scope, told, workers))
    differences.show(common.out, told, whole.schemas)
    common.out.table(Table(("worker", "says", "note"), tuple(_row(name, one) for name, one in sorted(workers.items()))))
    common.out.note(_verdict(scope, told, workers, len(parts)))
    return 1 if any(one.opinion == "refused" for one in workers.values()) else 0


def _check_epoch(writer: Writer, scope: str, expected: int | None) -> None:
    seen = writer.epoch(scope)
    if expected is not None and seen != expected:
        told = outcome.changes_since(writer, scope, expected)
        raise ConflictError(f"{scope} is at epoch {seen}, expected {expected}: someone was faster\n{told}".rstrip())


def _asked(writer: Writer, parts: Sequence[Change], *, everyone: bool, within_s: float) -> dict[str, _Worker]:
    scope = parts[0].scope
    live = [one for one in writer.presences(scope.service) if one.state != "offline"]
    readers = [f"{one.service}@{one.instance}" for one in live if scope.instance in (None, one.instance)]
    about = max(len(readers), 1) if everyone else _ABOUT
    spread_s = len(readers) / _PER_S if everyone and len(readers) > _ABOUT else min(within_s, MAX_WITHIN_S)
    # Of a share nobody knows whom it hits: only those who answer are told of.
    workers = {name: _Worker() for name in readers} if len(readers) <= about else {}
    with Waiting(f"asking those who read {scope}") as waiting:
        for part in parts:
            for answer in writer.ask(str(scope), part.assignments(writer), spread_s, about=about):
                workers.setdefault(answer.worker, _Worker()).take(answer)
                waiting.show(len(workers), _answers(workers))
    return workers


def _answers(workers: Mapping[str, _Worker]) -> list[tuple[str, str]]:
    return [(name, one.opinion) for name, one in workers.items() if one.opinion != "no answer"]


def _row(name: str, worker: _Worker) -> tuple[str, ...]:
    notes = [outcome.one_line(message) for message in worker.messages]
    notes += [f"{key} is pinned there by {source}" for key, source in worker.shadowed]
    shown = {"fits": "would apply", "refused": "would refuse", "no answer": "did not answer"}[worker.opinion]
    return (name, shown, "; ".join(notes))


def _document(writer: Writer, scope: str, told: list[differences.Difference], workers: dict[str, _Worker]) -> Any:
    return {
        "dry_run": True,
        "scope": scope,
        "epoch": writer.epoch(scope),
        "changes": differences.document(told),
        "workers": [
            {
                "worker": name,
                "opinion": one.opinion,
                "message": "; ".join(one.messages),
                "shadowed": dict(one.shadowed),
            }
            for name, one in sorted(workers.items())
        ],
    }


def _verdict(scope: str, told: list[differences.Difference], workers: dict[str, _Worker], parts: int) -> str:
    changed = sum(one.changed for one in told)
    counts = {said: sum(one.opinion == said for one in workers.values()) for said in ("fits", "refused", "no answer")}
    told_of = [f"{counts['fits']} of {len(workers)} workers would apply it"]
    told_of += [f"{counts['refused']} would refuse it"] if counts["refused"] else []
    told_of += [f"{counts['no answer']} did not answer"] if counts["no answer"] else []
    by_part = f" (in {parts} parts, of which each was asked about by itself)" if parts > 1 else ""
    keys = f"{changed} keys of {scope} would change" if changed != 1 else f"1 key of {scope} would change"
    return f"dry run, nothing was pushed: {keys if changed else f'{scope} would not change'}{by_part}; " + (
        ", ".join(told_of) if workers else "no worker was there to ask"
    )
