"""What brokers do and don't, and what each limit means for a fleet, in words: data only, for people to read.

``docs/brokers.rst`` shows them beside what the conformance suite measured. Whoever measures a broker looks its answer
up here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

ANY_OTHER: Final = "*"


@dataclass(frozen=True)
class Fact:
    """Something that brokers differ in. ``asks`` says what is measured; of what is not ``fine``, ``limits`` has words.

    The words under ``ANY_OTHER`` are those of an answer that is a measure, such as a number.
    """

    asks: str
    fine: tuple[str, ...] = ()
    limits: Mapping[str, str] = field(default_factory=dict)

    def limit(self, answer: str) -> str:
        """Return what an answer means for a fleet; nothing where it is fine.

        >>> FACTS["wildcard replay"].limit("all"), FACTS["wildcard replay"].limit("1,020")[:40]
        ('', 'A wildcard brings only a part of what is')
        """
        if answer in self.fine:
            return ""
        return self.limits.get(answer, self.limits.get(ANY_OTHER, ""))


FACTS: Final[Mapping[str, Fact]] = {
    "version 5": Fact(
        "what it answers to CONNECT in MQTT 5",
        ("accepted", "not asked for"),
        {
            "refused": "It speaks MQTT 3.1.1 alone. The fleet steps down by itself.",
            "hangs up": "It hangs up on MQTT 5. The fleet asks twice, then steps down to 3.1.1 by itself.",
            "silence": "It does not answer MQTT 5: the first connection of a process waits some seconds before it "
            "steps down to 3.1.1. TARS_SETTINGS_PROTOCOL=3.1.1 saves them.",
        },
    ),
    "retain as published": Fact(
        "whether a live message says that it is retained",
        ("yes",),
        {
            "no": "Live messages do not say what the broker holds: a value that was lost or overwritten there is found "
            "by an audit, about every ten minutes, and not at once."
        },
    ),
    "size guard": Fact(
        "whether it keeps back messages that are larger than the reader can take",
        ("yes",),
        {
            "no": "Messages of any size reach the workers: whoever may publish below the prefix can fill their memory. "
            "Let the broker limit the size of messages, and who may publish."
        },
    ),
    "48 KiB retained": Fact(
        "whether it keeps the largest envelope that there may be",
        ("yes",),
        {"no": "A large push ends as unconfirmed. Raise the broker's limit on the size of a message to 64 KiB."},
    ),
    "empty clears": Fact(
        "whether an empty retained message clears a topic",
        ("yes",),
        {"no": "The topics of deleted keys stay on the broker; they do no harm and take room."},
    ),
    "wildcard replay": Fact(
        "how many of 3,000 retained messages a wildcard brings at QoS 1",
        ("all",),
        {
            ANY_OTHER: "A wildcard brings only a part of what is retained, and does not say so. The fleet asks by "
            "exact topic and lacks nothing; other tools, such as mosquitto_sub, show less than there is."
        },
    ),
    "replays only what was asked for": Fact(
        "whether a reader is spared what other readers asked for",
        ("yes",),
        {"no": "Readers get what others asked for, too: more traffic, which the fleet passes over."},
    ),
    "overlapping filters": Fact(
        "how often a message comes that two subscriptions of a reader match",
        ("once",),
        {"twice": "Some messages come twice. The second copy is a duplicate, and nothing comes of it."},
    ),
    "dot in a topic": Fact(
        "whether it takes topics with a dot",
        ("taken",),
        {ANY_OTHER: "Topics with a dot are refused. The fleet's have none; a prefix of your own must not either."},
    ),
    "last will": Fact(
        "whether it publishes the retained last will of a connection that was lost",
        ("yes",),
        {"no": "A worker that died is told apart from one that is silent only by the age of its report."},
    ),
    "kill -9": Fact(
        "what it holds when it is started again after kill -9, as configured here",
        ("holds all",),
        {
            "is empty": "A crash of the broker empties it. Workers and writers that run fill it again; what none of "
            "them holds is gone. Have it save retained messages: for mosquitto, persistence true, autosave_on_changes "
            "true and autosave_interval 1."
        },
    ),
    "many keys": Fact("with how many keys a fresh worker was seen to join, and what a wildcard brought of them"),
}
"""By name, in the order of the table."""

TOGETHER: Final[Mapping[str, Fact]] = {
    "conflicting writes and deletes over a cut": Fact(
        "what two workers and both brokers hold after both sides of a bridge wrote and deleted while it was cut",
        ("the same on both sides",),
    ),
    "loss of a member": Fact(
        "what the others show, and all once it is back, after each of three members was killed in turn, the leader too",
        ("nothing is lost",),
    ),
}
"""Facts of several brokers that work together."""
