"""Writing the last known good values of one service, after a snapshot was swapped in."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from tars_settings.adapters.lkg import DiskLkg
from tars_settings.core.delta import Delta
from tars_settings.errors import SurroundingsError
from tars_settings.sources.environment import Environment
from tars_settings.sources.stored import write_lkg
from tars_settings.trust.document import TrustDocument

_log: Final = logging.getLogger("tars_settings.agent")


class LastGood:
    """Keeps the signed deltas behind the last snapshot that validated and was used, sealed. It never raises.

    Used in the agent's thread only. Where it can't write, it says so once and is quiet until it can.
    """

    def __init__(self, environment: Environment, service: str, schema: str) -> None:
        self._environment = environment
        self._service = service
        self._schema = schema
        self._store: DiskLkg | None = None
        self._counter = 0
        self._written: tuple[bytes, ...] | None = None
        self.trouble = ""

    def write(self, deltas: Iterable[Delta], trust: TrustDocument) -> None:
        """Store the deltas behind a snapshot, unless they are what was stored last."""
        used = tuple(deltas)
        digests = (trust.digest, *sorted(delta.stamp.digest for delta in used))
        if trust.is_pin or digests == self._written:
            return
        try:
            self._write(used, trust)
        except SurroundingsError as error:
            if not self.trouble:
                _log.warning("%s: the last known good values are not kept: %s", self._service, error)
            self.trouble = str(error)
            return
        self.trouble = ""
        self._written = digests

    def _write(self, used: tuple[Delta, ...], trust: TrustDocument) -> None:
        key = self._environment.seal_key(create=True)
        if key is None:  # create=True makes one or raises
            return
        if self._store is None:
            self._store = DiskLkg(self._environment.lkg_dir(self._service))
        self._counter += 1
        write_lkg(
            self._store,
            key,
            fleet=trust.fleet,
            service=self._service,
            trust=(trust.raw,),
            deltas=used,
            schema=self._schema,
            counter=self._counter,
        )

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()
            self._store = None
