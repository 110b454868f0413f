"""``watch``: changes as they come, one line each."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from tars_settings.cli.candidates import dig
from tars_settings.cli.common import Common, command
from tars_settings.cli.listing import ServiceArgument
from tars_settings.cli.look import told
from tars_settings.cli.moments import now
from tars_settings.cli.options import RevealOption
from tars_settings.cli.reading import NOTHING, Followed, Reading, Values, folded
from tars_settings.cli.render import MASK, value_text
from tars_settings.cli.session import session
from tars_settings.core.delta import Delta
from tars_settings.core.names import Scope
from tars_settings.core.register import Register
from tars_settings.core.session import Received, SessionDown, SessionUp
from tars_settings.gossip.effects import Merged, Notice, TrustChanged
from tars_settings.writer import Writer

CountOption = Annotated[int | None, typer.Option("--count", "-n", metavar="N", min=1, help="End after N changes")]
TimeoutOption = Annotated[
    float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="End after so long; by default never")
]
CATCH_UP_S: Final = 5.0
_GLANCE_S: Final = 0.5

Event = SessionUp | SessionDown | Merged | TrustChanged


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "watch", watch)


def watch(
    common: Common,
    service: ServiceArgument = None,
    count: CountOption = None,
    timeout_s: TimeoutOption = None,
    reveal: RevealOption = None,
) -> int:
    """Show each change as it comes: when, where, what it was and is, who and why. Ctrl-C ends it.

    It goes on when the broker is gone and comes back, and says so. With --json each change is a document on a line of
    its own. Exit code 1 where --timeout ends it before --count changes.

    Example: tars-settings watch stt-worker --count 1
    """
    scope = None if service is None else Scope.parse(service)
    with session(common) as writer:
        watching = Watching(common, writer, scope, reveal or ())
        shown = watching.run(count, timeout_s)
    return 1 if count is not None and shown < count else 0


class _Ears:
    """Hands on, from the agent's thread, what a watcher wants to know."""

    def __init__(self, events: queue.SimpleQueue[Event]) -> None:
        self._events = events

    def on_session(self, event: SessionUp | SessionDown) -> None:
        """Hand it on."""
        self._events.put(event)

    def on_burst(self, notices: Sequence[Notice]) -> None:
        """Hand on what may be a change."""
        for one in notices:
            if isinstance(one, TrustChanged) or (isinstance(one, Merged) and one.fate == "applied"):
                self._events.put(one)

    def on_message(self, received: Received) -> None:
        """Pass over presence and schemas."""


@dataclass(frozen=True)
class Change:
    """A key of a scope that says something else than before; NOTHING where it says nothing."""

    register: Register
    old: Any
    new: Any


class Watching:
    """Keeps what was shown of each scope, and tells what differs from it."""

    def __init__(self, common: Common, writer: Writer, service: Scope | None, reveal: Collection[str]) -> None:
        self._common = common
        self._writer = writer
        self._reveal = reveal
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._followed = Followed(common, writer, service)
        self._shown: dict[str, dict[str, Register]] = {}
        self._schemas: dict[str, tuple[bytes, ...]] = {}
        self._is_up = True

    def run(self, count: int | None, timeout_s: float | None, ready: Callable[[], None] = lambda: None) -> int:
        """Show changes until *count* of them, or *timeout_s*, and return how many there were.

        Raises:
            KeyboardInterrupt: Ctrl-C.
        """
        self._common.out.compact = True
        due_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        self._writer.agent.call(lambda: self._writer.agent.add_listener(_Ears(self._events)))
        states = self._followed.states(CATCH_UP_S)
        self._begin(states)
        late = [name for name, state in states.items() if state == "joining"]
        self._common.out.note(
            f"watching {', '.join(states)}" + (f"; not caught up with {', '.join(late)}" if late else "")
        )
        ready()
        shown = 0
        while (left_s := due_s - time.monotonic()) > 0:
            for change in self._next(min(left_s, _GLANCE_S)):
                self._show(change)
                shown += 1
                if shown == count:
                    return shown
            if self._events.empty():
                self._begin(self._followed.states())
        return shown

    def _begin(self, states: dict[str, str]) -> None:
        """Take scopes that were caught up with as they are: what they said before is no change."""
        for scope, state in states.items():
            if scope not in self._shown and state != "joining":
                self._shown[scope] = self._writer.view(scope)
                service = Scope.parse(scope).service
                if service is not None:
                    self._schemas[service] = tuple(self._writer.schemas(service))

    def _next(self, within_s: float) -> Iterator[Change]:
        try:
            event = self._events.get(timeout=within_s)
        except queue.Empty:
            return
        match event:
            case Merged(delta):
                yield from self._merged(delta)
            case TrustChanged(version, _, voided):
                self._common.out.note(
                    f"trust document {version} is in force" + (f", {voided} deltas are void" * bool(voided))
                )
                for scope in list(self._shown):
                    yield from self._differing(scope, self._writer.view(scope))
            case SessionDown(reason):
                if self._is_up:
                    self._common.out.note(f"connection lost ({reason or 'closed'}); connecting again")
                self._is_up = False
            case SessionUp():
                if not self._is_up:
                    self._common.out.note("connected again")
                self._is_up = True

    def _merged(self, delta: Delta) -> Iterator[Change]:
        held = self._shown.get(delta.scope)
        if held is None:
            return
        newer = {
            one.key: Register(one.key, one, delta)
            for one in delta.assign
            if (before := held.get(one.key)) is None or before.delta.stamp < delta.stamp
        }
        yield from self._differing(delta.scope, {**held, **newer})

    def _differing(self, scope: str, winners: dict[str, Register]) -> Iterator[Change]:
        """Yield what differs from what was shown of a scope, and take it as shown."""
        held, self._shown[scope] = self._shown[scope], winners
        before, after = self._folded(scope, held), self._folded(scope, winners)
        for key, one in winners.items():
            if key not in held or held[key].delta is not one.delta:
                yield Change(one, self._old(dig(before, key), one), dig(after, key))
        for key, one in held.items():
            if key not in winners and not one.assignment.unset:
                yield Change(one, dig(before, key), NOTHING)

    def _old(self, value: Any, now_there: Register) -> Any:
        """Return what was there, masked where it is a secret from now on: it may have been one all along."""
        is_open = value is NOTHING or now_there.key in self._reveal
        return value if is_open or not self._reading(now_there.delta.scope, {}).is_secret(now_there) else MASK

    def _reading(self, scope: str, winners: dict[str, Register]) -> Reading:
        return Reading(self._writer.trust, {scope: winners}, "broker", {}, self._schemas)

    def _folded(self, scope: str, winners: dict[str, Register]) -> dict[str, Any]:
        reading = self._reading(scope, winners)
        return folded(reading, Values(reading, self._common.environment(), self._reveal))

    def _show(self, change: Change) -> None:
        register, out = change.register, self._common.out
        known = told(self._reading(register.delta.scope, {}), register)
        seen = now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        out.document(
            {
                "seen": seen,
                **known,
                "old_set": change.old is not NOTHING,
                "old": None if change.old is NOTHING else change.old,
                "new_set": change.new is not NOTHING,
                "new": None if change.new is NOTHING else change.new,
            }
        )
        who = known["writer"] + (f" ({known['by']})" if known["by"] else "")
        became = f"{_text(change.old)} -> {_text(change.new)}"
        out.row(
            (
                f"{seen[:19]}Z",
                register.delta.scope,
                register.key,
                became,
                who,
                known["reason"],
                f"epoch {known['epoch']}",
            )
        )


def _text(value: Any) -> str:
    return "(unset)" if value is NOTHING else value_text(value)
