"""Questions of operators to workers, and their answers. Never retained: whoever is not there is not asked.

A question is signed by a writer, on its scope's topic; an answer is a worker's own word, as presence is, on a topic
that only this question has. What a *history* answer carries is signed itself, and is believed for that alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, Literal

import msgspec

from tars_settings.core.delta import MAX_ASSIGNMENTS, Assignment, check_assignments
from tars_settings.core.names import is_key, is_scope, is_service
from tars_settings.core.stamp import MAX_EPOCH
from tars_settings.core.wire import (
    MAX_ENVELOPE_BYTES,
    Kid,
    check_value,
    decode_canonical,
    decode_plain,
    encode,
    one_empty_tuple,
)
from tars_settings.errors import MalformedError

MAX_ANSWER_BYTES: Final = MAX_ENVELOPE_BYTES + 4096
"""Of one message. Several entries of a history stay within 48 KiB together; one alone may have as much."""
MAX_TO: Final = 128
MAX_WITHIN_S: Final = 60.0
MAX_HISTORY: Final = 1000


class HistoryQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which deltas of the scope were applied: at most ``limit`` of them, the newest, none at or below ``since``.

    ``key`` leaves those that touch nothing at, above or below it; ``since`` is an epoch of whatever gen.
    """

    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_HISTORY)]
    key: str = ""
    since: Annotated[int, msgspec.Meta(ge=0, le=MAX_EPOCH)] = 0


class QuestionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is signed: exactly one of ``history`` and ``propose``.

    ``of`` is the share that is to answer: the workers whose hash with the nonce falls in 1/``of``, each after a random
    delay of at most ``within_s`` seconds; where ``to`` names workers (``service@instance``), those and no others.
    ``propose`` are assignments that a worker validates with its own model, without applying them.
    """

    scope: str
    trust: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    nonce: Kid
    of: Annotated[int, msgspec.Meta(ge=1, le=2**31)] = 1
    within_s: Annotated[float, msgspec.Meta(ge=0, le=MAX_WITHIN_S)] = 0.0
    to: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_TO)] = ()
    history: HistoryQuestion | msgspec.UnsetType = msgspec.UNSET
    propose: Annotated[tuple[Assignment, ...], msgspec.Meta(min_length=1, max_length=MAX_ASSIGNMENTS)] | (
        msgspec.UnsetType
    ) = msgspec.UNSET
    at: Annotated[str, msgspec.Meta(max_length=40)] = ""
    by: Annotated[str, msgspec.Meta(max_length=128)] = ""
    ext: dict[str, Any] = {}  # msgspec copies an empty default

    def __post_init__(self) -> None:
        one_empty_tuple(self)

    def asks(self, service: str, instance: str) -> bool:
        """Return whether a worker is to answer."""
        if self.to:
            return f"{service}@{instance}" in self.to
        hashed = hashlib.blake2b(f"{self.nonce} {service}@{instance}".encode(), digest_size=8).digest()
        return int.from_bytes(hashed, "big") % self.of == 0


class Fit(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker says of a proposal: it fits, or is refused, with the message (without values) and the keys.

    ``shadowed`` maps proposed keys to the source of the worker's own that would win all the same.
    """

    fate: Literal["fits", "refused"]
    message: str = ""
    keys: tuple[str, ...] = ()
    shadowed: dict[str, str] = {}


class AnswerBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """A worker's answer, or a part of it: ``part`` of ``parts``, from 1. Unknown fields are passed over.

    ``history`` are envelopes verbatim, newest first over all parts; ``more`` says that it has more than was asked for.
    """

    v: int
    service: str
    instance: str
    part: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    parts: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    history: tuple[msgspec.Raw, ...] = ()
    more: bool = False
    fit: Fit | msgspec.UnsetType = msgspec.UNSET
    ext: dict[str, Any] = {}

    def __post_init__(self) -> None:
        one_empty_tuple(self)

    @property
    def worker(self) -> str:
        """Who says so, as ``service@instance``."""
        return f"{self.service}@{self.instance}"


class Question(msgspec.Struct, frozen=True, eq=False):
    """A question as received: who signed it, and its digest. Who may ask is trust's verdict."""

    kid: str
    digest: bytes
    body: QuestionBody


_question_decoder: Final = msgspec.json.Decoder(QuestionBody)
_answer_decoder: Final = msgspec.json.Decoder(AnswerBody)


def read_question_body(raw: bytes) -> QuestionBody:
    """Return the question in the exact bytes of a body.

    Raises:
        MalformedError: it is none.
    """
    body = decode_canonical(_question_decoder, raw, what="question")
    if not is_scope(body.scope):
        raise MalformedError("malformed question: illegal scope")
    if not all("@" in name and is_scope(name) for name in body.to):
        raise MalformedError("malformed question: illegal name of a worker")
    if isinstance(body.history, HistoryQuestion) == isinstance(body.propose, tuple):
        raise MalformedError("malformed question: it asks for one of history and propose")
    if isinstance(body.history, HistoryQuestion) and body.history.key and not is_key(body.history.key):
        raise MalformedError("malformed question: illegal key")
    if isinstance(body.propose, tuple):
        check_assignments(body.propose, what="question")
    check_value(body.ext)
    return body


def parse_answer(payload: bytes) -> AnswerBody:
    """Return the answer in *payload*; what it carries is not looked into.

    Raises:
        MalformedError: it is none.
    """
    if len(payload) > MAX_ANSWER_BYTES:
        raise MalformedError("malformed answer: too large")
    answer = decode_plain(_answer_decoder, payload, what="answer")
    if not (is_service(answer.service) and is_service(answer.instance)) or answer.part > answer.parts:
        raise MalformedError("malformed answer: illegal names or numbers")
    return answer


def answers(service: str, instance: str, entries: Iterable[bytes], *, more: bool) -> list[bytes]:
    """Return the messages that carry *entries* (envelopes): each as full as it may be, one at least."""
    chunks = list(_chunks(entries)) or [()]
    return [
        encode(AnswerBody(1, service, instance, n, len(chunks), tuple(map(msgspec.Raw, chunk)), more))
        for n, chunk in enumerate(chunks, 1)
    ]


def _chunks(entries: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
    chunk: list[bytes] = []
    size = 0
    for entry in entries:
        if chunk and size + len(entry) + 1 > MAX_ENVELOPE_BYTES - 512:
            yield tuple(chunk)
            chunk, size = [], 0
        chunk.append(entry)
        size += len(entry) + 1
    if chunk:
        yield tuple(chunk)


def fit_answer(service: str, instance: str, fit: Fit) -> bytes:
    """Return the message that says how a proposal fits."""
    return encode(AnswerBody(1, service, instance, fit=fit))
