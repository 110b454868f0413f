"""The broker, measured as a worker would meet it: protocol, retained messages, sizes, replays, speed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tars_settings.adapters.address import BrokerAddress
from tars_settings.cli.doctor import nagle
from tars_settings.cli.doctor.finding import Finding
from tars_settings.cli.doctor.probes import Probes
from tars_settings.cli.render import several
from tars_settings.cli.visitor import Visitor
from tars_settings.core.session import Received
from tars_settings.core.wire import MAX_ENVELOPE_BYTES
from tars_settings.errors import BrokerError, BrokerUnsuitableError
from tars_settings.sources.environment import Environment

FEW: Final = 48
MANY: Final = 1500
"""Above the 1,020 messages after which default mosquitto ends a replay in silence."""
_ENOUGH_BYTES: Final = MAX_ENVELOPE_BYTES + 512
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Met:
    """What MQTT the broker speaks, and its limit of a packet's size in bytes (0: it named none)."""

    five: bool
    older: bool
    max_packet_bytes: int = 0

    def spoken(self, environment: Environment) -> Environment:
        """Return the environment with the protocol that is to be spoken: one try that is known to fail is saved."""
        return environment if self.five else environment.model_copy(update={"protocol": "3.1.1"})


def look(environment: Environment, address: BrokerAddress, met: Met, *, deep: bool) -> Iterator[Finding]:
    """Yield findings on the broker itself. What is left there for it is taken away again.

    Raises:
        BrokerError: it can't be reached any more, or keeps nothing.
    """
    yield from _address(address)
    yield _protocol(environment, met)
    with Visitor(met.spoken(environment)) as visitor:
        probes = Probes(environment, visitor)
        with probes:
            # All of it before anybody hears of it: what is left on the broker must not outlive an impatient reader.
            measured = list(_measure(visitor, probes, met, address, deep=deep))
        yield from measured
        if probes.remaining:
            count = several(len(probes.remaining), "message")
            message = f"{count} of this check could not be taken away again, such as {probes.remaining[0]}"
            yield Finding("broker", "cleaned up", "warning", message, f"mosquitto_pub -r -n -t {probes.remaining[0]}")


def is_local(address: BrokerAddress) -> bool:
    """Return whether the broker is on this host."""
    return address.scheme == "unix" or address.host in _LOOPBACK


def _address(address: BrokerAddress) -> Iterator[Finding]:
    if address.tls or is_local(address):
        yield Finding("broker", "encryption", "ok", "the way to the broker is encrypted, or does not leave this host")
    elif address.password is not None:
        message = f"the password travels to {address.host} in the clear"
        yield Finding(
            "broker", "encryption", "warning", message, f"TARS_SETTINGS_BROKER=mqtts://...@{address.host}?ca=FILE"
        )
    else:
        message = f"the way to {address.host} is not encrypted: values that are no secrets can be read on it"
        yield Finding("broker", "encryption", "hint", message, f"TARS_SETTINGS_BROKER=mqtts://{address.host}?ca=FILE")


# --- protocol ---------------------------------------------------------------------------------------------------------


def meet(environment: Environment) -> Met:
    """Connect in 5 and in 3.1.1.

    Raises:
        BrokerError: neither is accepted.
    """
    complaints: list[BrokerError] = []
    sizes: dict[str, int] = {}
    for protocol in ("5", "3.1.1"):
        try:
            with Visitor(environment, protocol=protocol) as visitor:
                sizes[protocol] = visitor.session.max_packet_bytes if visitor.session is not None else 0
        except BrokerError as error:
            complaints.append(error)
    if not sizes:
        raise complaints[0]
    return Met("5" in sizes, "3.1.1" in sizes, sizes.get("5", 0))


def _protocol(environment: Environment, met: Met) -> Finding:
    if met.five and environment.protocol == "3.1.1":
        message = "the broker speaks MQTT 5, and TARS_SETTINGS_PROTOCOL keeps this host to 3.1.1"
        return Finding("broker", "protocol", "warning", message, "unset TARS_SETTINGS_PROTOCOL")
    if met.five:
        return Finding("broker", "protocol", "ok", f"MQTT 5{' and 3.1.1' if met.older else ''}")
    message = "MQTT 3.1.1 only: no guard of sizes, a refused publish is silent, and lost values show only in an audit"
    return Finding("broker", "protocol", "hint", message, "TARS_SETTINGS_PROTOCOL=3.1.1 TARS_SETTINGS_AUDIT_S=120")


# --- with messages of our own -----------------------------------------------------------------------------------------


def _measure(visitor: Visitor, probes: Probes, met: Met, address: BrokerAddress, *, deep: bool) -> Iterator[Finding]:
    if not visitor.echo():
        message = "a message of our own did not come back: markers can't be published or subscribed to here"
        yield Finding("broker", "markers", "problem", message, f"topic readwrite {probes.place.rpartition('/')[0]}/#")
        return
    yield Finding("broker", "markers", "ok", "a message of our own comes back")
    retained = _retained(visitor, probes)
    yield retained
    if retained.is_bad:
        return
    if met.five:
        yield _retain_as_published(visitor, probes)
    yield from _sizes(visitor, probes, met)
    yield _replay(visitor, probes, MANY if deep else FEW)
    yield from _nagle(probes, address)


def _retained(visitor: Visitor, probes: Probes) -> Finding:
    acknowledged = probes.leave("retained", b"1")
    found = visitor.retained([probes.topic("retained")])
    if found:
        return Finding("broker", "retained", "ok", "a retained message is kept, and given to who asks")
    why = "" if acknowledged else ", and was not acknowledged"
    message = f"a retained message was not given back{why}: the fleet's state rests on them"
    return Finding("broker", "retained", "problem", message, "retain_available true")


def _retain_as_published(visitor: Visitor, probes: Probes) -> Finding:
    topic = probes.topic("flag")
    visitor.subscribe((topic,), replay=False)
    probes.leave("flag", b"1")
    visitor.until(lambda: any(one.topic == topic for one in visitor.heard))
    visitor.unsubscribe((topic,))
    if any(one.retain for one in _on(visitor, topic)):
        return Finding("broker", "retain as published", "ok", "live messages show whether they are retained")
    message = "live messages do not show whether they are retained: what a stranger clears is found by audits only"
    return Finding("broker", "retain as published", "hint", message, "TARS_SETTINGS_AUDIT_S=120")


def _on(visitor: Visitor, topic: str) -> list[Received]:
    return [one for one in visitor.heard if one.topic == topic]


def _sizes(visitor: Visitor, probes: Probes, met: Met) -> Iterator[Finding]:
    if 0 < met.max_packet_bytes < _ENOUGH_BYTES:
        message = f"packets may have {met.max_packet_bytes} bytes, and an envelope has up to {MAX_ENVELOPE_BYTES}"
        yield Finding("broker", "packet size", "problem", message, "max_packet_size 65536")
        return
    payload = b"x" * MAX_ENVELOPE_BYTES
    probes.leave("large", payload)
    if visitor.retained([probes.topic("large")]).get(probes.topic("large")) != payload:
        message = f"a message of {MAX_ENVELOPE_BYTES} bytes, the largest envelope, was not given back"
        yield Finding("broker", "packet size", "problem", message, "max_packet_size 65536")
    elif met.five and not met.max_packet_bytes:
        message = "the largest envelope is kept, and so is anything larger: a stranger may fill the broker's memory"
        yield Finding("broker", "packet size", "hint", message, "max_packet_size 65536")
    else:
        limit = f", the limit is {met.max_packet_bytes}" if met.max_packet_bytes else ""
        yield Finding(
            "broker", "packet size", "ok", f"the largest envelope ({MAX_ENVELOPE_BYTES} bytes) is kept{limit}"
        )


def _replay(visitor: Visitor, probes: Probes, count: int) -> Finding:
    left = probes.leave_all((f"many-{number}", b"x") for number in range(count))
    visitor.heard.clear()
    topic_filter = f"{probes.place}/+"
    visitor.subscribe((topic_filter,), qos=1)  # as workers' presence is asked for
    visitor.settle()
    visitor.unsubscribe((topic_filter,))
    found = len({one.topic for one in visitor.heard if "/many-" in one.topic})
    if left < count:
        message = f"of {count} retained messages the broker took {left}"
        return Finding("broker", "wildcard", "warning", message, "max_queued_messages 10000")
    if found < count:
        message = f"a wildcard brings {found} of {count} retained messages, and says nothing of the others"
        # Peers ask for exact topics; what comes by a wildcard is presence and schemas, for status and push.
        return Finding("broker", "wildcard", "hint", message, "max_queued_messages 10000")
    return Finding("broker", "wildcard", "ok", f"a wildcard brings all of {count} retained messages")


def _nagle(probes: Probes, address: BrokerAddress) -> Iterator[Finding]:
    took_s = nagle.delay_s(address, probes.topic("retained"), f"ts-late-{probes.place.rpartition('/')[2][:12]}")
    if took_s is None:
        return
    if took_s >= nagle.SLOW_S:
        message = f"the broker waits {took_s * 1000:.0f} ms for acknowledgements before it sends small packets (Nagle)"
        yield Finding("broker", "nagle", "hint", message, "set_tcp_nodelay true")
    else:
        yield Finding("broker", "nagle", "ok", f"small packets are sent at once ({took_s * 1000:.1f} ms)")


def unreachable(error: BrokerError) -> Finding:
    """Return the finding of a broker that can't be used."""
    name = "retained" if isinstance(error, BrokerUnsuitableError) and "retained" in str(error) else "connection"
    change = (
        "retain_available true"
        if name == "retained"
        else "TARS_SETTINGS_BROKER=mqtt://HOST:1883  # is it right, and is it up?"
    )
    return Finding("broker", name, "problem", str(error), change)
