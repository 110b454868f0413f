"""Where the broker is and how to get in: the parsed form of ``TARS_SETTINGS_BROKER``. It opens nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal, cast
from urllib.parse import SplitResult, unquote, urlsplit

from tars_settings.errors import ConfigurationError

Scheme = Literal["mqtt", "mqtts", "ws", "wss", "unix"]

DEFAULT_PORTS: Final[Mapping[str, int]] = MappingProxyType(
    {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443, "unix": 0}
)
_TLS_OPTIONS: Final = ("ca", "cert", "key")
_EXAMPLE: Final = "an address looks like mqtt://user:password@broker.example:1883 or unix:///run/mosquitto.sock"


@dataclass(frozen=True)
class BrokerAddress:
    """A broker, the way to it, and the credentials for it. Neither ``str`` nor ``repr`` shows the password.

    ``host`` is the socket's path where the scheme is ``unix``; ``path`` is the websocket's path.

    >>> BrokerAddress.parse("wss://me:s%40fe@broker.example/mqtt?ca=/etc/ca.pem")
    BrokerAddress(scheme='wss', host='broker.example', port=443, username='me', path='/mqtt', \
ca_file='/etc/ca.pem', cert_file=None, key_file=None)
    """

    scheme: Scheme
    host: str
    port: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    path: str = ""
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    @classmethod
    def parse(
        cls, url: str, *, ca_file: str | None = None, cert_file: str | None = None, key_file: str | None = None
    ) -> BrokerAddress:
        """Parse a URL; the keyword arguments win over the URL's own ``?ca=``, ``?cert=`` and ``?key=``.

        Raises:
            ConfigurationError: it is no broker's address. The message never repeats the URL, which may hold a password.
        """
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError as error:
            raise _malformed("its host or port can't be read") from error
        scheme = _scheme(parts)
        address = _unix(parts) if scheme == "unix" else _network(parts, scheme, port)
        files = _files(parts.query, {"ca": ca_file, "cert": cert_file, "key": key_file})
        return _with_files(_with_credentials(address, parts), files)

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme in ("mqtts", "wss")

    @property
    def websocket(self) -> bool:
        """Whether MQTT travels in websocket frames."""
        return self.scheme in ("ws", "wss")

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def _malformed(why: str) -> ConfigurationError:
    return ConfigurationError(f"the broker's address is malformed: {why}; {_EXAMPLE}")


def _scheme(parts: SplitResult) -> Scheme:
    if parts.scheme not in DEFAULT_PORTS:
        known = ", ".join(f"{scheme}://" for scheme in DEFAULT_PORTS)
        raise _malformed(f"it must start with one of {known}")
    if parts.fragment:
        raise _malformed("it has a fragment; write # as %23")
    return cast("Scheme", parts.scheme)


def _network(parts: SplitResult, scheme: Scheme, port: int | None) -> BrokerAddress:
    if not parts.hostname:
        raise _malformed("it names no host")
    if port == 0:
        raise _malformed("port 0 is no port")
    path = unquote(parts.path)
    if scheme in ("ws", "wss"):
        if not (path.isascii() and path.isprintable()) or " " in path:
            raise _malformed("its path must be plain ASCII without blanks")
        path = path or "/mqtt"
    elif path not in ("", "/"):
        raise _malformed(f"{scheme}:// takes no path")
    else:
        path = ""
    return BrokerAddress(scheme, parts.hostname, port or DEFAULT_PORTS[scheme], path=path)


def _unix(parts: SplitResult) -> BrokerAddress:
    path = _decoded(parts.path)
    if parts.hostname or not path.startswith("/"):
        raise _malformed("a unix socket is named by an absolute path, with three slashes")
    if "\0" in path:
        raise _malformed("its path holds a NUL")
    return BrokerAddress("unix", path)


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise _malformed("its percent-encoding is not UTF-8") from error


def _with_credentials(address: BrokerAddress, parts: SplitResult) -> BrokerAddress:
    if not parts.username:
        if parts.password:
            raise _malformed("it has a password and no user")
        return address
    password = None if parts.password is None else _decoded(parts.password)
    return replace(address, username=_decoded(parts.username), password=password)


def _files(query: str, given: Mapping[str, str | None]) -> dict[str, str]:
    files: dict[str, str] = {}
    for option in filter(None, query.split("&")):
        name, equals, value = option.partition("=")
        if name not in _TLS_OPTIONS or name in files or not equals or not value:
            raise _malformed("the options after ? are ca=, cert= and key=, each with a file, each once")
        files[name] = _decoded(value)
    return files | {name: value for name, value in given.items() if value}


def _with_files(address: BrokerAddress, files: Mapping[str, str]) -> BrokerAddress:
    if files and not address.tls:
        raise _malformed(
            f"{address.scheme}:// does not encrypt, so CA and certificates are of no use; use mqtts:// or wss://"
        )
    if "key" in files and "cert" not in files:
        raise _malformed("it has a client key and no client certificate")
    return replace(address, ca_file=files.get("ca"), cert_file=files.get("cert"), key_file=files.get("key"))
