"""A broker as a model: it keeps the last publish of a topic, and is trusted with nothing."""

from __future__ import annotations

from collections.abc import Iterable


def matches(topic_filter: str, topic: str) -> bool:
    """Return whether a topic filter matches a topic (MQTT 5, section 4.7), ``+`` and a trailing ``#``.

    >>> matches("a/+", "a/b"), matches("a/+", "a/b/c"), matches("a/#", "a"), matches("a/#", "a/b/c")
    (True, False, True, True)
    """
    filters, levels = topic_filter.split("/"), topic.split("/")
    if filters[-1] == "#":
        filters.pop()
        if len(levels) < len(filters):
            return False
        levels = levels[: len(filters)]
    return len(filters) == len(levels) and all(one in ("+", level) for one, level in zip(filters, levels, strict=True))


class BrokerModel:
    """Retained messages and each session's subscriptions. ``ever`` is all that a topic ever retained."""

    def __init__(self) -> None:
        self.up = True
        self.retained: dict[str, bytes] = {}
        self.ever: dict[str, list[bytes]] = {}
        self._exact: dict[str, set[str]] = {}
        self._wild: dict[str, set[str]] = {}

    def open(self, session: str) -> None:
        """Begin a clean session."""
        self._exact[session] = set()
        self._wild[session] = set()

    def shut(self, session: str) -> None:
        """End a session; its subscriptions go."""
        self._exact.pop(session, None)
        self._wild.pop(session, None)

    def sessions(self) -> tuple[str, ...]:
        """Return the open sessions."""
        return tuple(self._exact)

    def subscribe(self, session: str, filters: Iterable[str]) -> None:
        """Add subscriptions."""
        for one in filters:
            (self._wild if is_wild(one) else self._exact)[session].add(one)

    def unsubscribe(self, session: str, filters: Iterable[str]) -> None:
        """Drop subscriptions."""
        for one in filters:
            (self._wild if is_wild(one) else self._exact).get(session, set()).discard(one)

    def replay(self, topic_filter: str) -> list[tuple[str, bytes]]:
        """Return the retained messages that a filter matches, oldest topic first."""
        if not is_wild(topic_filter):
            return [(topic_filter, self.retained[topic_filter])] if topic_filter in self.retained else []
        return [(topic, payload) for topic, payload in self.retained.items() if matches(topic_filter, topic)]

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> list[str]:
        """Keep the message where it is retained (an empty one clears the topic) and return who is subscribed."""
        if retain and payload:
            self.retained[topic] = payload
            ever = self.ever.setdefault(topic, [])
            if payload not in ever:
                ever.append(payload)
        elif retain:
            self.retained.pop(topic, None)
        return [
            session
            for session, exact in self._exact.items()
            if topic in exact or any(matches(one, topic) for one in self._wild[session])
        ]


def is_wild(topic_filter: str) -> bool:
    """Return whether a filter has a wildcard."""
    return "+" in topic_filter or "#" in topic_filter
