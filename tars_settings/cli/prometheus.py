"""A status as metrics, in Prometheus' text exposition format 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tars_settings.cli.moments import moment
from tars_settings.cli.render import printable

_STATES: Final = ("joining", "ready", "stale", "degraded", "offline")
_PREFIX: Final = "tars_settings"
Labels = Mapping[str, str]


@dataclass(frozen=True)
class _Family:
    """One metric: its samples, by labels."""

    name: str
    kind: str
    help: str
    samples: tuple[tuple[Labels, float], ...]

    def lines(self) -> Iterator[str]:
        name = f"{_PREFIX}_{self.name}"
        yield f"# HELP {name} {self.help}"
        yield f"# TYPE {name} {self.kind}"
        # Two claims may look alike once they are printable: a scrape with one series twice is thrown away whole.
        yield from {
            _labels(labels): f"{name}{_labels(labels)} {_number(value)}" for labels, value in self.samples
        }.values()


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items()) + "}"


def escaped(value: str) -> str:
    r"""Return a label's value as it stands between quotation marks.

    >>> print(escaped('a"b\\c' + chr(27)))
    a\"b\\c\\x1b
    """
    return printable(value).replace("\\", "\\\\").replace('"', '\\"')


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def exposition(status: Mapping[str, Any]) -> str:
    """Return the document of ``status`` as metrics. Workers' are claims, as everything in presence is."""
    families = (*_of_fleet(status), *_of_workers(status["workers"]))
    return "".join(f"{line}\n" for one in families if one.samples for line in one.lines())


def _of_fleet(status: Mapping[str, Any]) -> Iterator[_Family]:
    scopes: Mapping[str, Mapping[str, Any]] = status["scopes"]

    def each(name: str) -> tuple[tuple[Labels, float], ...]:
        return tuple(({"scope": scope}, one[name]) for scope, one in scopes.items())

    converged = "Whether there is a worker, and all that are there are in step."
    yield _Family("converged", "gauge", converged, (({}, int(status["converged"])),))
    yield _Family("trust_version", "gauge", "Version of the trust document in force.", (({}, status["trust"]),))
    yield _Family("scope_gen", "gauge", "Gen of a scope.", each("gen"))
    yield _Family("scope_epoch", "gauge", "Highest epoch of a scope.", each("epoch"))
    yield _Family("scope_keys", "gauge", "Keys that are set in a scope.", each("keys"))


def _of_workers(workers: Iterable[Mapping[str, Any]]) -> Iterator[_Family]:
    found = [(one, {"service": one["service"], "instance": one["instance"]}) for one in workers]

    def each(name: str, kind: str, text: str, samples: Iterable[tuple[Labels, float | None]]) -> _Family:
        return _Family(name, kind, text, tuple((labels, value) for labels, value in samples if value is not None))

    def one_each(name: str, text: str, values: Iterable[float | None]) -> _Family:
        return each(name, "gauge", text, zip((labels for _, labels in found), values, strict=True))

    yield each(
        "worker_info",
        "gauge",
        "Which release a worker runs, and where.",
        (({**labels, **{word: one[word] for word in ("release", "python", "host")}}, 1) for one, labels in found),
    )
    yield each(
        "worker_state",
        "gauge",
        "1 for the state that a worker reports.",
        (({**labels, "state": state}, int(one["state"] == state)) for one, labels in found for state in _STATES),
    )
    yield one_each(
        "worker_ready", "Whether a worker says that it is ready.", (int(one["state"] == "ready") for one, _ in found)
    )
    yield one_each(
        "worker_in_step",
        "Whether a worker is ready, holds what the fleet says, and refuses nothing.",
        (int(one["in_step"]) for one, _ in found),
    )
    yield one_each("worker_refused", "Deltas that a worker's model refuses.", (len(one["refused"]) for one, _ in found))
    yield one_each(
        "worker_pinned_keys", "Keys that a worker's own environment pins.", (len(one["shadowed"]) for one, _ in found)
    )
    yield one_each(
        "worker_unknown_keys", "Keys that a worker's model does not have.", (len(one["unknown"]) for one, _ in found)
    )
    yield one_each("worker_lag_seconds", "For how long a worker lacks a value.", (one["lag_s"] for one, _ in found))
    yield one_each(
        "worker_reported_timestamp_seconds",
        "When a worker reported, by its clock.",
        (_timestamp(one["at"]) for one, _ in found),
    )
    yield each(
        "worker_epoch",
        "gauge",
        "Highest epoch that a worker holds of a scope.",
        (({**labels, "scope": scope}, held["epoch"]) for one, labels in found for scope, held in one["scopes"].items()),
    )
    yield each(
        "worker_epochs_behind",
        "gauge",
        "Epochs that a worker is behind in a scope.",
        (({**labels, "scope": scope}, _behind(one, scope)) for one, labels in found for scope in one["scopes"]),
    )
    yield each(
        "worker_drift",
        "gauge",
        "Whether a worker holds other values than the fleet at the same epoch.",
        (
            ({**labels, "scope": scope}, int(_differs(one, scope, "drift") is not None))
            for one, labels in found
            for scope in one["scopes"]
        ),
    )
    yield each(
        "worker_events_total",
        "counter",
        "What a worker counted since it started.",
        (({**labels, "event": event}, count) for one, labels in found for event, count in one["counters"].items()),
    )


def _differs(worker: Mapping[str, Any], scope: str, kind: str) -> Mapping[str, Any] | None:
    return next((one for one in worker["drift"] if one["scope"] == scope and one["kind"] == kind), None)


def _behind(worker: Mapping[str, Any], scope: str) -> int:
    found = _differs(worker, scope, "behind")
    return 0 if found is None else int(found["epochs"])


def _timestamp(at: str) -> float | None:
    try:
        return moment(at).timestamp()
    except (ValueError, OverflowError):
        return None
