"""Envelopes and their encoding: one form, bounded, versioned."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tars_settings.core.delta import check_fanout, parse_delta
from tars_settings.core.head import MAX_SEGMENT_BYTES, LargeRef, Segment, encode_segment, parse_segment
from tars_settings.core.stamp import MAX_EPOCH, MAX_GEN, Stamp
from tars_settings.core.wire import (
    MAX_ENVELOPE_BYTES,
    check_value,
    decode_envelope,
    encode_envelope,
    pae,
)
from tars_settings.errors import MalformedError, NewerVersionError, RejectedError, TooLargeError
from tests.fleets import ALICE, FLEET, delta_body, delta_payload, set_

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=10)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def with_body(body: bytes) -> bytes:
    return ALICE.sign("delta", FLEET, body)


def test_an_envelope_is_one_line_that_a_person_can_read() -> None:
    payload = delta_payload(ALICE, 1, set_("vad_threshold", 0.6), reason="noisy kitchen")
    assert b"\n" not in payload
    shown = json.loads(payload)
    assert list(shown) == ["v", "kid", "sig", "body"]
    assert shown["body"]["assign"] == [{"key": "vad_threshold", "set": 0.6}]


@settings(max_examples=60)
@given(json_values)
def test_values_come_back_equal_and_bytes_unchanged(value: object) -> None:
    payload = delta_payload(ALICE, 1, set_("vad", value))
    envelope, delta = parse_delta(payload, FLEET)
    assert delta.body.assign[0].set == value
    assert encode_envelope(envelope) == payload == delta.raw


@pytest.mark.parametrize(
    ("canonical", "other"),
    [
        (b'"epoch":1', b'"epoch":1.0'),
        (b'"epoch":1', b'"epoch":"1"'),
        (b'"epoch":1', b'"epoch":true'),
        (b'"epoch":1', b'"epoch":01'),
        (b'"epoch":1', b'"epoch": 1'),
        (b'"epoch":1', b'"epoch":1,"epoch":1'),
        (b'"epoch":1', b'"epoch":0'),
        (b'"epoch":1', b'"epoch":-1'),
        (b'"epoch":1', b'"epoch":9007199254740992'),
        (b'"epoch":1', b'"epoch":18446744073709551616'),
        (b'"gen":1', b'"gen":4294967296'),
        (b'"key":"vad"', b'"key":"\\u0076ad"'),
        (b'"key":"vad"', b'"key":"vad","key":"vad"'),
        (b'"key":"vad"', b'"key":"vad\\n"'),
        (b'"key":"vad"', b'"key":"a__b"'),
        (b'"key":"vad"', b'"key":"vad","unset":true'),
        (b'"key":"vad"', b'"key":"vad","unset":false'),
        (b'"key":"vad"', b'"key":"vad","more":1'),
        (b'"set":1', b'"set":1e0'),
        (b'"set":1', b'"set":NaN'),
        (b'"set":1', b'"set":-0'),
        (b'"set":1', b'"set":18446744073709551616'),
        (b'"set":1', b'"set":' + b"[" * 40 + b"]" * 40),
        (b'"set":1', b'"set":{"a":1,"a":2}'),
        (b'"set":1', b'"unset":false'),
        (b'{"scope"', b'\xef\xbb\xbf{"scope"'),
        (b'{"scope":"stt-worker"', b'{"scope":"stt-worker","more":1'),
        (b'"scope":"stt-worker"', b'"scope":"Stt"'),
        (b'"scope":"stt-worker"', b'"scope":"stt-worker\\n"'),
        (b'"trust":1', b'"trust":0'),
    ],
)
def test_a_body_that_is_not_its_own_encoding_is_malformed(canonical: bytes, other: bytes) -> None:
    body = delta_body(1)
    assert body.count(canonical) == 1
    parse_delta(with_body(body), FLEET)
    with pytest.raises(RejectedError) as caught:
        parse_delta(delta_payload(ALICE, 1).replace(canonical, other), FLEET)
    assert isinstance(caught.value, MalformedError)


@pytest.mark.parametrize("keys", [("a", "a"), ("a", "a.b"), ("a.b", "a"), ("a.b.c", "a", "ab")])
def test_a_delta_whose_keys_lie_on_one_path_is_malformed(keys: tuple[str, ...]) -> None:
    with pytest.raises(MalformedError):
        parse_delta(delta_payload(ALICE, 1, *(set_(key) for key in keys)), FLEET)


def test_a_delta_has_1_to_64_assignments() -> None:
    parse_delta(delta_payload(ALICE, 1, *(set_(f"k{n}") for n in range(64))), FLEET)
    with pytest.raises(MalformedError):
        parse_delta(delta_payload(ALICE, 1, *(set_(f"k{n}") for n in range(65))), FLEET)


def test_an_envelope_of_more_than_48_kib_is_neither_made_nor_read() -> None:
    with pytest.raises(TooLargeError):
        delta_payload(ALICE, 1, set_("vad", "x" * MAX_ENVELOPE_BYTES))
    with pytest.raises(MalformedError):
        decode_envelope(b'{"v":1,' + b" " * MAX_ENVELOPE_BYTES + b"}")


def test_a_segment_of_more_than_32_kib_is_malformed() -> None:
    with pytest.raises(MalformedError):
        parse_segment(b"x" * (MAX_SEGMENT_BYTES + 1))


def test_an_envelope_of_a_later_version_is_told_from_garbage() -> None:
    with pytest.raises(NewerVersionError):
        decode_envelope(b'{"v":2,"new":"form"}')
    with pytest.raises(MalformedError) as caught:
        decode_envelope(b'{"v":1,"new":"form"}')
    assert not isinstance(caught.value, NewerVersionError)


def test_a_push_that_would_cost_too_much_over_its_topics_says_what_would_fit() -> None:
    check_fanout(b"x" * 8192, 64)
    with pytest.raises(TooLargeError, match=r"push about 45 keys"):
        check_fanout(b"x" * 16384, 64)


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_bytes_escape_decoding_as_anything_but_a_rejection(payload: bytes) -> None:
    for read in (decode_envelope, parse_segment, lambda one: parse_delta(one, FLEET)):
        with pytest.raises(RejectedError):
            read(payload)


fields = st.tuples(
    st.sampled_from(["delta", "head", "trust", "floor"]), st.text("0123456789abcdef ", max_size=12),
    st.text("0123456789abcdef ", max_size=12), st.binary(max_size=12),
)  # fmt: skip


@given(fields, fields)
def test_no_two_tuples_share_a_pre_authentication_encoding(first: tuple, second: tuple) -> None:  # type: ignore[type-arg]
    assert (pae(*first) == pae(*second)) == (first == second)


def test_integers_beyond_64_bits_and_deep_nesting_are_refused() -> None:
    check_value([2**64 - 1, -(2**63), True, None, "x", 1.5])
    for value in (2**64, -(2**63) - 1, {"a": [2**70]}):
        with pytest.raises(MalformedError):
            check_value(value)


stamps = st.builds(
    Stamp, st.integers(0, MAX_GEN), st.integers(1, MAX_EPOCH), st.sampled_from(["a" * 32, "b" * 32, "0" * 32]),
    st.binary(min_size=32, max_size=32),
)  # fmt: skip


@given(stamps, stamps)
def test_stamps_compare_as_their_blobs_do(first: Stamp, second: Stamp) -> None:
    assert (first < second) == (first.blob() < second.blob())
    assert (first == second) == (first.blob() == second.blob())
    assert len(first.blob()) == 60


def test_an_empty_tuple_is_left_out_whatever_python_made_it() -> None:
    """On Python 3.10 ``tuple(iterator)`` is not ``()``, and msgspec leaves defaults out by identity."""
    segment = Segment(1, deltas=tuple(one for one in [] if one), large=(LargeRef("0" * 64, 1, 1, ("a",)),))
    assert b'"deltas"' not in encode_segment(segment)
    assert parse_segment(encode_segment(segment)) == segment
