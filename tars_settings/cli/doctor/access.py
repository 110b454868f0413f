"""What this user may do at the broker, by trying: what is published comes back, or does not. Nothing is retained.

A broker need not say that it drops a message (on MQTT 3.1.1 it can't), so only reading it back proves anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal
from urllib.parse import urlsplit, urlunsplit

from tars_settings.adapters.address import BrokerAddress
from tars_settings.cli.doctor.broker import is_local
from tars_settings.cli.doctor.finding import Finding
from tars_settings.cli.visitor import Visitor
from tars_settings.errors import BrokerError
from tars_settings.sources.environment import Environment

Answer = Literal["yes", "refused", "lost"]
PLACE: Final = "_doctor"
"""Below each prefix: no scope and no service is called so, and no peer subscribes to it."""
_CONFIGURATION: Final = "tars-settings broker-config mosquitto  # prints users and topics for this fleet"


def look(environment: Environment, address: BrokerAddress) -> Iterator[Finding]:
    """Yield findings on what this user may publish.

    Raises:
        BrokerError: the broker can't be reached any more.
    """
    yield from _anonymous(environment, address)
    yield _settings(environment, may_publish(environment, environment.prefix))
    if may_publish(environment, "tars-settings") == "yes":
        message = "this user may publish outside of the fleet's topics: nothing keeps it from other programs' ones"
        yield Finding("broker", "foreign topics", "hint", message, _CONFIGURATION)
    elif may_publish(environment, environment.health_prefix) == "yes":
        message = "this user may publish the presence of any worker: what status shows may be made up"
        yield Finding("broker", "foreign topics", "hint", message, _CONFIGURATION)
    else:
        yield Finding("broker", "foreign topics", "ok", "this user may publish nothing that is not its own")


def may_publish(environment: Environment, prefix: str) -> Answer:
    """Publish a message that is not retained below *prefix*, and return what became of it.

    In a session of its own: some brokers end one that does what it may not.

    Raises:
        BrokerError: the broker can't be reached.
    """
    with Visitor(environment) as visitor:
        topic = f"{prefix}/{PLACE}/{visitor.marker.split('/')[-2]}"
        visitor.subscribe((topic,), replay=False)
        answer = visitor.publish(topic, b"tars-settings doctor", retain=False)
        if visitor.ended or (answer is not None and not answer.ok):
            return "refused"
        visitor.settle()
        return "yes" if any(one.topic == topic for one in visitor.heard) else "lost"


def _settings(environment: Environment, answer: Answer) -> Finding:
    has_key = environment.writer_key_file is not None
    if answer == "yes":
        return Finding("broker", "settings", "ok", "this user may publish settings; what is not signed counts nowhere")
    silent = " and the broker says nothing of it" if answer == "lost" else ""
    if has_key:
        message = f"a writer's key is here, and this user may not publish below {environment.prefix}{silent}"
        return Finding("broker", "settings", "problem", message, f"topic readwrite {environment.prefix}/#")
    if environment.repair == "all":
        message = f"this user may not publish settings{silent}: repairs are left to others"
        return Finding("broker", "settings", "hint", message, "TARS_SETTINGS_REPAIR=off")
    return Finding("broker", "settings", "ok", "this user may read settings only, and is not asked to repair")


def _anonymous(environment: Environment, address: BrokerAddress) -> Iterator[Finding]:
    if address.scheme == "unix" or address.cert_file is not None:
        return
    if address.username is not None and not _lets_in(environment):
        yield Finding("broker", "anonymous", "ok", "nobody is let in without a password")
        return
    local = is_local(address)
    message = "the broker lets anyone in without a password: whoever reaches it can clear, fill and starve it"
    yield Finding("broker", "anonymous", "hint" if local else "warning", message, "allow_anonymous false")


def _lets_in(environment: Environment) -> bool:
    parts = urlsplit(environment.broker_address().strip())
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    try:
        with Visitor(environment.model_copy(update={"broker": bare})):
            return True
    except BrokerError:
        return False
