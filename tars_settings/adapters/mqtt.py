"""MQTT through paho, without paho's thread: the only door to ``paho``.

One paho client lives from CONNECT to the end of its connection and is thrown away then: a client that reconnects sends
its unacknowledged QoS 1 messages again, and one bad message becomes an endless loop (REVIEW F8). Nothing here starts a
thread or waits, except :meth:`MqttTransport.connect`, which has a deadline.
"""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal

from paho.mqtt import MQTTException
from paho.mqtt.client import Client, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MessageType, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from tars_settings.adapters.address import BrokerAddress
from tars_settings.core.session import (
    Acknowledged,
    Publish,
    Received,
    SessionDown,
    SessionEvent,
    SessionUp,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from tars_settings.errors import BrokerUnreachableError, BrokerUnsuitableError

__all__ = ["BrokerAddress", "MqttTransport"]

_log: Final = logging.getLogger("tars_settings.mqtt")

Version = Literal[4, 5]

_SUCCESS: Final = MQTTErrorCode.MQTT_ERR_SUCCESS
_PUBLISH: Final = int(MessageType.PUBLISH)
_PUBACK: Final = bytes((MessageType.PUBACK, 2))
_PACKETS_A_READ: Final = 64
_VERDICT_S: Final = 1.0
_FILTERS_A_PACKET: Final = 8
"""AWS IoT refuses a SUBSCRIBE with more."""

_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)

_UNSUPPORTED_VERSION: Final = 0x84
_QOS_NOT_SUPPORTED: Final = 0x9B
_REFUSED_FOR_GOOD: Final = frozenset({_UNSUPPORTED_VERSION, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x9A})
"""Unsupported version, client id, bad credentials, not authorized, banned, bad method, retain not supported."""

# What paho's parser was seen to raise, or can by its code, on bytes that no honest broker sends. A KeyError of ours in
# a callback ends the session too, and not the thread that all sessions depend on.
_PARSER_FAULTS: Final = (
    MQTTException,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)


class MqttTransport:
    """A session with a broker, fulfilling :class:`tars_settings.ports.Transport`.

    With *protocol* ``auto`` MQTT 5 is tried first; a broker that refuses it is spoken to in 3.1.1 from then on. A peer
    whose broker refuses it for good (credentials, certificate, no retained messages) is told so by the next
    :meth:`connect`.
    """

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        *,
        protocol: Literal["auto", "5", "3.1.1"] = "auto",
        connect_timeout_s: float = 5.0,
        connack_timeout_s: float = 5.0,
        keepalive_s: int = 30,
        max_packet_bytes: int = 65536,
    ) -> None:
        self._options = _Options(address, client_id, connect_timeout_s, keepalive_s, max_packet_bytes)
        self._connack_timeout_s = connack_timeout_s
        self._auto = protocol == "auto"
        fixed: dict[str, Version] = {"5": 5, "3.1.1": 4}
        self._version: Version | None = fixed.get(protocol)
        self._will: tuple[str, bytes] | None = None
        self._session: _Session | None = None
        self._events: list[SessionEvent] = []
        self._unsuitable = ""
        self._was_silent = False

    def __repr__(self) -> str:
        return f"<MqttTransport {self._options.address}>"

    def connect(self) -> None:
        """Start a session; blocks at most for the connect deadline, plus three seconds when the version is unknown.

        Raises:
            BrokerUnreachableError: no connection within the deadline. The transport can be tried again.
            BrokerUnsuitableError: the broker refuses for good (credentials, TLS, no retained messages).
        """
        self.close()
        if self._unsuitable:
            reason, self._unsuitable = self._unsuitable, ""
            raise BrokerUnsuitableError(reason)
        if self._version is None:
            self._negotiate()
        else:
            self._start(self._version)

    def _start(self, version: Version) -> _Session:
        self.close()
        session = _Session(self._options, version, self._will, self._events)
        session.open()
        self._session = session
        return session

    def _negotiate(self) -> None:
        """Find out which version the broker speaks.

        One that says so (CONNACK 0x84, or 1 as in 3.1.1) is believed at once. One that merely closes may be down behind
        a proxy that accepts for it, and one that was silent in the session before may have been busy (amqtt 0.12 takes
        the properties of 5 for a length and waits for the rest): before 5 is given up, 3.1.1 must be accepted and 5
        fail once more.
        """
        was_silent, self._was_silent = self._was_silent, False
        verdict = _Verdict.CLOSED if was_silent else self._attempt(5)
        if verdict is _Verdict.CLOSED:
            if (older := self._attempt(4)) is _Verdict.PENDING:
                return
            if older is not _Verdict.UP:
                raise BrokerUnreachableError(f"{self._options.address} closes the connection before it answers")
            verdict = self._attempt(5)
        if verdict in (_Verdict.OTHER_VERSION, _Verdict.CLOSED) or (was_silent and verdict is _Verdict.PENDING):
            _log.warning("the broker does not speak MQTT 5; using 3.1.1: no size guard, and lost values show later")
            self._version = 4
            self._start(4)

    def _attempt(self, version: Version) -> _Verdict:
        """Start a session and wait a moment for the broker's answer.

        Raises:
            BrokerUnsuitableError: the answer is no for good, and not because of the version.
            BrokerUnreachableError: the answer is no for now, or the session ended as soon as it had begun.
        """
        session = self._start(version)
        session.wait_for_verdict(time.monotonic() + min(_VERDICT_S, self._options.connect_timeout_s))
        verdict = session.verdict
        self._learn(session)
        if session.ended:
            self._forget()
        if verdict is _Verdict.REFUSED:
            reason, self._unsuitable = session.reason, ""
            raise (BrokerUnsuitableError if session.refused_for_good else BrokerUnreachableError)(reason)
        if verdict is _Verdict.UP and session.ended and version == 5:
            raise BrokerUnreachableError(session.reason)
        return verdict

    def _learn(self, session: _Session) -> None:
        """Keep what the session found out for those that come after it."""
        if session.verdict is _Verdict.UP and session.version == 5 and self._auto:
            self._version = 5
        if session.verdict is _Verdict.OTHER_VERSION and self._auto:
            self._version = None
        if session.version == 5 and self._auto and session.was_silent:
            self._was_silent = True
        self._options.max_qos = min(self._options.max_qos, session.max_qos)
        self._options.keepalive_s = session.keepalive_s
        other = session.verdict is _Verdict.OTHER_VERSION and self._auto
        if session.ended and session.refused_for_good and not other:
            self._unsuitable = session.reason

    def fileno(self) -> int:
        """Return the socket's descriptor, or -1 when there is none."""
        return self._session.fileno() if self._session is not None else -1

    def pending(self) -> bool:
        """Return whether events wait here, or bytes in TLS's own buffer, that a selector cannot see."""
        return bool(self._events) or (self._session is not None and self._session.pending())

    def wants_write(self) -> bool:
        """Return whether packets wait to be written."""
        return self._session is not None and self._session.wants_write()

    def read(self) -> Sequence[SessionEvent]:
        """Read up to 64 packets and return what they brought, in order."""
        if self._session is not None:
            self._session.read()
        return self._harvest()

    def write(self) -> Sequence[SessionEvent]:
        """Write what waits, as far as the socket takes it."""
        if self._session is not None:
            self._session.write()
        return self._harvest()

    def tick(self, now_s: float) -> Sequence[SessionEvent]:
        """Keep the session alive, and end one that was never answered. Called about once a second."""
        if self._session is not None:
            self._session.tick(now_s, self._connack_timeout_s)
        return self._harvest()

    def _harvest(self) -> Sequence[SessionEvent]:
        if self._session is not None:
            self._learn(self._session)
            if self._session.ended:
                self._session = None
        events = tuple(self._events)
        self._events.clear()
        return events

    def carry_out(self, command: Subscribe | Unsubscribe | Publish) -> None:
        """Hand a command to the session; before SessionUp and after SessionDown it is dropped.

        What the broker would punish never leaves: the answer is a refusal, from the next read().
        """
        if self._session is None or not self._session.up:
            return
        match command:
            case Publish():
                self._session.publish(command)
            case Subscribe():
                self._session.subscribe(command)
            case Unsubscribe():
                self._session.unsubscribe(command)

    def set_will(self, topic: str, payload: bytes) -> None:
        """Set the last will (retained, QoS 1) for sessions that are started from now on.

        Raises:
            ValueError: the broker would refuse such a topic.
        """
        if fault := _topic_fault(topic):
            raise ValueError(fault)
        self._will = (topic, payload)

    def close(self) -> None:
        """End the session politely and free its descriptor; events that were not read are gone."""
        session = self._session
        self._forget()
        if session is not None:
            session.close()

    def abandon(self) -> None:
        """Free the descriptor without a word to the broker: for a forked child, whose parent owns the session."""
        session = self._session
        self._forget()
        if session is not None:
            session.drop()

    def _forget(self) -> None:
        self._session = None
        self._events.clear()


class _Verdict(Enum):
    """The broker's answer to CONNECT."""

    PENDING = "no answer yet"
    UP = "accepted"
    OTHER_VERSION = "refused this version of MQTT"
    REFUSED = "refused"
    CLOSED = "closed without an answer"


@dataclass
class _Options:
    """How to connect, and what earlier sessions taught of the broker's limits."""

    address: BrokerAddress
    client_id: str
    connect_timeout_s: float
    keepalive_s: int
    max_packet_bytes: int
    max_qos: int = 1


@dataclass
class _Asked:
    """A Subscribe whose packets are not all answered."""

    ref: int
    waiting: set[int] = field(default_factory=set)
    granted: bool = True


class _Buffered:
    """A socket that is read in large pieces. paho asks for one byte, then another, then the rest of each packet.

    Each ``recv`` lets go of the interpreter, and in a process that is busy in Python waits a switch interval (5 ms) to
    have it back. So one call to the system serves all packets that are there. Everything else is the socket's own.
    """

    _AT_ONCE: Final = 65536

    def __init__(self, inner: Any) -> None:
        self._socket = inner
        self._held = memoryview(b"")
        self._is_dry = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def holds(self) -> bool:
        """Return whether bytes wait here, that a selector cannot see."""
        return len(self._held) > 0

    def is_dry(self) -> bool:
        """Return whether nothing waits here, and the system had nothing more."""
        return self._is_dry and not self._held

    def look_again(self) -> None:
        """Ask the system once more from now on: a selector said that something is there."""
        self._is_dry = False

    def _has_decrypted(self) -> bool:
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def recv(self, size: int) -> bytes:
        """Return up to *size* bytes.

        Raises:
            BlockingIOError: nothing is there.
        """
        if not self._held:
            self._fill()
        given = bytes(self._held[:size])
        self._held = self._held[size:]
        return given

    def _fill(self) -> None:
        if self._is_dry:
            raise BlockingIOError
        piece = self._socket.recv(self._AT_ONCE)
        # Less than was asked for is all there was (TLS gives a record at a time); what comes meanwhile is the
        # selector's to see.
        self._is_dry = 0 < len(piece) < self._AT_ONCE and not self._has_decrypted()
        self._held = memoryview(piece)

    def next_packet(self) -> tuple[int, memoryview, int] | None:
        """Return header, content and size of the packet that comes next where all of it is here; it stays.

        None too where the system has nothing, or something to complain of: it says so again to whoever reads.
        """
        try:
            if not self._held:
                self._fill()
        except OSError:
            return None
        held, size = self._held, 0
        for at in range(1, min(5, len(held))):
            size |= (held[at] & 127) << 7 * (at - 1)
            if held[at] < 128:
                end = at + 1 + size
                return (held[0], held[at + 1 : end], end) if end <= len(held) else None
        return None

    def pass_over(self, size: int) -> None:
        """Go on behind a packet."""
        self._held = self._held[size:]


class _Client(Client):
    on_plain: Callable[[bytes, bytes, bool], None]
    """Called with topic, payload and retain flag of each PUBLISH that has no properties: as good as all."""
    _acks = b""

    def _create_socket(self) -> Any:
        made = super()._create_socket()
        return made if self._transport == "websockets" else _Buffered(made)

    # paho reads a packet byte by byte, makes five tables of properties for each message, and matches it with callbacks
    # that nobody registered: more than a worker does with a change. What is not plain is left to it, faults too.

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        buffer = self._sock
        if isinstance(buffer, _Buffered) and not self._in_packet["command"]:
            packet = buffer.next_packet()
            if packet is not None and packet[0] & 0xF0 == _PUBLISH and self._take_plain(packet[0], packet[1]):
                buffer.pass_over(packet[2])
                self._last_bytes_received = time.monotonic()  # paho's own, to know when to ping
                return _SUCCESS
        return super().loop_read(max_packets)

    def _handle_publish(self) -> MQTTErrorCode:
        header, packet = self._in_packet["command"], self._in_packet["packet"]
        if self._take_plain(header, packet):
            return _SUCCESS
        self.queue_acks()  # paho queues its own at once, and they are owed in the order of the messages
        return super()._handle_publish()

    def _take_plain(self, header: int, packet: bytearray | memoryview) -> bool:
        """Hand over a message and note its acknowledgement; return False, and do nothing, where it is not plain."""
        qos = header >> 1 & 3
        topic_end = 2 + int.from_bytes(packet[:2], "big")
        begin = topic_end + (2 if qos else 0)
        five = self._protocol == MQTTProtocolVersion.MQTTv5
        if qos > 1 or topic_end == 2 or begin + five > len(packet) or (five and packet[begin]):
            return False
        self.on_plain(bytes(packet[2:topic_end]), bytes(packet[begin + five :]), bool(header & 1))
        if qos:
            self._acks += _PUBACK + packet[topic_end:begin]
        return True

    def want_write(self) -> bool:
        return bool(self._acks) or super().want_write()

    def loop_write(self) -> MQTTErrorCode:
        self.queue_acks()
        return super().loop_write()

    def queue_acks(self) -> None:
        """Queue the acknowledgements that are owed: as one packet, for paho asks the system once for each."""
        if self._acks:
            acks, self._acks = self._acks, b""
            self._packet_queue(_PUBACK[0], acks, 0, 1)

    def __del__(self) -> None:
        # paho's own takes locks that a forked child may find held for ever; the session closes the socket itself.
        pass


class _Session:
    """One paho client and its connection, from CONNECT to its end. Callbacks only append events."""

    def __init__(
        self, options: _Options, version: Version, will: tuple[str, bytes] | None, events: list[SessionEvent]
    ) -> None:
        self.version = version
        self.verdict = _Verdict.PENDING
        self.ended = False
        self.reason = ""
        self.refused_for_good = False
        self.was_silent = False
        self.max_qos = options.max_qos
        self.keepalive_s = options.keepalive_s
        self._options = options
        self._events = events
        self._limit_bytes = options.max_packet_bytes
        self._since_s: float | None = None
        self._publishes: dict[int, int] = {}
        self._subscribes: dict[int, _Asked] = {}
        self._client = self._new_client(will)
        self._socket: Any = None  # a socket, an SSL socket, or paho's websocket around one of them
        self._raw: Any = None
        self._buffer: _Buffered | None = None
        self._tcp = False

    # --- life ------------------------------------------------------------------------------------------------------

    def _new_client(self, will: tuple[str, bytes] | None) -> _Client:
        address, five = self._options.address, self.version == 5
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._options.client_id,
            clean_session=None if five else True,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            transport="unix" if address.scheme == "unix" else "websockets" if address.websocket else "tcp",
            reconnect_on_failure=False,  # paho would go on to MQTT 3.1 by itself
        )
        if address.username is not None:
            client.username_pw_set(address.username, address.password)
        if address.websocket:
            client.ws_set_options(path=address.path)
        if will is not None:
            client.will_set(will[0], will[1], qos=self.max_qos, retain=True)
        self._listen(client)
        return client

    def _listen(self, client: _Client) -> None:
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_plain = self._on_plain
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        # Without this paho writes to the socket from within publish() and subscribe().
        client.on_socket_register_write = lambda *_: None

    def open(self) -> None:
        """Connect the socket (TLS and websocket handshakes included) and queue CONNECT.

        Raises:
            BrokerUnreachableError: see :meth:`MqttTransport.connect`.
            BrokerUnsuitableError: the same.
        """
        address = self._options.address
        if address.tls:
            self._client.tls_set_context(_tls_context(address))
        # paho grants this to each of TCP, TLS and websocket; together they stay within the deadline.
        self._client.connect_timeout = self._options.connect_timeout_s / (1 + address.tls + address.websocket)
        try:
            self._client.connect_async(
                address.host,
                address.port or 1883,  # paho wants one for a unix socket too
                keepalive=self._options.keepalive_s,
                clean_start=True,
                properties=self._connect_properties(),
            )
            self._client.reconnect()
        except ssl.SSLCertVerificationError as error:
            raise BrokerUnsuitableError(f"{address} shows a certificate that fails: {error.verify_message}") from error
        except (OSError, ValueError, LookupError) as error:
            raise BrokerUnreachableError(f"{address} can't be reached: {str(error) or type(error).__name__}") from error
        self._socket = self._client.socket()
        self._raw = getattr(self._socket, "_socket", self._socket)
        self._buffer = self._socket if isinstance(self._socket, _Buffered) else None
        self._tune()

    def _connect_properties(self) -> Properties | None:
        if self.version == 4:
            return None
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 0
        properties.MaximumPacketSize = self._options.max_packet_bytes
        return properties

    def _tune(self) -> None:
        self._tcp = self._raw.family in (socket.AF_INET, socket.AF_INET6)
        if self._tcp:
            self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._quickack()

    def _quickack(self) -> None:
        # mosquitto runs with Nagle on, which waits for our delayed acknowledgement. Linux forgets the option when it
        # sends, so it is set after each write: what comes then is acknowledged as it is read, and no reading waits for
        # this. Connecting and 51 retained messages took 43 ms without it and 2 with it.
        if self._tcp and _QUICKACK is not None:
            self._raw.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def wait_for_verdict(self, end_s: float) -> None:
        """Drive the session until the broker answered CONNECT or the time (monotonic) is over."""
        self.write()
        with selectors.DefaultSelector() as selector:
            if not self.ended:
                selector.register(self.fileno(), selectors.EVENT_READ)
            while self.verdict is _Verdict.PENDING and (left_s := end_s - time.monotonic()) > 0:
                if self.pending() or selector.select(left_s):
                    self.read()

    def close(self) -> None:
        """Say DISCONNECT as far as the socket takes it at once, and close."""
        if self.up and not self.ended:
            self._guarded(self._client.queue_acks)
            self._guarded(self._client.disconnect)
            self._guarded(self._client.loop_write)
        self.drop()

    def drop(self) -> None:
        """Close the socket without a word. No lock of paho's is touched: a forked child may find one held."""
        self.ended = True
        if self._socket is not None:
            self._socket.close()

    def _end(self, reason: str, verdict: _Verdict = _Verdict.CLOSED) -> None:
        if self.ended:
            return
        if self.verdict is _Verdict.PENDING:
            self.verdict = verdict
        self.reason = reason
        self._events.append(SessionDown(reason))
        self.drop()

    # --- the loop --------------------------------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        """Whether the broker accepted the session."""
        return self.verdict is _Verdict.UP

    def fileno(self) -> int:
        """Return the socket's descriptor, or -1."""
        return -1 if self.ended or self._raw is None else int(self._raw.fileno())

    def pending(self) -> bool:
        """Return whether bytes wait that a selector cannot see: read already, or decrypted by TLS."""
        if self.ended:
            return False
        return self._is_buffered() or (isinstance(self._raw, ssl.SSLSocket) and self._raw.pending() > 0)

    def _is_buffered(self) -> bool:
        return self._buffer is not None and self._buffer.holds()

    def wants_write(self) -> bool:
        """Return whether packets wait."""
        return not self.ended and self._client.want_write()

    def read(self) -> None:
        """Call paho until nothing is left: it reads about one packet a call, whatever it is asked for."""
        if self.ended:
            return
        if self._buffer is not None:
            self._buffer.look_again()
        for _ in range(_PACKETS_A_READ):
            before = len(self._events)
            self._guarded(self._client.loop_read)
            if self._is_drained(before):
                return

    def _is_drained(self, before: int) -> bool:
        if self._buffer is not None and self._buffer.is_dry():
            return True
        return self.ended or (len(self._events) == before and not self.pending())

    def write(self) -> None:
        """Write what the socket takes."""
        if self.wants_write():
            self._guarded(self._client.loop_write)
            if not self.ended:
                self._guarded(self._quickack)

    def tick(self, now_s: float, connack_timeout_s: float) -> None:
        """Ping when it is time; end a session that has waited too long for its CONNACK."""
        if self._since_s is None:
            self._since_s = now_s
        if self.verdict is _Verdict.PENDING and now_s - self._since_s >= connack_timeout_s:
            self.was_silent = True
            self._end(f"no answer to CONNECT within {connack_timeout_s:g} s")
        if not self.ended:
            self._guarded(self._client.loop_misc)

    def _guarded(self, step: Callable[[], object]) -> None:
        try:
            step()
        except _PARSER_FAULTS as error:
            _log.warning("the session is dropped: paho failed with %s", type(error).__name__)
            self._end(f"malformed packet or broken connection ({type(error).__name__})")
        if not self.ended and self._client.socket() is None:
            self._end("the connection was lost")

    # --- what paho calls -------------------------------------------------------------------------------------------

    def _on_connect(self, _client: Client, _userdata: Any, _flags: Any, code: ReasonCode, properties: Any) -> None:
        self._adopt_limits(properties)
        if code.is_failure:
            self._refuse(code)
        elif getattr(properties, "RetainAvailable", 1) == 0:
            self.refused_for_good = True
            self._end("the broker keeps no retained messages, which the fleet's state rests on", _Verdict.REFUSED)
        else:
            self.verdict = _Verdict.UP
            self._events.append(
                SessionUp(
                    protocol=self.version,
                    retain_as_published=self.version == 5,
                    max_packet_bytes=getattr(properties, "MaximumPacketSize", 0),
                )
            )

    def _adopt_limits(self, properties: Any) -> None:
        self._limit_bytes = min(self._limit_bytes, getattr(properties, "MaximumPacketSize", self._limit_bytes))
        self.max_qos = min(self.max_qos, getattr(properties, "MaximumQoS", self.max_qos))
        # paho 2.1 does not adopt the server's keepalive itself; the next session asks for it.
        if asked_s := int(getattr(properties, "ServerKeepAlive", 0)):
            self.keepalive_s = min(self.keepalive_s, asked_s)

    def _refuse(self, code: ReasonCode) -> None:
        self.refused_for_good = code.value in _REFUSED_FOR_GOOD
        if code.value == _QOS_NOT_SUPPORTED:
            self.max_qos = 0  # it is the last will that it minds: the next one has QoS 0
        verdict = _Verdict.OTHER_VERSION if code.value == _UNSUPPORTED_VERSION else _Verdict.REFUSED
        self._end(f"the broker refused the connection: {code.getName()}", verdict)

    def _on_disconnect(
        self, _client: Client, _userdata: Any, flags: DisconnectFlags, code: ReasonCode, _properties: Any
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._end(f"the broker ended the session: {code.getName()}")
        elif self.up:
            self._end(f"the connection was lost: {code.getName()}")
        else:
            self._end("the broker closed the connection before it answered")

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic.encode()
        except UnicodeDecodeError:
            topic = b"\xff"
        self._on_plain(topic, bytes(message.payload), message.retain)

    def _on_plain(self, topic: bytes, payload: bytes, retain: bool) -> None:
        try:
            self._events.append(Received(topic.decode(), payload, retain))
        except UnicodeDecodeError:
            _log.debug("a message was dropped: its topic is not UTF-8")

    def _on_publish(self, _client: Client, _userdata: Any, mid: int, code: ReasonCode, _properties: Any) -> None:
        ref = self._publishes.pop(mid, None)
        if ref is not None:
            failed = code.value >= 0x80
            self._events.append(Acknowledged(ref, ok=not failed, reason=code.getName() if failed else ""))

    def _on_subscribe(
        self, _client: Client, _userdata: Any, mid: int, codes: Sequence[ReasonCode], _properties: Any
    ) -> None:
        asked = self._subscribes.pop(mid, None)
        if asked is None:
            return
        asked.waiting.discard(mid)
        asked.granted = asked.granted and all(code.value < 0x80 for code in codes)
        if not asked.waiting:
            self._events.append(Subscribed(asked.ref, asked.granted))

    # --- commands --------------------------------------------------------------------------------------------------

    def publish(self, command: Publish) -> None:
        """Queue a PUBLISH. Where the broker has no QoS 1, it is acknowledged once it is written."""
        fault = _topic_fault(command.topic) or self._size_fault(command)
        if not fault:
            qos = min(command.qos, self.max_qos)
            sent = self._client.publish(command.topic, command.payload, qos, command.retain)
            if sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                fault = "no room for another unacknowledged message"
            elif command.qos:
                self._publishes[sent.mid] = command.ref
        if fault:
            _log.warning("a message was not published: %s", fault)
            self._events.append(Acknowledged(command.ref, ok=False, reason=fault))

    def _size_fault(self, command: Publish) -> str:
        # Fixed header 5, topic's length 2, packet id 2, properties' length 1.
        size = 10 + len(command.topic.encode()) + len(command.payload)
        return f"{size} bytes are over the limit of {self._limit_bytes}" if size > self._limit_bytes else ""

    def subscribe(self, command: Subscribe) -> None:
        """Queue SUBSCRIBE packets of at most eight filters, one behind the other."""
        if not command.filters or not all(map(_is_legal_filter, command.filters)):
            _log.warning("a subscription was not asked for: a filter is malformed")
            self._events.append(Subscribed(command.ref, granted=False))
            return
        asked = _Asked(command.ref)
        for start in range(0, len(command.filters), _FILTERS_A_PACKET):
            mid = self._subscribe_to(command.filters[start : start + _FILTERS_A_PACKET], command)
            asked.waiting.add(mid)
            self._subscribes[mid] = asked

    def _subscribe_to(self, filters: tuple[str, ...], command: Subscribe) -> int:
        if self.version == 5:
            options = SubscribeOptions(
                qos=command.qos, retainAsPublished=True, retainHandling=0 if command.replay else 2
            )
            _, mid = self._client.subscribe([(name, options) for name in filters])
        else:
            _, mid = self._client.subscribe([(name, int(command.qos)) for name in filters])
        return mid if mid is not None else -1

    def unsubscribe(self, command: Unsubscribe) -> None:
        """Queue UNSUBSCRIBE packets."""
        filters = [name for name in command.filters if _is_legal_filter(name)]
        for start in range(0, len(filters), _FILTERS_A_PACKET):
            self._client.unsubscribe(filters[start : start + _FILTERS_A_PACKET])


def _is_plain(text: str) -> bool:
    """Return whether brokers take *text*: no control characters, no NUL, no lone surrogates, 1 to 65,535 bytes."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size <= 65535 and text.isprintable()


def _topic_fault(topic: str) -> str:
    if not _is_plain(topic):
        return "the topic is empty, too long, or holds characters that brokers disconnect for"
    if "+" in topic or "#" in topic or topic.startswith("$"):
        return "the topic holds a wildcard or belongs to the broker"
    return ""


def _is_legal_filter(text: str) -> bool:
    levels = text.split("/")
    wild = [level for level in levels if "+" in level or "#" in level]
    return _is_plain(text) and all(level in ("+", "#") for level in wild) and "#" not in levels[:-1]


def _tls_context(address: BrokerAddress) -> ssl.SSLContext:
    """Return a context that checks the broker's name and chain; files are read anew for each session, as they rotate.

    Raises:
        BrokerUnsuitableError: a file is missing or is not what it should be.
    """
    try:
        context = ssl.create_default_context(cafile=address.ca_file)
        if address.cert_file is not None:
            # Without a password OpenSSL would ask for one on the terminal, and wait.
            context.load_cert_chain(address.cert_file, address.key_file, password="")
    except OSError as error:
        names = [name for name in (address.ca_file, address.cert_file, address.key_file) if name]
        raise BrokerUnsuitableError(f"TLS can't be set up with {', '.join(names)}: {error}") from error
    return context
