"""Envelopes of a later version: left alone when somebody trusted signed them, garbage when anyone could write them."""

from __future__ import annotations

import pytest

from tars_settings.testing.mesh import Mesh
from tars_settings.trust.keys import SigningKey
from tests.fleets import later_payload

BODY = b'{"of":"a later form"}'


def settled(seed: int = 1) -> Mesh:
    mesh = Mesh(seed, workers=3, writers=1)
    mesh.run(5)
    mesh.push("writer-0", {"a": 1})
    mesh.run(5)
    return mesh


def writer_of(mesh: Mesh) -> SigningKey:
    key = mesh.peers["writer-0"].signer
    assert key is not None
    return key


def test_a_later_version_that_a_writer_signed_is_left_alone() -> None:
    mesh = settled()
    topic = mesh.key_topic("a")
    newer = later_payload(writer_of(mesh), BODY, fleet=mesh.fleet)
    before = mesh.counters["repairs"]
    mesh.publish_hostile(topic, newer)
    mesh.run(200)
    assert mesh.broker.retained[topic] == newer
    assert mesh.counters["repairs"] == before


@pytest.mark.parametrize("kind", ["nobody's", "a stranger's", "relabelled", "another fleet's"])
def test_a_later_version_that_nobody_trusted_signed_is_repaired(kind: str) -> None:
    mesh = settled()
    key, stranger = writer_of(mesh), SigningKey("writer", "x", bytes(32))
    payload = {
        "nobody's": b'{"v":2,"what":"is this"}',
        "a stranger's": later_payload(stranger, BODY, fleet=mesh.fleet),
        "relabelled": later_payload(key, BODY, fleet=mesh.fleet, version=1),
        "another fleet's": later_payload(key, BODY, fleet="f" * 32),
    }[kind]
    topic = mesh.key_topic("a")
    good, before = mesh.broker.retained[topic], mesh.counters["repairs"]
    mesh.publish_hostile(topic, payload)
    assert mesh.broker.retained[topic] == payload
    mesh.run(200)
    assert mesh.broker.retained[topic] == good
    assert mesh.counters["repairs"] > before


def test_anyone_s_later_version_of_the_trust_document_is_repaired() -> None:
    mesh = settled()
    topic = "system/config/_trust"
    good = mesh.broker.retained[topic]
    mesh.publish_hostile(topic, b'{"v":2}')
    mesh.run(200)
    assert mesh.broker.retained[topic] == good
