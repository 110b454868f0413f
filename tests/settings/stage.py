"""A fleet on disk for tests: keys, a trust document, and a replica that deltas are written to as a worker would."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tars_settings.adapters.lkg import DiskLkg
from tars_settings.adapters.replica import SqliteReplica
from tars_settings.core.delta import Assignment, Delta, DeltaBody, Trial
from tars_settings.core.names import scopes_of
from tars_settings.core.records import DeltaRow, TrustRow
from tars_settings.core.register import FleetView, Registers
from tars_settings.core.wire import encode
from tars_settings.sources.environment import Environment
from tars_settings.sources.lastgood import write_lkg
from tars_settings.trust.document import TrustBody, Writer, follow, pin
from tars_settings.trust.keys import SecretKey, SigningKey, fleet_text
from tars_settings.trust.secrets import encrypt
from tars_settings.trust.validity import Verdict, read_delta

ROOT = SigningKey("root", "root", b"r" * 32)
WRITER = SigningKey("writer", "ops-1", b"w" * 32)
OTHER = SigningKey("writer", "ops-2", b"o" * 32)
STRANGER = SigningKey("writer", "nobody", b"s" * 32)
SECRET = SecretKey("stt", b"k" * 32)
SERVICE = "stt-worker"
INSTANCE = "pi-3"
PIN = pin(ROOT.public)
FLEET = PIN.fleet


def trust_raw(version: int = 1, *, status: str = "active", gen: int = 0) -> bytes:
    writers = (
        Writer("ops-1", WRITER.public, ("*", "_all"), status),  # type: ignore[arg-type]
        Writer("ops-2", OTHER.public, ("*", "_all")),
    )
    return ROOT.sign("trust", FLEET, encode(TrustBody(version, gen, (ROOT.public,), 1, writers)))


TRUST = follow(PIN, trust_raw())


def secret(value: Any, *, scope: str = SERVICE, key: str, under: SecretKey = SECRET) -> Assignment:
    """Return an encrypted assignment."""
    text = encrypt(encode(value), under, fleet=FLEET, scope=scope, key=key, nonce=b"n" * 24)
    return Assignment(key, secret=text)


def delta(  # noqa: PLR0913 - each a field of it
    values: Mapping[str, Any],
    epoch: int,
    *,
    scope: str = SERVICE,
    unset: Iterable[str] = (),
    secrets: Iterable[Assignment] = (),
    by: SigningKey = WRITER,
    reason: str = "",
    fleet: str = FLEET,
    trial: Trial | None = None,
) -> bytes:
    """Return a signed delta."""
    items = (
        *(Assignment(key, set=value) for key, value in values.items()),
        *secrets,
        *(Assignment(key, unset=True) for key in unset),
    )
    body = DeltaBody(scope, 0, epoch, 1, items, at="2026-01-02T03:04:05Z", by="a person", reason=reason)
    if trial is not None:
        body = msgspec.structs.replace(body, trial=trial)
    return by.sign("delta", fleet, encode(body))


def parsed(raw: bytes) -> Delta:
    """Return a delta that must be valid."""
    found, judgement = read_delta(raw, TRUST)
    assert judgement.verdict is Verdict.VALID
    return found


def view_of(*raws: bytes, instance: str = INSTANCE) -> FleetView:
    """Return what valid deltas say to the worker."""
    registers = Registers()
    for raw in raws:
        registers.offer(parsed(raw))
    return FleetView.of(registers, scopes_of(SERVICE, instance))


class Stage:
    """A state directory and an environment that points to it."""

    def __init__(self, directory: Path) -> None:
        self.variables = {
            "TARS_SETTINGS_FLEET": fleet_text(ROOT.public),
            "TARS_SETTINGS_STATE_DIR": str(directory),
            "TARS_SETTINGS_INSTANCE": INSTANCE,
            "TARS_SETTINGS_SECRET_KEYS": SECRET.to_text(),
        }
        self.environment = Environment.read(
            fleet=fleet_text(ROOT.public), state_dir=directory, instance=INSTANCE, secret_keys=SECRET.to_text()
        )

    @property
    def replica_path(self) -> Path:
        return self.environment.replica_path

    def store(self, *raws: bytes, trust: Iterable[bytes] = (trust_raw(),)) -> None:
        """Write deltas (valid or not) and trust documents to the replica."""
        directory = self.replica_path.parent
        for one in (directory.parent, directory):
            one.mkdir(mode=0o700, exist_ok=True)
            one.chmod(0o700)
        replica = SqliteReplica(self.replica_path)
        rows: list[Any] = [TrustRow(number, bytes([number]) * 32, raw) for number, raw in enumerate(trust, 1)]
        for raw in raws:
            found = _row(raw)
            rows.append(found)
        replica.apply(rows)
        replica.close()

    def keep(self, *raws: bytes, service: str = SERVICE) -> None:
        """Write deltas as the last known good values."""
        key = self.environment.seal_key(create=True)
        assert key is not None
        store = DiskLkg(self.environment.lkg_dir(service))
        write_lkg(store, key, fleet=FLEET, service=service, trust=[trust_raw()], deltas=map(parsed, raws))
        store.close()


def _row(raw: bytes) -> DeltaRow:
    from tars_settings.core.delta import parse_delta

    _, found = parse_delta(raw, FLEET)
    return DeltaRow(found.scope, found.stamp.digest, raw)
