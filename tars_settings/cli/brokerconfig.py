"""``broker-config``: what to write into a broker's configuration for this fleet, and who may do what there.

Three kinds of users. A *worker* reads settings, and writes its own presence, its schema, markers and answers. A
*writer* or *keeper* writes settings as well (a signature decides what counts; whoever may write them may clear them,
too). Nobody else gets anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from tars_settings.cli.common import Common, command
from tars_settings.cli.export import write_whole
from tars_settings.core.names import check_service
from tars_settings.errors import UsageError
from tars_settings.sources.environment import Environment

KindArgument = Annotated[str, typer.Argument(metavar="BROKER", help="mosquitto, nats or amqtt")]
ServiceOption = Annotated[
    list[str] | None, typer.Option("--service", metavar="SERVICE", help="A service whose workers connect; repeat it")
]
PortOption = Annotated[int, typer.Option("--port", metavar="PORT", min=1, max=65535, help="Where it listens")]
DirOption = Annotated[
    Path | None, typer.Option("--dir", metavar="DIR", help="Where its files lie on its host [/etc/BROKER]")
]
StoreOption = Annotated[
    Path | None, typer.Option("--store", metavar="DIR", help="Where it keeps retained messages [/var/lib/BROKER]")
]
WriteOption = Annotated[bool, typer.Option("--write", help="Write the files into --dir; nothing is overwritten")]

WRITERS: Final = ("writer", "keeper")


@dataclass(frozen=True)
class Wanted:
    """What a configuration is for."""

    prefix: str
    health_prefix: str
    services: tuple[str, ...]
    port: int
    directory: Path
    store: Path

    @property
    def shared(self) -> tuple[str, ...]:
        """Topics that every user writes and reads: markers of probes, answers to questions."""
        return (f"{self.health_prefix}/_marker/#", f"{self.health_prefix}/_answer/#")

    def own(self, service: str) -> tuple[str, ...]:
        """Topics that a service's workers write."""
        return (f"{self.health_prefix}/{service}/#", f"{self.prefix}/{service}/_schema/+")


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "broker-config", broker_config)


def broker_config(
    common: Common,
    kind: KindArgument,
    service: ServiceOption = None,
    port: PortOption = 1883,
    directory: DirOption = None,
    store: StoreOption = None,
    write: WriteOption = False,
) -> int:
    """Print a configuration and access rules for this fleet's topics. Users: writer, keeper, and one a service.

    Passwords are not made here; what makes them is said.

    Example: tars-settings broker-config mosquitto --service stt-worker --service tts-worker
    """
    if kind not in _KINDS:
        raise UsageError(f"{kind}: expected one of {', '.join(_KINDS)}")
    environment = Environment.read(**common.given())
    services = tuple(check_service(one) for one in service or ()) or ("stt-worker",)
    directory, store = directory or Path("/etc") / kind, store or Path("/var/lib") / kind
    wanted = Wanted(environment.prefix, environment.health_prefix, services, port, directory, store)
    made = _KINDS[kind](wanted)
    if write:
        for name, text in made.files.items():
            write_whole(directory / name, text.encode())
    common.out.document({"broker": kind, "files": dict(made.files), "then": list(made.then), "written": write})
    for name, text in made.files.items():
        common.out.line(f"# --- {directory / name}", exact=True)
        common.out.line(text.rstrip("\n"), exact=True)
    common.out.note("\n".join(["Then type:", *(f"  {line}" for line in made.then)]))
    return 0


@dataclass(frozen=True)
class Made:
    """Files by name, and what is to be typed after they are in place."""

    files: Mapping[str, str]
    then: Sequence[str]


def _users(wanted: Wanted) -> tuple[str, ...]:
    return (*WRITERS, *wanted.services)


# --- mosquitto --------------------------------------------------------------------------------------------------------


def _mosquitto(wanted: Wanted) -> Made:
    directory = wanted.directory
    conf = f"""\
listener {wanted.port}
allow_anonymous false
password_file {directory}/passwd
acl_file {directory}/acl

# Retained messages are the fleet's state. Without these lines a crash takes up to half an hour of it away.
persistence true
persistence_location {wanted.store}/
autosave_on_changes true
autosave_interval 1
retain_available true

# An envelope has at most 48 KiB; a stranger's message is not to have more.
max_packet_size 65536
# Per client: below it a replay of many retained messages ends in silence.
max_queued_messages 10000
max_keepalive 120
# Otherwise a subscription waits 40 ms for our acknowledgement.
set_tcp_nodelay true
"""
    lines: list[str] = []
    for name in WRITERS:
        lines += [f"user {name}", f"topic readwrite {wanted.prefix}/#", f"topic read {wanted.health_prefix}/#"]
        lines += [f"topic readwrite {topic}" for topic in wanted.shared]
        lines += ["topic read $SYS/broker/#", ""]
    lines += ["# Whoever is let in; a worker's user is called as its service.", f"pattern read {wanted.prefix}/#"]
    lines += [f"pattern readwrite {topic}" for topic in (*wanted.own("%u"), *wanted.shared)]
    then = [f"touch {directory}/passwd && chmod 600 {directory}/passwd"]
    then += [f"mosquitto_passwd {directory}/passwd {name}" for name in _users(wanted)]
    then += [
        f"chmod 600 {directory}/acl && chown mosquitto {directory}/acl {directory}/passwd",
        "systemctl restart mosquitto",
        "tars-settings doctor",
    ]
    return Made({"mosquitto.conf": conf, "acl": "\n".join(lines) + "\n"}, then)


# --- NATS -------------------------------------------------------------------------------------------------------------


def _subject(topic: str) -> str:
    """Return a topic filter as NATS writes it.

    >>> _subject("system/config/#"), _subject("system/config/stt-worker/_schema/+")
    ('system.config.>', 'system.config.stt-worker._schema.*')
    """
    return topic.replace("/", ".").replace("#", ">").replace("+", "*")


def _nats(wanted: Wanted) -> Made:
    both = [_subject(topic) for topic in wanted.shared]
    settings, presence = _subject(f"{wanted.prefix}/#"), _subject(f"{wanted.health_prefix}/#")
    users = [_nats_user(name, [settings, *both], [settings, presence]) for name in WRITERS]
    users += [
        _nats_user(name, [*map(_subject, wanted.own(name)), *both], [settings, *both, *map(_subject, wanted.own(name))])
        for name in wanted.services
    ]
    inner = "\n".join(users)
    conf = f"""\
server_name: "tars-settings"
listen: "127.0.0.1:4222"
max_payload: 65536
# Retained messages are the fleet's state, and JetStream is where they are kept.
jetstream {{ store_dir: "{wanted.store}", max_mem: 64MB, max_file: 1GB }}
# MQTT 3.1.1. Of a cluster: stream_replicas is the number of its members.
mqtt {{ listen: "0.0.0.0:{wanted.port}", stream_replicas: 1 }}
authorization {{
  users: [
{inner}
  ]
}}
"""
    variables = " ".join(f"{_variable(name)}=..." for name in _users(wanted))
    then = [f"{variables} nats-server -c {wanted.directory}/nats.conf", "tars-settings doctor"]
    return Made({"nats.conf": conf}, then)


def _variable(name: str) -> str:
    return f"PASSWORD_{name.upper().replace('-', '_')}"


def _nats_user(name: str, publish: Sequence[str], subscribe: Sequence[str]) -> str:
    # A subscription of QoS 1 is delivered on a subject of its own.
    reading = ", ".join(f'"{one}"' for one in (*subscribe, "$MQTT.sub.>"))
    writing = ", ".join(f'"{one}"' for one in publish)
    return (
        f'    {{ user: "{name}", password: ${_variable(name)}, permissions: {{\n'
        f"        publish: [{writing}],\n        subscribe: [{reading}] }} }}"
    )


# --- amqtt ------------------------------------------------------------------------------------------------------------


def _amqtt(wanted: Wanted) -> Made:
    reads = [f"{wanted.prefix}/#", f"{wanted.health_prefix}/#"]
    publish = {name: [f"{wanted.prefix}/#", *wanted.shared] for name in WRITERS}
    publish |= {name: [*wanted.own(name), *wanted.shared] for name in wanted.services}
    subscribe = dict.fromkeys(WRITERS, reads)
    subscribe |= {name: [f"{wanted.prefix}/#", *wanted.own(name), *wanted.shared] for name in wanted.services}
    conf = f"""\
# amqtt keeps retained messages in memory only: a fleet fills it again, or tars-settings import does.
listeners:
  default:
    type: tcp
    bind: 0.0.0.0:{wanted.port}
plugins:
  amqtt.plugins.authentication.FileAuthPlugin:
    password_file: {wanted.directory}/passwd
  amqtt.plugins.topic_checking.TopicAccessControlListPlugin:
    publish_acl:
{_yaml(publish)}
    acl:
{_yaml(subscribe)}
"""
    hashed = "from pwdlib import PasswordHash as P; print(P.recommended().hash(input()))"
    then = [f'python -c "{hashed}"  # a line USER:HASH in {wanted.directory}/passwd: {" ".join(_users(wanted))}']
    then += [f"amqtt -c {wanted.directory}/amqtt.yaml"]
    # amqtt 0.12 takes the properties of MQTT 5 for a length, and waits.
    then += ["export TARS_SETTINGS_PROTOCOL=3.1.1  # here and in every worker's environment", "tars-settings doctor"]
    return Made({"amqtt.yaml": conf}, then)


def _yaml(rules: Mapping[str, Sequence[str]]) -> str:
    listed = {name: ", ".join(f'"{topic}"' for topic in topics) for name, topics in rules.items()}
    return "\n".join(f"      {name}: [{topics}]" for name, topics in listed.items())


_KINDS: Final[Mapping[str, Callable[[Wanted], Made]]] = {"mosquitto": _mosquitto, "nats": _nats, "amqtt": _amqtt}
