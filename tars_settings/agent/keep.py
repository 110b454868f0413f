"""Keeping the last known good values of one service: what is in use, and what has proven good.

A set of values is on probation from its first snapshot on. Slot 0 of the store holds what is in use; what has proven
good moves to slot 1 when something newer comes, and what has not is written over. So slot 1 is always a set that a
worker was healthy on, and the crash-loop guard has something to start on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from tars_settings.adapters.lkg import DiskLkg
from tars_settings.agent.loop import disk_quiet
from tars_settings.core.delta import Delta
from tars_settings.core.lastgood import LastGood as Record
from tars_settings.core.lastgood import set_of
from tars_settings.errors import RejectedError, SurroundingsError
from tars_settings.ports import Clock
from tars_settings.sources.environment import Environment
from tars_settings.sources.lastgood import Kept, opened_lkg, write_lkg
from tars_settings.sources.starts import MOST, WINDOW_MS, StartMarks, previous_good
from tars_settings.trust.document import TrustDocument
from tars_settings.trust.seal import SealKey

_log: Final = logging.getLogger("tars_settings.agent")


class LastGood:
    """Keeps the signed deltas behind the last snapshot that validated and was used, sealed. It never raises.

    Used in the agent's thread, but for :meth:`begin`, which is called before. Where it can't write, it says so once and
    is quiet until it can. *trust* returns the trust documents from the first root's on.
    """

    def __init__(
        self,
        environment: Environment,
        service: str,
        schema: str,
        clock: Clock,
        trust: Callable[[], Sequence[TrustDocument]],
    ) -> None:
        self._environment = environment
        self._service = service
        self._schema = schema
        self._trust = trust
        self._store: DiskLkg | None = None
        self._written: tuple[object, ...] | None = None
        self._marks = StartMarks(environment, service, lambda: int(clock.wall().timestamp() * 1000))
        self._fallback = ""
        self.probation_s = environment.probation_s
        self.trouble = ""

    def begin(self, used: Iterable[Delta], known: TrustDocument) -> Kept | None:
        """Note a start on *used*; return the values before them where this is the last of a row of bad ends."""
        set_name = set_of(delta.stamp.digest for delta in used)
        try:
            if self._marks.looping() == set_name:
                kept = previous_good(self._environment, self._service, set_name, known)
                if kept is not None:
                    self._fallback = kept.set_name
                    event = {"tars_event": "crash-loop", "tars_service": self._service}
                    _log.warning("%s: %s", self._service, LOOPING, extra=event)
                    return kept
            if not known.is_pin:
                self._marks.mark(set_name)
        except SurroundingsError as error:
            self._complain(error)
        return None

    def write(self, deltas: Iterable[Delta], *, proven: bool = False) -> None:
        """Store the deltas behind a snapshot, unless they are what was stored last; *proven*: they are good."""
        used = tuple(deltas)
        documents = self._trust()
        set_name = set_of(delta.stamp.digest for delta in used)
        state = (documents[-1].digest if documents else b"", set_name, proven)
        if not documents or set_name == self._fallback or self._written in (state, (*state[:2], True)):
            return
        try:
            with disk_quiet:
                self._write(used, documents, set_name, proven=proven)
            if proven:
                self._marks.clear(set_name)
        except SurroundingsError as error:
            self._complain(error)
            return
        self.trouble = ""
        self._written = state

    def _complain(self, error: SurroundingsError) -> None:
        if not self.trouble:
            _log.warning("%s: the last known good values are not kept: %s", self._service, error)
        self.trouble = str(error)

    def _write(self, used: tuple[Delta, ...], trust: Sequence[TrustDocument], set_name: str, *, proven: bool) -> None:
        key = self._environment.seal_key(create=True)
        if key is None:  # create=True makes one or raises
            return
        if self._store is None:
            self._store = DiskLkg(self._environment.lkg_dir(self._service))
        fleet = trust[-1].fleet
        held = self._held(key, fleet)
        if held is not None and held.set_name == set_name and held.proven and not proven:
            # Another process, or an earlier run, was healthy on it.
            proven = True
            self._marks.clear(set_name)
        raws = [document.raw for document in trust]
        wanted = (set_name, proven, self._schema, raws)
        if held and (held.set_name, held.proven, held.schema, [bytes(raw) for raw in held.trust]) == wanted:
            return  # flash memory wears
        write_lkg(
            self._store,
            key,
            fleet=fleet,
            service=self._service,
            trust=raws,
            deltas=used,
            schema=self._schema,
            counter=held.counter + 1 if held is not None else 1,
            proven=proven,
            keep_previous=lambda sealed: _is_other_and_proven(self._opened(sealed, key, fleet), set_name),
        )

    def _held(self, key: SealKey, fleet: str) -> Record | None:
        try:
            sealed = None if self._store is None else self._store.read(0)
        except SurroundingsError:
            return None  # writing will move it aside, or say what is wrong
        return None if sealed is None else self._opened(sealed, key, fleet)

    def _opened(self, sealed: bytes, key: SealKey, fleet: str) -> Record | None:
        try:
            return opened_lkg(sealed, key, fleet, self._service)
        except RejectedError:
            return None

    def close(self, *, crashed: bool = False) -> None:
        """Close the store; unless the worker *crashed*, its start is no bad sign any more."""
        if self._store is not None:
            self._store.close()
            self._store = None
        if not crashed:
            try:
                self._marks.unmark()
            except SurroundingsError as error:
                self._complain(error)


LOOPING: Final = (
    f"started {MOST} times within {WINDOW_MS // 1000} s on new values that it did not stay healthy on: this run goes on"
    " with the values before them"
)


def _is_other_and_proven(held: Record | None, set_name: str) -> bool:
    # What can't be opened must not push out what may be the only good one.
    return held is not None and held.proven and held.set_name != set_name
