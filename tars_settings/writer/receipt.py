"""What becomes of a push: how strong it is at the broker, and what each worker said of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from tars_settings.gossip.effects import Stage

Need = Literal["accepted", "retained", "applied"]
Fate = Literal["applied", "refused", "silent", "unasked", "offline"]
ENDS: Final = ("retained", "superseded", "unconfirmed", "refused", "drafted")
FAILURES: Final = ("superseded", "unconfirmed", "refused")


class Reply(msgspec.Struct, frozen=True):
    """What became of a push at one worker; ``after_s`` is how long after the push its report arrived."""

    service: str
    instance: str
    fate: Fate
    message: str = ""
    shadowed: dict[str, str] = {}
    after_s: float = 0.0


class Report(msgspec.Struct, frozen=True):
    """The result of a push: how strong it is at the broker, and what each worker said.

    ``asked`` is how many live workers were asked to report at once: all of a small fleet, about a hundred of a large.
    """

    stage: str
    reason: str = ""
    replies: tuple[Reply, ...] = ()
    asked: int = 0

    @property
    def applied(self) -> int:
        """How many workers applied it."""
        return sum(1 for reply in self.replies if reply.fate == "applied")

    @property
    def refused(self) -> tuple[Reply, ...]:
        """The workers whose model refused it."""
        return tuple(reply for reply in self.replies if reply.fate == "refused")


class Receipt:
    """A push that was signed. ``stage`` grows: signed, accepted, then retained, superseded or unconfirmed.

    One that was made for cosigners is ``drafted`` and no more: ``draft`` is what travels to them.
    ``trial_s`` is after how many seconds workers go back by themselves, 0 where they do not.
    ``spread_s`` is how long the workers that were asked spread their answers over.
    """

    def __init__(self, scope: str, keys: tuple[str, ...], wait: Waiting) -> None:
        self.scope = scope
        self.keys = keys
        self.gen = 0
        self.epoch = 0
        self.digest = ""
        self.stage = ""
        self.reason = ""
        self.synced = True
        self.error = ""
        self.draft = b""
        self.ack_of = 1
        self.trial_s = 0
        self.spread_s = 0.0
        self.pushed_s = time.monotonic()
        self._wait = wait

    def __repr__(self) -> str:
        return f"<Receipt {self.scope} epoch {self.epoch} {self.stage}>"

    def take(self, stage: Stage) -> None:
        """Take note of progress; in the agent's thread, under the writer's lock."""
        self.stage, self.reason, self.error, self.draft = stage.stage, stage.reason, stage.error, stage.draft
        if stage.epoch:
            self.gen, self.epoch, self.digest = stage.gen, stage.epoch, stage.digest
        if stage.stage == "signed":
            self.synced = stage.synced

    def wait(
        self,
        timeout_s: float = 5.0,
        need: Need = "applied",
        *,
        on_reply: Callable[[Reply], None] | None = None,
        enough: Callable[[Report], bool] | None = None,
    ) -> Report:
        """Wait for a result of the strength *need* for *timeout_s* at most, and return how far it came.

        ``applied`` waits for a report of every live worker that was asked, or until *enough* says so of what is known
        of a push that was read back; *on_reply* is told of each report as it comes. Both are called by the thread that
        waits, and must not block.
        """
        return self._wait(self, timeout_s, need, on_reply, enough)


Waiting = Callable[
    [Receipt, float, Need, Callable[[Reply], None] | None, Callable[[Report], bool] | None],
    Report,
]
