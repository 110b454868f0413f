"""What became of a push, for people and as a document."""

from __future__ import annotations

from typing import Any, Final

from tars_settings.cli.render import Output, Table
from tars_settings.cli.tried import span
from tars_settings.writer import Receipt, Reply, Report

_PROVEN: Final = "retained"
_ANSWERS: Final = frozenset({"applied", "refused"})


def exit_code(report: Report) -> int:
    """Return 0 when the push was read back from the broker and no worker refused it."""
    return 0 if report.stage == _PROVEN and not report.refused else 1


def document(receipt: Receipt, report: Report, *, waited: bool = True) -> dict[str, Any]:
    """Return the JSON document of a push; where nobody *waited*, it does not speak of workers."""
    return {
        "scope": receipt.scope,
        "gen": receipt.gen,
        "epoch": receipt.epoch,
        "digest": receipt.digest,
        "synced": receipt.synced,
        "stage": report.stage,
        "reason": report.reason,
        "asked": report.asked if waited else 0,
        "applied": report.applied if waited else 0,
        "trial_s": receipt.trial_s,
        "workers": [_worker(reply) for reply in report.replies if waited],
    }


def _worker(reply: Reply) -> dict[str, Any]:
    return {
        "worker": _name(reply),
        "fate": reply.fate,
        "message": reply.message,
        "shadowed": dict(reply.shadowed),
        "after_ms": round(reply.after_s * 1000, 3) if reply.fate in _ANSWERS else None,
    }


def _name(reply: Reply) -> str:
    return f"{reply.service}@{reply.instance}"


def show(out: Output, receipt: Receipt, report: Report, *, waited: bool) -> None:
    """Tell what became of it: the workers on stdout, the verdict on stderr."""
    out.document(document(receipt, report, waited=waited))
    if waited:
        out.table(table(report))
    out.note(verdict(receipt, report, waited=waited))


def table(report: Report) -> Table:
    """Return one row a worker: who, its fate, after how long, and what there is to say."""
    return Table(("worker", "fate", "after", "note"), tuple(_row(reply) for reply in report.replies))


def _row(reply: Reply) -> tuple[str, ...]:
    after = f"{reply.after_s * 1000:.1f} ms" if reply.fate in _ANSWERS else ""
    notes = [one_line(reply.message)] if reply.message else []
    notes += [f"{key} is shadowed by {source}" for key, source in sorted(reply.shadowed.items())]
    return (_name(reply), reply.fate, after, "; ".join(notes))


def one_line(message: str) -> str:
    """Return pydantic's message of several lines as one."""
    return " ".join(line.strip() for line in message.splitlines() if line.strip())


def verdict(receipt: Receipt, report: Report, *, waited: bool = True) -> str:
    """Return the push's fate as a sentence."""
    what = f"{receipt.scope} epoch {receipt.epoch}"
    if receipt.trial_s:
        what += f" (on trial for {span(receipt.trial_s)})"
    caveat = "" if receipt.synced else " (the scope could not be caught up before: see tars-settings status)"
    if report.stage != _PROVEN:
        return f"{what}: {report.stage}: {report.reason or 'it was not read back in time'}{caveat}"
    if not waited:
        return f"{what}: {report.stage}; the workers were not waited for{caveat}"
    counts = f"applied by {report.applied} of {report.asked} asked" if report.asked else "no worker was there to ask"
    refused = f", refused by {len(report.refused)}" if report.refused else ""
    mute = sum(reply.fate == "silent" for reply in report.replies)
    silent = f", no answer yet from {mute}" if mute else ""
    return f"{what}: {report.stage}, {counts}{refused}{silent}{caveat}"
