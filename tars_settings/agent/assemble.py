"""Putting an agent together from the environment: transport, replica, replicator."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from tars_settings.adapters.clock import SystemClock
from tars_settings.adapters.replica import SqliteReplica
from tars_settings.agent.cores import on_all_cores
from tars_settings.agent.loop import Agent
from tars_settings.core.topics import AnswerTopic, PresenceTopic, QuestionTopic, SchemaTopic, Topics
from tars_settings.gossip.repair import RepairPolicy
from tars_settings.gossip.replicator import Policy, Replicator
from tars_settings.ports import Transport
from tars_settings.sources.environment import Environment
from tars_settings.trust.keys import SigningKey

MEMORY: Final = "memory://"
_EXTRA: Final = (PresenceTopic, SchemaTopic, QuestionTopic, AnswerTopic)
"""What the replicator does not follow."""
TransportFactory = Callable[[Environment, str], Transport]


def mqtt_transport(environment: Environment, client_id: str) -> Transport:
    """Return a transport to the environment's broker; ``memory://`` is one that a test has in this process.

    Raises:
        ConfigurationError: TARS_SETTINGS_BROKER is missing or malformed.
    """
    if environment.broker_address().startswith(MEMORY):
        from tars_settings.adapters.memory import MemoryTransport, broker_at  # noqa: PLC0415 - for tests

        return MemoryTransport(broker_at(environment.broker_address()))
    from tars_settings.adapters.address import BrokerAddress  # noqa: PLC0415 - paho is imported when something joins
    from tars_settings.adapters.mqtt import MqttTransport  # noqa: PLC0415

    address = BrokerAddress.parse(environment.broker_address())
    return MqttTransport(address, client_id, protocol=environment.protocol)


def assemble(
    environment: Environment,
    *,
    name: str,
    signer: SigningKey | None = None,
    transport: TransportFactory = mqtt_transport,
) -> Agent:
    """Return an agent that is not started. *name* begins its MQTT client id: a service, or what the command is called.

    Raises:
        ConfigurationError: fleet or broker are missing or malformed.
    """
    clock = SystemClock()
    topics = Topics(environment.prefix, environment.health_prefix)
    nonce = clock.token(16).hex()
    replicator = Replicator(
        topics,
        environment.root,
        nonce=nonce,
        random=clock.random,
        policy=_policy(environment),
        signer=signer,
        spread=on_all_cores,
    )
    # Unique per process: two sessions with one id throw each other out for ever.
    client_id = f"ts-{name}-{os.getpid()}-{nonce[:16]}"
    return Agent(
        replicator,
        transport(environment, client_id),
        SqliteReplica(environment.replica_path),
        clock,
        extra_topics=lambda text: isinstance(topics.parse(text), _EXTRA),
    )


def _policy(environment: Environment) -> Policy:
    repairing = RepairPolicy(delay_s=environment.repair_delay_s)
    return Policy(repair=environment.repair, audit_s=environment.audit_s, repairing=repairing)
