"""Topics of a fleet: formatting and parsing, each the other's inverse.

Whatever does not parse here is never subscribed to, stored under, logged raw or used as a path. At most 7 slashes and
256 bytes (AWS IoT's limits); a key's dots are ``__`` on the topic (NATS refuses dots).
"""

from __future__ import annotations

import functools
import re
from typing import Final

import msgspec

from tars_settings.core.names import is_key, is_kid, is_prefix, is_scope, is_service
from tars_settings.errors import IllegalNameError

MAX_TOPIC_BYTES: Final = 256
_DECIMAL: Final = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


class TrustTopic(msgspec.Struct, frozen=True):
    """The trust document, or one version of its chain."""

    version: int | None = None


class KeyTopic(msgspec.Struct, frozen=True):
    """The delta that holds a key's winner."""

    scope: str
    key: str


class IndexTopic(msgspec.Struct, frozen=True):
    """The index of one writer's head in a scope."""

    scope: str
    kid: str


class SegmentTopic(msgspec.Struct, frozen=True):
    """A segment of one writer's head in a scope."""

    scope: str
    kid: str
    n: int


class FloorTopic(msgspec.Struct, frozen=True):
    """The floor of a scope."""

    scope: str


class FloorSegmentTopic(msgspec.Struct, frozen=True):
    """A part of a floor's list, named by the hash of its bytes: floors of two writers never share a topic."""

    scope: str
    hash: str


class SchemaTopic(msgspec.Struct, frozen=True):
    """A JSON Schema in use by workers of a service."""

    scope: str
    hash: str


class PresenceTopic(msgspec.Struct, frozen=True):
    """A worker's report on itself."""

    service: str
    instance: str


class MarkerTopic(msgspec.Struct, frozen=True):
    """A peer's own, never retained: what it publishes behind a batch of probes to see it come back."""

    nonce: str


class QuestionTopic(msgspec.Struct, frozen=True):
    """A signed question to the workers that read a scope, never retained. The scope's live filter covers it."""

    scope: str


class AnswerTopic(msgspec.Struct, frozen=True):
    """One worker's answer to the question with this nonce, never retained."""

    nonce: str
    service: str
    instance: str


Topic = (
    TrustTopic
    | KeyTopic
    | IndexTopic
    | SegmentTopic
    | FloorTopic
    | FloorSegmentTopic
    | SchemaTopic
    | PresenceTopic
    | MarkerTopic
    | QuestionTopic
    | AnswerTopic
)


class Topics(msgspec.Struct, frozen=True):
    """Formats and parses the topics under one pair of prefixes.

    >>> topics = Topics()
    >>> topics.format(KeyTopic("stt-worker", "audio.gain"))
    'system/config/stt-worker/audio__gain'
    >>> topics.parse("system/config/stt-worker/audio__gain")
    KeyTopic(scope='stt-worker', key='audio.gain')
    >>> topics.parse("system/config/stt-worker/audio.gain") is None
    True

    Raises:
        IllegalNameError: a prefix does not fit the grammar, or one lies below the other.
    """

    prefix: str = "system/config"
    health_prefix: str = "system/health"

    def __post_init__(self) -> None:
        for prefix in (self.prefix, self.health_prefix):
            if not is_prefix(prefix):
                raise IllegalNameError(f"{ascii(prefix)[:80]} is no topic prefix: one to three plain levels")
        if f"{self.prefix}/".startswith(f"{self.health_prefix}/") or f"{self.health_prefix}/".startswith(
            f"{self.prefix}/"
        ):
            raise IllegalNameError("the prefixes of settings and of presence must not contain each other")

    def format(self, topic: Topic) -> str:
        """Return the topic's text.

        Raises:
            IllegalNameError: it would exceed 256 bytes.
        """
        text = self._format(topic)
        if len(text) > MAX_TOPIC_BYTES:
            raise IllegalNameError(f"the topic of {ascii(topic)[:120]} is over {MAX_TOPIC_BYTES} bytes")
        return text

    def _format(self, topic: Topic) -> str:  # noqa: C901, PLR0911 - a table of topics
        match topic:
            case TrustTopic(version):
                return f"{self.prefix}/_trust" if version is None else f"{self.prefix}/_trust/{version}"
            case KeyTopic(scope, key):
                return f"{self.prefix}/{scope}/{key.replace('.', '__')}"
            case IndexTopic(scope, kid):
                return f"{self.prefix}/{scope}/_head/{kid}"
            case SegmentTopic(scope, kid, n):
                return f"{self.prefix}/{scope}/_head/{kid}/{n}"
            case FloorTopic(scope):
                return f"{self.prefix}/{scope}/_floor"
            case FloorSegmentTopic(scope, digest):
                return f"{self.prefix}/{scope}/_floor/{digest}"
            case SchemaTopic(scope, digest):
                return f"{self.prefix}/{scope}/_schema/{digest}"
            case PresenceTopic(service, instance):
                return f"{self.health_prefix}/{service}/{instance}"
            case MarkerTopic(nonce):
                return f"{self.health_prefix}/_marker/{nonce}/m"
            case QuestionTopic(scope):
                return f"{self.prefix}/{scope}/_question"
            case AnswerTopic(nonce, service, instance):
                return f"{self.health_prefix}/_answer/{nonce}/{service}/{instance}"

    def parse(self, text: str) -> Topic | None:
        """Return what *text* addresses, or None when it is nothing of ours."""
        if len(text) > MAX_TOPIC_BYTES or not text.isascii():
            return None
        return _parse(self.prefix, self.health_prefix, text)

    def live_filter(self, scope: str) -> str:
        """Return the filter of a scope's key topics (and its floor, and questions)."""
        return f"{self.prefix}/{scope}/+"

    def head_filter(self, scope: str) -> str:
        """Return the filter of a scope's indexes and segments, for keepers."""
        return f"{self.prefix}/{scope}/_head/#"

    def schema_filter(self, scope: str) -> str:
        """Return the filter of the schemas in use in a service."""
        return f"{self.prefix}/{scope}/_schema/+"

    def presence_filter(self, service: str | None = None) -> str:
        """Return the filter of the presence of a service's workers, or of all workers."""
        return f"{self.health_prefix}/{service or '+'}/+"

    def answer_filter(self, nonce: str) -> str:
        """Return the filter of the answers to one question."""
        return f"{self.health_prefix}/_answer/{nonce}/+/+"


@functools.lru_cache(maxsize=1024)
def _parse(prefix: str, health_prefix: str, text: str) -> Topic | None:
    if text.startswith(f"{prefix}/"):
        return _parse_config(text[len(prefix) + 1 :])
    if text.startswith(f"{health_prefix}/"):
        return _parse_health(text[len(health_prefix) + 1 :].split("/"))
    return None


def _parse_config(text: str) -> Topic | None:
    match text.split("/"):
        case ["_trust"]:
            return TrustTopic()
        case ["_trust", n] if _DECIMAL.fullmatch(n):
            return TrustTopic(int(n))
        case [scope, *rest] if is_scope(scope):
            return _parse_scoped(scope, rest)
    return None


def _parse_scoped(scope: str, parts: list[str]) -> Topic | None:
    match parts:
        case ["_floor"]:
            return FloorTopic(scope)
        case ["_floor", digest] if is_kid(digest):
            return FloorSegmentTopic(scope, digest)
        case ["_head", kid] if is_kid(kid):
            return IndexTopic(scope, kid)
        case ["_head", kid, n] if is_kid(kid) and _DECIMAL.fullmatch(n):
            return SegmentTopic(scope, kid, int(n))
        case ["_schema", digest] if is_kid(digest):
            return SchemaTopic(scope, digest)
        case ["_question"]:
            return QuestionTopic(scope)
        case [leaf] if "." not in leaf and is_key(key := leaf.replace("__", ".")):
            return KeyTopic(scope, key)
    return None


def _parse_health(parts: list[str]) -> Topic | None:
    match parts:
        case ["_marker", nonce, "m"] if is_kid(nonce):
            return MarkerTopic(nonce)
        case ["_answer", nonce, service, instance] if is_kid(nonce) and is_service(service) and is_service(instance):
            return AnswerTopic(nonce, service, instance)
        case [service, instance] if is_service(service) and is_service(instance):
            return PresenceTopic(service, instance)
    return None
