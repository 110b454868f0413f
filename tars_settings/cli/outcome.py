"""What became of a push, for people and as a document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tars_settings.cli.quorum import Quorum
from tars_settings.cli.render import Table
from tars_settings.cli.tried import span
from tars_settings.core.delta import Delta
from tars_settings.writer import Receipt, Reply, Report, Writer

_PROVEN: Final = "retained"
_ANSWERS: Final = frozenset({"applied", "refused"})


def exit_code(report: Report, quorum: Quorum | None = None) -> int:
    """Return 0 when the push was read back from the broker, and no worker refused it or a *quorum* applied it."""
    good = not report.refused if quorum is None else quorum.is_reached(report)
    return 0 if report.stage == _PROVEN and good else 1


def document(receipt: Receipt, report: Report, *, waited: bool = True, quorum: Quorum | None = None) -> dict[str, Any]:
    """Return the JSON document of a push; where nobody *waited*, it does not speak of workers."""
    needed = None if quorum is None else quorum.needed(report.asked)
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
        "needed": needed,
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


def verdict(receipt: Receipt, report: Report, *, waited: bool = True, quorum: Quorum | None = None) -> str:
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
    unasked = sum(reply.fate == "unasked" for reply in report.replies)
    others = f", of about {report.asked + unasked}" if unasked else ""
    return f"{what}: {report.stage}, {counts}{others}{refused}{silent}{_reached(report, quorum)}{caveat}"


def _reached(report: Report, quorum: Quorum | None) -> str:
    if quorum is None:
        return ""
    return f"; {quorum.needed(report.asked)} were needed" + ("" if quorum.is_reached(report) else ": not reached")


def changes_since(writer: Writer, scope: str, epoch: int) -> str:
    """Return who changed which keys of a scope after an epoch, as far as it still stands; one line a push."""
    later: dict[bytes, tuple[Delta, list[str]]] = {}
    for register in writer.view(scope).values():
        if register.delta.stamp.epoch > epoch:
            later.setdefault(register.delta.stamp.digest, (register.delta, []))[1].append(register.key)
    return "\n".join(_since(writer, *later[digest]) for digest in sorted(later, key=lambda one: later[one][0].stamp))


def _since(writer: Writer, delta: Delta, keys: Sequence[str]) -> str:
    name = writer.trust.name_of(delta.stamp.kid)
    unset = {item.key for item in delta.assign if item.unset}
    told = ", ".join(f"{key} (unset)" if key in unset else key for key in sorted(keys))
    by = f"{delta.body.by} ({name})" if delta.body.by else name
    reason = f": {delta.body.reason}" if delta.body.reason else ""
    return f"    epoch {delta.stamp.epoch} by {by} changed {told}{reason}"
