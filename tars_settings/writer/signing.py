"""The writer itself: an agent that holds a key, follows the scopes that it is asked about, and listens to presence."""

from __future__ import annotations

import functools
import getpass
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from pydantic_settings import BaseSettings

from tars_settings import errors
from tars_settings.agent.assemble import TransportFactory, assemble, mqtt_transport
from tars_settings.agent.loop import Agent
from tars_settings.agent.notices import Callback, until_ended
from tars_settings.core.delta import Ack, Algorithm, Assignment, Ciphertext, Trial
from tars_settings.core.draft import read_draft
from tars_settings.core.names import ALL, Scope
from tars_settings.core.presence import Presence
from tars_settings.core.question import HistoryQuestion
from tars_settings.core.register import Register
from tars_settings.core.session import Received, SessionDown, SessionUp
from tars_settings.errors import (
    BrokerUnreachableError,
    ConfigurationError,
    NoServiceError,
    NotGrantedError,
    RefusedError,
    UsageError,
)
from tars_settings.gossip.effects import Follow, Notice, Push, Stage
from tars_settings.settings import service_of
from tars_settings.sources.environment import Environment
from tars_settings.trust.document import TrustDocument
from tars_settings.trust.keys import SigningKey
from tars_settings.writer.asking import GRACE_S, Answered, Asking, asked, body_of, chosen
from tars_settings.writer.listening import Heard
from tars_settings.writer.opentrials import OpenTrial, open_trials, trial_seconds
from tars_settings.writer.receipt import ENDS, FAILURES, Need, Receipt, Reply, Report
from tars_settings.writer.values import Wish, assignments, sealed

CONNECT_WITHIN_S: Final = 10.0
LOOK_AGAIN_S: Final = 0.02
COMPARE_WITHIN_S: Final = 2.0
ASK_ALL_UP_TO: Final = 100
"""Workers that are all asked to report at once; of more, about this many are, unless everyone is to answer."""
ANSWERS_PER_S: Final = 500
AT_ONCE_UP_TO: Final = 4
"""Workers that answer without a pause. Of more on one host, those that swapped first would store, and report, while the
others still wait for their turn."""


class Writer:
    """A peer that holds a writer's key. Connects on entering; arguments stand in for ``TARS_SETTINGS_*`` variables.

    *writer_key* is a path, or a SigningKey; in its absence TARS_SETTINGS_WRITER_KEY names the file. With *read_only* it
    only looks, and needs no key.
    """

    def __init__(
        self,
        *,
        writer_key: Path | str | SigningKey | None = None,
        read_only: bool = False,
        transport: TransportFactory = mqtt_transport,
        connect_within_s: float = CONNECT_WITHIN_S,
        **given: Any,
    ) -> None:
        is_key = isinstance(writer_key, SigningKey)
        path = None if is_key or writer_key is None else str(writer_key)
        self._environment = Environment.read(writer_key=path, **given)
        self._signer: SigningKey | None = None
        if isinstance(writer_key, SigningKey):
            self._signer = writer_key
        elif not read_only:
            self._signer = self._environment.writer_key()
        self._connect_within_s = connect_within_s
        self._agent = assemble(self._environment, name="writer", signer=self._signer, transport=transport)
        self._changed = threading.Condition()
        self._receipts: dict[int, Receipt] = {}
        self._heard = Heard(self._agent, self._changed)
        self._refs = 0
        self._asking: list[Asking] = []
        self._compared: set[str] = set()

    # --- entering and leaving ----------------------------------------------------------------------------------------

    def __enter__(self) -> Writer:
        self._agent.load()
        self._agent.add_listener(self)
        self._agent.start()
        if not self._until(lambda: self._agent.connected, self._connect_within_s):
            reason = self._agent.disconnect_reason or "it does not answer"
            self.close()
            raise BrokerUnreachableError(f"no connection to the broker within {self._connect_within_s:g} s: {reason}")
        # Whoever holds a key sees to it that the broker holds the trust document, however short the visit.
        self._until(lambda: self._agent.replicator.knows_trust, self._connect_within_s)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session; harmless twice. What was signed and not read back is sent again by the next writer here."""
        self._agent.stop()

    @property
    def environment(self) -> Environment:
        """Where and whom this writer trusts."""
        return self._environment

    @property
    def trust(self) -> TrustDocument:
        """The trust document in force; the pin where none was found."""
        return self._agent.replicator.peer.trust

    @property
    def has_key(self) -> bool:
        """Whether it holds a writer's key, so that it may push and ask."""
        return self._signer is not None

    @property
    def agent(self) -> Agent:
        """The thread behind it."""
        return self._agent

    def on_notice(self, callback: Callback) -> Callable[[], None]:
        """Have *callback* called with each notice (``tars_settings.notices``); return a function that ends this.

        It runs on a thread of its own, where it may block: see :meth:`tars_settings.Fleet.on_notice`. Called before
        entering, it misses nothing.

        Raises:
            UsageError: it is a coroutine function.
        """
        hook, _ = until_ended(callback)
        return self._agent.board.add(hook)

    # --- in the agent's thread ---------------------------------------------------------------------------------------

    def on_session(self, event: SessionUp | SessionDown) -> None:
        """Wake whoever waits for the connection, and follow again what was followed."""
        if isinstance(event, SessionUp):
            self._heard.resume()
        with self._changed:
            self._changed.notify_all()

    def on_burst(self, notices: Sequence[Notice]) -> None:
        """Take note of progress."""
        with self._changed:
            for notice in notices:
                if isinstance(notice, Stage) and notice.ref in self._receipts:
                    self._receipts[notice.ref].take(notice)
            self._changed.notify_all()

    def on_message(self, received: Received) -> None:
        """Take note of presence, schemas and answers."""
        with self._changed:
            self._heard.take(received)
            for asking in self._asking:
                asking.take(received)
            self._changed.notify_all()

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        due_s = time.monotonic() + timeout_s
        with self._changed:
            while not condition():
                left_s = due_s - time.monotonic()
                if left_s <= 0:
                    return False
                # Not everything that is waited for has a notice of its own.
                self._changed.wait(min(left_s, LOOK_AGAIN_S))
        return True

    # --- looking -----------------------------------------------------------------------------------------------------

    def sync(self, scope: str, timeout_s: float = 6.0) -> str:
        """Catch up with a scope and return its state: ready, degraded, or joining where it took too long.

        The first time, the topics of its keys are compared with the broker too, for two seconds at most: what no head
        lists, such as what a thief signed, lies there alone.

        Raises:
            IllegalNameError: no such scope can be.
        """
        name = str(Scope.parse(scope))
        if name not in self._agent.replicator.scopes:
            self._agent.submit(lambda: self._agent.feed(Follow(name)))
        self._until(lambda: self._agent.replicator.state_of(name) != "joining", timeout_s)
        if name not in self._compared and self._agent.replicator.state_of(name) != "joining":
            self._compared.add(name)
            self._until(lambda: not self._agent.replicator.is_asking, COMPARE_WITHIN_S)
        return self._agent.replicator.state_of(name)

    def view(self, scope: str) -> dict[str, Register]:
        """Return the winners of a scope by key, tombstones too; call :meth:`sync` first."""
        found: dict[str, Register] = {}
        self._agent.call(lambda: found.update(self._agent.replicator.peer.registers.winners(scope)))
        return found

    def epoch(self, scope: str) -> int:
        """Return the epoch that ``expect_epoch`` is compared with; call :meth:`sync` first."""
        found: list[int] = []
        self._agent.call(lambda: found.append(self._agent.replicator.epoch_of(scope)))
        return found[0] if found else 0

    def presences(self, service: str | None = None, timeout_s: float = 2.0) -> list[Presence]:
        """Return what workers say of themselves, by service and instance.

        A worker whose process died is ``offline`` even where only a sibling's last will says so.
        """
        return self._heard.presences(service, timeout_s)

    def schemas(self, service: str, timeout_s: float = 2.0) -> list[bytes]:
        """Return the JSON Schemas that workers of a service published; advice, since anyone can publish one."""
        return self._heard.schemas(service, timeout_s)

    # --- asking ------------------------------------------------------------------------------------------------------

    def ask(
        self,
        scope: str,
        question: HistoryQuestion | tuple[Assignment, ...],
        within_s: float = 1.0,
        *,
        about: int = ASK_ALL_UP_TO,
        to: Sequence[str] = (),
    ) -> Iterator[Answered]:
        """Ask the live workers that read a scope, and yield what each answers, as it comes.

        Asked for is their history, or how assignments (encrypted where they are secrets) would fit; *about* so many of
        them are asked, all where they are fewer, or those that *to* names (``service@instance``). It ends when all of
        them answered, or a second after *within_s*, over which their answers are spread. Older releases never answer.

        Raises:
            ConfigurationError: this writer only looks, and has no key to sign a question with.
            NotGrantedError: no grant of its key touches the scope, or covers what is proposed: nobody would answer.
        """
        name = str(Scope.parse(scope))
        if self._signer is None:
            raise ConfigurationError("a question is signed, and TARS_SETTINGS_WRITER_KEY names no key")
        writer = self.trust.writer(self._signer.kid)
        if writer is None or not writer.touches(name):
            raise NotGrantedError(f"writer {self._signer.name!r} may not ask about {name}: no grant of it touches that")
        proposed = question if isinstance(question, tuple) else ()
        if barred := [item.key for item in proposed if not writer.may_write(name, item.key)]:
            raise NotGrantedError(f"writer {self._signer.name!r} may not write {name} {', '.join(barred)}")
        self.presences(Scope.parse(name).service)
        with self._changed:
            readers = [one for one, _ in self._heard.readers(name) if one.state != "offline"]
        share = chosen(readers, about, within_s, tuple(to), self._agent.clock)
        body = body_of(name, question, self.trust.version, self._agent.clock, by=_user(), **share)
        return self._answers(Asking(self._agent, self._changed, body), asked(body, readers), within_s)

    def _answers(self, asking: Asking, expected: set[tuple[str, str]], within_s: float) -> Iterator[Answered]:
        signer = self._signer
        if signer is None or not expected:
            return
        with self._changed:
            self._asking.append(asking)
        try:
            asking.open(signer, self._environment.fleet_id)
            yield from asking.heard(expected, time.monotonic() + within_s + GRACE_S)
        finally:
            asking.close()
            with self._changed:
                self._asking.remove(asking)

    # --- pushing -----------------------------------------------------------------------------------------------------

    def push(  # noqa: PLR0913 - each is a flag that an operator types
        self,
        target: type[BaseSettings] | str,
        values: Mapping[str, Any],
        *,
        unset: Iterable[str] = (),
        instance: str | None = None,
        secret: Collection[str] = (),
        plain: Collection[str] = (),
        reason: str = "",
        by: str | None = None,
        expect_epoch: int | None = None,
        force: bool = False,
        cosign: bool = False,
        revert_after_s: float | None = None,
        canary: str = "",
        ask_everyone: bool = False,
        timeout_s: float = 10.0,
    ) -> Receipt:
        """Sign and publish a change of one scope, and return its receipt as soon as it is signed and stored.

        *target* is a Settings class, or a scope such as ``stt-worker``, ``stt-worker@pi-3`` or ``_all``. Values are
        checked against the class, else against every schema that workers of the service published. A key is encrypted
        when the class, a schema, an earlier signed delta or *secret* says so; *plain* says that it is none. With
        *cosign* nothing is signed or published: the receipt's ``draft`` is what cosigners sign (``keys cosign``), and
        :meth:`push_cosigned` takes it from there. About a hundred
        workers are asked to report at once; with *ask_everyone* all of them, spread at 500 a second.

        With *revert_after_s* (1 s to a week) every worker goes back by itself to what was before, so many seconds after
        it took the change, unless a later push of the keys, or :meth:`confirm`, comes first. *canary* (32 hex digits)
        makes it a part of one proposal that is tried on some instances.

        Raises:
            InvalidValueError: values do not fit; all bad keys are named together. Nothing was signed.
            PlainOrSecretError: nobody said whether the first value of a key is a secret.
            NotCosignedError: the grant demands cosignatures. Nothing was signed.
            NotGrantedError, NotSyncedError, ConflictError, EpochExhaustedError: the answer is no. Nothing was signed.
            TooLargeError: it does not fit a delta; the message says which split would.
            RefusedError: what to go back to can't be said in one assignment a key.
            UsageError: no such trial can be.
        """
        trial_s = trial_seconds(revert_after_s)
        scope = self._scope_of(target, instance)
        try:
            assign = self.assignments(target, values, unset=unset, instance=instance, secret=secret, plain=plain)
        except errors.TarsSettingsError:
            values = {}  # a traceback with locals would show what was to become a secret
            raise
        said: dict[str, Any] = {"by": by, "reason": reason, "expect_epoch": expect_epoch, "force": force}
        said |= {"trial_s": trial_s, "canary": canary} if trial_s else {}
        return self._send(scope, assign, draft=cosign, ask_everyone=ask_everyone, timeout_s=timeout_s, **said)

    def assignments(
        self,
        target: type[BaseSettings] | str,
        values: Mapping[str, Any],
        *,
        unset: Iterable[str] = (),
        instance: str | None = None,
        secret: Collection[str] = (),
        plain: Collection[str] = (),
    ) -> tuple[Assignment, ...]:
        """Return what :meth:`push` would sign, typed and checked, secrets encrypted; a proposal for :meth:`ask`.

        Raises:
            InvalidValueError, PlainOrSecretError: as :meth:`push` does.
        """
        scope = self._scope_of(target, instance)
        self.sync(scope)
        schemas = functools.partial(self._schemas_of, scope)
        try:
            wish = Wish(scope, values, tuple(unset), secret, plain)
            return assignments(wish, target, schemas, self.view(scope), self._sealed(scope))
        except errors.TarsSettingsError as error:
            refusal = type(error)(*error.args)
        # Out here, and without the values: a traceback with locals would show what was to become a secret.
        values, wish = {}, Wish(scope, {})
        raise refusal

    def push_cosigned(self, draft: bytes, *, force: bool = False, timeout_s: float = 10.0) -> Receipt:
        """Sign and publish a draft that others cosigned, exactly as they saw it.

        Raises:
            MalformedError: it is no draft of this fleet.
            RefusedError: another writer is to sign it.
            ConflictError: its scope moved on since it was made. Nothing was signed.
            NotCosignedError: cosignatures are missing, or do not count. Nothing was signed.
        """
        found = read_draft(draft, self._environment.fleet_id)
        if self._signer is None or self._signer.kid != found.kid:
            raise RefusedError(f"the draft is for the writer's key {found.kid} to sign, and this is another")
        body = found.body
        self.sync(body.scope)
        said: dict[str, Any] = {"ack": body.ack or None, "force": force}
        said |= {"trial_s": body.trial.within_s} if isinstance(body.trial, Trial) else {}
        return self._send(body.scope, body.assign, cosigned=found.raw_body, timeout_s=timeout_s, **said)

    def push_as_is(
        self, scope: str, assign: tuple[Assignment, ...], *, reason: str = "", timeout_s: float = 10.0, **more: Any
    ) -> Receipt:
        """Sign and publish assignments that were checked and encrypted before; they keep their ciphertexts.

        For values that are to be signed anew: old ones, those of a lost key, and secrets under another key id. One that
        says what it replaces (``over``) replaces that or nothing. *more* are *by* and *expect_epoch* of :meth:`push`,
        and what else a :class:`tars_settings.gossip.effects.Push` can ask.

        Raises:
            ConflictError: something else is there by now. Nothing was signed.
            NotGrantedError, NotSyncedError, EpochExhaustedError: the answer is no. Nothing was signed.
            TooLargeError: it does not fit a delta; the message says which split would.
        """
        self.sync(scope)
        return self._send(scope, assign, reason=reason, timeout_s=timeout_s, **more)

    def _send(
        self,
        scope: str,
        assign: tuple[Assignment, ...],
        *,
        by: str | None = None,
        timeout_s: float,
        ask_everyone: bool = False,
        **said: Any,
    ) -> Receipt:
        receipt = Receipt(scope, tuple(item.key for item in assign), self.wait)
        with self._changed:
            self._refs += 1
            ref = self._refs
            self._receipts[ref] = receipt
        self.presences(Scope.parse(scope).service)
        ack = said.pop("ack", None) or self._ack(scope, everyone=ask_everyone)
        receipt.ack_of, receipt.spread_s, receipt.trial_s = ack.of, ack.within_s, said.get("trial_s", 0)
        at = self._agent.clock.wall().isoformat(timespec="seconds").replace("+00:00", "Z")
        push = Push(ref, scope, assign, at=at, by=_user() if by is None else by, ack=ack, **said)
        receipt.pushed_s = time.monotonic()
        self._agent.submit(lambda: self._agent.feed(push))
        if not self._until(lambda: receipt.stage != "", timeout_s):
            raise errors.NotSyncedError(f"{scope} could not be caught up within {timeout_s:g} s")
        if receipt.stage == "refused":
            raise _refusal(receipt)
        return receipt

    def unset(self, target: type[BaseSettings] | str, keys: Iterable[str], **more: Any) -> Receipt:
        """Take a scope's opinion on *keys* away; the next lower scope's, or the default, shows again."""
        return self.push(target, {}, unset=keys, **more)

    # --- trials ------------------------------------------------------------------------------------------------------

    def trials(self, scope: str) -> tuple[OpenTrial, ...]:
        """Return the trials of a scope that nothing ended yet, oldest first, whether workers went back already or not.

        Call :meth:`sync` first.
        """
        return open_trials(self.view(scope))

    def confirm(self, target: type[BaseSettings] | str, *, epoch: int | None = None, **more: Any) -> list[Receipt]:
        """Make what is on trial in a scope stay (*epoch*: of that push alone), undone by now or not.

        Each trial is pushed again, without an end; encrypted values keep their ciphertexts. What is undone for longer
        than it was tried must be named by its epoch. *more* are *instance*, *reason*, *by* and *timeout_s* of
        :meth:`push`.

        Raises:
            NothingOnTrialError: there is nothing to confirm.
            RefusedError: a newer key lies above or below one of its keys; signed anew it would hide that one.
            ConflictError: someone has pushed something newer in this moment. What was confirmed before, is.
            NotGrantedError, NotSyncedError: the answer is no.
        """
        wall = self._agent.clock.wall()
        return self._settled(target, epoch, OpenTrial.confirmed, lambda one: one.is_fresh(wall), **more)

    def revert(self, target: type[BaseSettings] | str, *, epoch: int | None = None, **more: Any) -> list[Receipt]:
        """End what is on trial in a scope now, and for good: every worker goes back to what was before.

        Otherwise as :meth:`confirm`.
        """
        return self._settled(target, epoch, OpenTrial.reverted, **more)

    def _settled(
        self,
        target: type[BaseSettings] | str,
        epoch: int | None,
        assign: Callable[[OpenTrial], tuple[Assignment, ...]],
        is_meant: Callable[[OpenTrial], bool] = lambda _: True,
        instance: str | None = None,
        **more: Any,
    ) -> list[Receipt]:
        scope = self._scope_of(target, instance)
        self.sync(scope)
        known = self.trials(scope)
        found = [one for one in known if (is_meant(one) if epoch is None else epoch == one.delta.stamp.epoch)]
        if not found:
            which = "" if epoch is None else f" by the push of epoch {epoch}"
            undone = f"; undone long since: {', '.join(map(str, known))}" if known else ""
            raise errors.NothingOnTrialError(f"nothing is on trial in {scope}{which}{undone}")
        return [
            self.push_as_is(scope, assign(one), instead_of=one.delta.stamp.digest.hex(), **more)
            for one in found
            if one.check()
        ]

    def _scope_of(self, target: type[BaseSettings] | str, instance: str | None) -> str:
        service = target if isinstance(target, str) else service_of(target)
        if service is None:
            raise NoServiceError(f"{target!r} names no service")
        if instance is not None:
            if "@" in service or service == ALL:
                raise UsageError(f"{service!r} is not a service alone; leave the instance out")
            service = f"{service}@{instance}"
        return str(Scope.parse(service))

    def _sealed(self, scope: str) -> Callable[[str, Any, Algorithm], Ciphertext]:
        return lambda key, value, alg: sealed(self._environment, scope, key, value, alg, self._agent.clock.token)

    def _schemas_of(self, scope: str) -> list[bytes]:
        service = Scope.parse(scope).service
        return [] if service is None else self.schemas(service)

    def _ack(self, scope: str, *, everyone: bool) -> Ack:
        with self._changed:
            live = [one for one, _ in self._heard.readers(scope) if one.state != "offline"]
        if len(live) <= AT_ONCE_UP_TO:
            return Ack(1, 0.0)
        if everyone or len(live) <= ASK_ALL_UP_TO:
            return Ack(1, len(live) / ANSWERS_PER_S)
        return Ack(len(live) // ASK_ALL_UP_TO, 1.0)

    # --- results -----------------------------------------------------------------------------------------------------

    def wait(
        self,
        receipt: Receipt,
        timeout_s: float,
        need: Need,
        on_reply: Callable[[Reply], None] | None = None,
        enough: Callable[[Report], bool] | None = None,
    ) -> Report:
        """Wait as :meth:`Receipt.wait` says."""
        due_s = time.monotonic() + timeout_s
        ends = ("accepted", *ENDS) if need == "accepted" else ENDS
        told: set[tuple[str, str]] = set()
        with self._changed:
            while True:
                report = self._report(receipt)
                for reply in report.replies:
                    if on_reply is not None and reply.fate != "silent" and (reply.service, reply.instance) not in told:
                        told.add((reply.service, reply.instance))
                        on_reply(reply)
                silent = any(reply.fate == "silent" for reply in report.replies)
                failed = receipt.stage in FAILURES
                satisfied = enough is not None and enough(report)
                done = receipt.stage in ends and (need != "applied" or not silent or failed or satisfied)
                left_s = due_s - time.monotonic()
                if done or left_s <= 0:
                    return report
                self._changed.wait(left_s)

    def _report(self, receipt: Receipt) -> Report:
        """Return what is known of a push now; under the lock."""
        replies = self._heard.replies(receipt)
        asked = sum(1 for reply in replies if reply.fate not in ("offline", "unasked"))
        return Report(receipt.stage, receipt.reason, tuple(replies), asked)


def _user() -> str:
    # No entry for this user in the password database and no variable that names one: a container.
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""


def _refusal(receipt: Receipt) -> errors.TarsSettingsError:
    kind = getattr(errors, receipt.error, RefusedError)
    refusal: errors.TarsSettingsError = kind(receipt.reason)
    return refusal
