"""The trust chain as far as it is here: the document in force, and those on the way to it.

They are kept for those who come later: where roots changed, the newest document can't be followed without the steps
between.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tars_settings.core.records import Row, TrustRow
from tars_settings.core.topics import TrustTopic
from tars_settings.errors import MalformedError, RejectedError
from tars_settings.trust.document import TrustDocument, follow, pin, version_of

MAX_STEPS: Final = 8
"""Steps of the chain that are asked for at a time."""


class Chain:
    """Verified trust documents by version, beginning with the pinned root key."""

    def __init__(self, root_public: bytes) -> None:
        self._pin = pin(root_public)
        self._followed: dict[int, TrustDocument] = {}
        self.newest: TrustDocument = self._pin

    def raw(self, version: int | None) -> bytes | None:
        """Return the bytes of a version, of the newest where None; None where it is not here."""
        document = self.newest if version is None else self._followed.get(version)
        return None if document is None or document.is_pin else document.raw

    def versions(self) -> tuple[int, ...]:
        """Return the versions that are here, in order."""
        return tuple(sorted(self._followed))

    def documents(self) -> tuple[TrustDocument, ...]:
        """Return the documents that are here, in order."""
        return tuple(self._followed[version] for version in self.versions())

    def follow(self, topic: TrustTopic, payload: bytes) -> TrustDocument | None:
        """Return the verified document in *payload*, or None where it is of a step that nothing is known of.

        Raises:
            MalformedError: no trust document, or another version than the topic says.
            ChainMissingError: steps between may lead to it.
            UntrustedError: it does not follow.
        """
        version, _ = version_of(payload, self._pin.fleet)
        if topic.version not in (None, version):
            raise MalformedError("a trust document of another version than its topic says")
        if topic.version is not None and version < self.newest.version and version not in self._followed:
            return None
        if version > self.newest.version:
            return follow(self.newest, payload)
        return follow(self._before(version), payload)

    def _before(self, version: int) -> TrustDocument:
        """Return the document that a version was followed from: of two of one version neither judges the other."""
        below = [held for held in self._followed if held < version]
        return self._followed[max(below)] if below else self._pin

    def holds(self, document: TrustDocument) -> bool:
        """Return whether this very document is here; its bytes may carry other cosignatures."""
        held = self._followed.get(document.version)
        return held is not None and held.digest == document.digest

    def adopt(self, document: TrustDocument) -> None:
        """Put a document that follows in force."""
        self._followed[document.version] = document
        self.newest = document

    def replaces_step(self, document: TrustDocument) -> bool:
        """Return whether *document* is to take the place of the other one of its version, below the one in force.

        The greater digest, as for the one in force: or peers that came along different ones repair them for ever.
        """
        held, after = self._followed.get(document.version), [v for v in self._followed if v > document.version]
        if held is None or document.digest <= held.digest or not after:
            return False
        try:
            follow(document, self._followed[min(after)].raw)
        except RejectedError:
            return False
        return True

    def replace_step(self, document: TrustDocument) -> None:
        """Keep *document* as the step of its version."""
        self._followed[document.version] = document

    def displaced(self, document: TrustDocument) -> tuple[Row, ...]:
        """Return the row that *document* takes the place of: the other one of its version."""
        other = self._followed.get(document.version)
        return () if other is None or other.digest == document.digest else (self.row(other),)

    @staticmethod
    def row(document: TrustDocument) -> TrustRow:
        """Return the row of a document."""
        return TrustRow(document.version, document.digest, document.raw)

    def steps_to(self, payloads: Iterable[bytes]) -> tuple[int, ...]:
        """Return the next few versions on the way to the documents in *payloads*."""
        last = max((self._version(payload) for payload in payloads), default=0)
        first = self.newest.version + 1
        return tuple(range(first, min(last, first + MAX_STEPS)))

    def _version(self, payload: bytes) -> int:
        try:
            return version_of(payload, self._pin.fleet)[0]
        except RejectedError:
            return 0
