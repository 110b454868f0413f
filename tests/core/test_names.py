"""Names and topics: what is legal, and that parsing and formatting are each other's inverse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tars_settings.core.names import Scope, is_key, is_prefix, is_scope, is_service, overlap
from tars_settings.core.topics import (
    MAX_TOPIC_BYTES,
    FloorTopic,
    IndexTopic,
    KeyTopic,
    MarkerTopic,
    PresenceTopic,
    SchemaTopic,
    SegmentTopic,
    Topics,
    TrustTopic,
)
from tars_settings.errors import IllegalNameError

ILLEGAL_EVERYWHERE = [
    "", "a\n", "\na", "a b", "a/b", "a+", "a#", "#", "+", "$SYS", "a\0", "a\x1b[0m", "\u00e4", "\u0430", "\u212a",
    "a\u200b", "e\u0301", "\ufb01", "_a", "-a", "1a", "..", "a/../b",
]  # fmt: skip

services = st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True)
segments = st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,5}(_[A-Za-z0-9]{1,4}){0,2}", fullmatch=True)
keys = st.lists(segments, min_size=1, max_size=4).map(".".join)
kids = st.from_regex(r"[0-9a-f]{32}", fullmatch=True)
scopes = st.one_of(st.just("_all"), services, st.tuples(services, services).map("@".join))
topics = st.one_of(
    st.just(TrustTopic()),
    st.builds(TrustTopic, st.integers(1, 10**9 - 1)),
    st.builds(KeyTopic, scopes, keys),
    st.builds(IndexTopic, scopes, kids),
    st.builds(SegmentTopic, scopes, kids, st.integers(1, 10**8)),
    st.builds(FloorTopic, scopes),
    st.builds(SchemaTopic, scopes, kids),
    st.builds(PresenceTopic, services, services),
    st.builds(MarkerTopic, kids),
)


@pytest.mark.parametrize("name", ILLEGAL_EVERYWHERE, ids=ascii)
def test_no_illegal_name_is_a_service_a_key_or_a_scope(name: str) -> None:
    assert not is_service(name)
    assert not is_key(name)
    assert not is_scope(name)


@pytest.mark.parametrize("name", ["a__b", "a_", "a.b_", "a..b", ".a", "a.", "a." * 64 + "a" * 8])
def test_keys_that_would_not_come_back_from_a_topic_are_illegal(name: str) -> None:
    assert not is_key(name)


@pytest.mark.parametrize("prefix", ["", "/", "a/", "/a", "$SYS", "a/+/b", "a/b/c/d", "_a", "a//b", "a\n"])
def test_prefixes_are_one_to_three_plain_levels(prefix: str) -> None:
    assert not is_prefix(prefix)
    with pytest.raises(IllegalNameError):
        Topics(prefix=prefix)


def test_prefixes_must_not_contain_each_other() -> None:
    with pytest.raises(IllegalNameError):
        Topics(prefix="system", health_prefix="system/health")


@given(scopes)
def test_a_scope_comes_back_from_its_text(text: str) -> None:
    assert str(Scope.parse(text)) == text
    assert is_scope(text)


@given(topics)
def test_a_topic_comes_back_from_its_text(topic: object) -> None:
    here = Topics()
    try:
        text = here.format(topic)  # type: ignore[arg-type]
    except IllegalNameError:
        return
    assert here.parse(text) == topic
    assert len(text.encode()) <= MAX_TOPIC_BYTES
    assert text.count("/") <= 7


@given(st.text(max_size=80), st.sampled_from(["", "system/config/", "system/health/", "system/config/stt/_head/"]))
def test_whatever_parses_is_formatted_to_the_same_text(rest: str, start: str) -> None:
    here = Topics()
    parsed = here.parse(start + rest)
    assert parsed is None or here.format(parsed) == start + rest


@pytest.mark.parametrize(
    "text",
    [
        "system/config/stt/audio.gain", "system/config/stt/audio___gain", "system/config/_trust/01",
        "system/config/stt",
        "system/config/_trust/0", "system/config/stt/_head/xyz", "system/config/stt/_floor/1", "system/configs/stt/a",
        "system/config/stt/a/b", "system/config/stt/_secret", "x" * 300, "system/config//a", "system/config/_all@x/a",
    ],
)  # fmt: skip
def test_near_misses_are_nothing_of_ours(text: str) -> None:
    assert Topics().parse(text) is None


@given(keys, keys)
def test_keys_overlap_exactly_along_the_dotted_path(first: str, second: str) -> None:
    a, b = first.split("."), second.split(".")
    shorter = min(len(a), len(b))
    assert overlap(first, second) == (a[:shorter] == b[:shorter])
