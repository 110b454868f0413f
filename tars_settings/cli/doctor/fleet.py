"""What the broker holds of this fleet beside what this host's replica holds, and what there is to see of peers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from tars_settings.cli.doctor.finding import Finding
from tars_settings.cli.moments import moment
from tars_settings.cli.render import several
from tars_settings.cli.visitor import Visitor
from tars_settings.core.presence import Presence, parse_presence
from tars_settings.core.topics import PresenceTopic, Topics, TrustTopic
from tars_settings.errors import MalformedError
from tars_settings.gossip.offering import topics_held
from tars_settings.sources.environment import Environment
from tars_settings.writer.archive import Archive

MOST_TOPICS: Final = 2000
AHEAD_S: Final = 5.0
"""A clock may be so much ahead before anybody is told."""
_SYS: Final = ("$SYS/broker/version", "$SYS/broker/uptime", "$SYS/broker/connection/+/state")


def look(environment: Environment, visitor: Visitor, archive: Archive) -> Iterator[Finding]:
    """Yield findings. What the broker holds is taken into *archive*, in memory only, so that keys are judged by it."""
    yield _trust(environment, visitor, archive)
    yield from _topics(environment, visitor, archive)
    yield from _broker_itself(visitor)


def _trust(environment: Environment, visitor: Visitor, archive: Archive) -> Finding:
    topic = Topics(environment.prefix, environment.health_prefix).format(TrustTopic())
    held = archive.peer.trust
    found = visitor.retained([topic]).get(topic)
    if found is None and held.is_pin:
        message = "neither the broker nor this host has a trust document: the fleet was not founded here yet"
        return Finding("broker", "trust", "warning", message, "tars-settings init --broker URL")
    if found is None:
        message = "the broker shows no trust document: it is empty, or this user may not read it"
        return Finding("broker", "trust", "problem", message, f"tars-settings import {environment.state_dir}")
    (offer,) = archive.offer([found])
    if offer.fate in ("applied", "duplicate"):
        return Finding("broker", "trust", "ok", f"the broker holds trust document {archive.peer.trust.version}")
    if offer.fate == "superseded":
        message = f"the broker holds an older trust document than this host ({held.version})"
        return Finding("broker", "trust", "warning", message, f"tars-settings import {environment.state_dir}")
    if offer.fate == "held":
        message = "the broker holds a trust document whose predecessors are not on this host"
        return Finding("broker", "trust", "hint", message, "tars-settings keys list  # fetches them")
    message = f"what the broker holds as trust document is none of this fleet ({offer.reason})"
    return Finding("broker", "trust", "problem", message, "TARS_SETTINGS_PREFIX=another/place  # or another broker")


def _topics(environment: Environment, visitor: Visitor, archive: Archive) -> Iterator[Finding]:
    """Compare topic by topic; what differs is judged, and only what is older or nothing is told."""
    peer = archive.peer
    wanted = {}
    for text in topics_held(peer, archive.scopes)[:MOST_TOPICS]:
        topic = peer.topics.parse(text)
        payload = None if topic is None or isinstance(topic, TrustTopic) else peer.desired(topic)
        if payload is not None:
            wanted[text] = payload
    if not wanted:
        return
    held = visitor.retained(tuple(wanted))
    absent = [text for text in wanted if text not in held]
    others = [payload for text, payload in held.items() if payload != wanted[text]]
    worse = [offer for offer in archive.offer(others) if offer.fate in ("superseded", "rejected")]
    newer = len(others) - len(worse)
    if absent or worse:
        example = f", such as {absent[0]}" if absent else ""
        message = (
            f"of {several(len(wanted), 'topic')} the broker lacks {len(absent)}{example}, and holds {len(worse)} worse"
        )
        yield Finding(
            "broker", "topics", "warning", message, f"tars-settings import {environment.state_dir}  # puts them back"
        )
    else:
        behind = f"; this host is behind by {newer}" if newer else ""
        yield Finding(
            "broker",
            "topics",
            "ok",
            f"the broker holds all {several(len(wanted), 'topic')} of this host's replica{behind}",
        )


def _broker_itself(visitor: Visitor) -> Iterator[Finding]:
    visitor.heard.clear()
    visitor.subscribe(_SYS)
    visitor.settle()
    said = {one.topic: one.payload.decode(errors="replace") for one in visitor.heard if one.topic.startswith("$SYS/")}
    visitor.unsubscribe(_SYS)
    name = said.get("$SYS/broker/version", "")
    uptime = said.get("$SYS/broker/uptime", "")
    told = f"{name}, up for {uptime}" if name and uptime else "the broker says nothing of itself"
    yield Finding(
        "broker",
        "persistence",
        "hint",
        f"{told}; from outside it can't be told whether it keeps values over a restart",
        "persistence true, autosave_on_changes true, autosave_interval 1",
    )
    down = [topic.split("/")[3] for topic, state in said.items() if topic.endswith("/state") and state.strip() != "1"]
    up = sum(topic.endswith("/state") for topic in said) - len(down)
    if down:
        message = f"the bridge {', '.join(down)} is down: behind it values grow old"
        yield Finding("broker", "bridges", "warning", message, "see the broker's log for why")
    elif up:
        yield Finding("broker", "bridges", "ok", f"{several(up, 'bridge')} up")


# --- peers ------------------------------------------------------------------------------------------------------------


def presences(environment: Environment, visitor: Visitor) -> list[Presence]:
    """Return what workers say of themselves."""
    topics = Topics(environment.prefix, environment.health_prefix)
    visitor.heard.clear()
    topic_filter = topics.presence_filter()
    visitor.subscribe((topic_filter,))
    visitor.settle()
    visitor.unsubscribe((topic_filter,))
    found = []
    for one in visitor.heard:
        if isinstance(topics.parse(one.topic), PresenceTopic) and one.payload:
            try:
                found.append(parse_presence(one.payload))
            except MalformedError:
                continue
    return found


def clock(known: list[Presence], now: datetime) -> Finding:
    """Return how this host's clock stands to those of workers: one that speaks from the future has another clock.

    Clocks take no part in what wins; they are shown to people, and certificates are checked by them.
    """
    ahead = [(s, f"{one.service}@{one.instance}") for one in known if (s := _ahead_s(one.at, now)) > AHEAD_S]
    if ahead:
        seconds, who = max(ahead)
        message = f"{who} spoke {seconds:.0f} s from now: its clock is ahead, or this host's is behind"
        return Finding("environment", "clock", "warning", message, "timedatectl  # on both hosts")
    return Finding("environment", "clock", "ok", f"no report of {several(len(known), 'worker')} is from the future")


def _ahead_s(at: str, now: datetime) -> float:
    try:
        return (moment(at) - now).total_seconds()
    except ValueError:
        return 0.0
