"""Asking for the trust document, and for the steps that lead to one that can't be followed yet."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from tars_settings.core.topics import TrustTopic
from tars_settings.gossip.peer import Peer
from tars_settings.gossip.probe import Prober

ASK_PAUSE_S: Final = 1.0
SECOND_ATTEMPT_S: Final = 30.0
ASKS_FOR_TRUST: Final = frozenset({"trust-behind", "chain-missing"})
"""Reasons for holding something back that a later trust document may end."""


class TrustQuestions:
    """When to ask, and when what waited for an answer is void. *random* gives numbers in [0, 1)."""

    def __init__(self, peer: Peer, prober: Prober, random: Callable[[], float]) -> None:
        self.topic = peer.topics.format(TrustTopic())
        self.answered = False
        """Whether the question was answered, or given up, since reset()."""
        self.due_s = math.inf
        self._peer = peer
        self._prober = prober
        self._random = random
        self._asked_s = -math.inf
        self._steps: set[str] = set()
        self._held_upto = 0
        self._failed_once = False

    def reset(self) -> None:
        """Begin anew: another session."""
        self.answered = False
        self.due_s = math.inf
        self._failed_once = False

    def want(self, now_s: float) -> None:
        """Something names a trust document that is not here: ask for it, once a second at most."""
        self.due_s = min(self.due_s, max(now_s, self._asked_s + ASK_PAUSE_S))

    def ask(self, now_s: float) -> None:
        """Ask for the document in force."""
        self.due_s = math.inf
        self._asked_s = now_s
        self._steps.clear()
        # What is held later may name a document that is published after this question.
        self._held_upto = self._peer.held_so_far
        self._prober.ask([self.topic], first=True)

    def ask_chain(self) -> None:
        """Ask for every step of the chain that is held, so that a missing one is published."""
        self._prober.ask([self._text(version) for version in self._peer.chain.versions()])

    def concerns(self, text: str) -> bool:
        """Return whether an answer on this topic is to a question of ours."""
        return text == self.topic or text in self._steps

    def on_answer(self, now_s: float) -> tuple[str, ...]:
        """Ask for the steps that are missing; once all answers are here, return the topics of what is void by them."""
        steps = {self._text(version) for version in self._peer.wanted_versions()} - self._steps
        if steps:
            self._steps |= steps
            self._prober.ask(sorted(steps), first=True)
        if self._prober.asked(self.topic) or any(self._prober.asked(step) for step in self._steps):
            return ()
        self.answered = True
        return self._peer.release_held(chain_too=self._gave_up_steps(now_s), upto=self._held_upto)

    def _gave_up_steps(self, now_s: float) -> bool:
        """Return whether missing steps were asked for twice: who has them may be about to publish."""
        if not self._peer.lacks_steps or self._failed_once:
            self._failed_once = False
            return True
        self._failed_once = True
        self.due_s = min(self.due_s, now_s + SECOND_ATTEMPT_S * (0.5 + self._random() / 2))
        return False

    def _text(self, version: int) -> str:
        return self._peer.topics.format(TrustTopic(version))
