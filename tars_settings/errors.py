"""The whole error tree, by whose fault it is and what can be done next.

Four branches: what the caller typed or passed (:class:`UsageError`), what surrounds the process
(:class:`SurroundingsError`), what was asked for and answered with no (:class:`RefusedError`), and what was received
from the outside and is not to be trusted (:class:`RejectedError`). ``exit_code`` is what the command line ends with.
A message says what was held and what was received, names keys and never values, and ends with the next command to
type where there is one.
"""

from __future__ import annotations

from typing import ClassVar


class TarsSettingsError(Exception):
    """Root of everything that this library raises on purpose."""

    exit_code: ClassVar[int] = 1


# --- the caller's: what was typed or passed ------------------------------------------------------------------------


class UsageError(TarsSettingsError):
    """The call itself is wrong; nothing was changed."""

    exit_code: ClassVar[int] = 2


class IllegalNameError(UsageError, ValueError):
    """A service, instance, scope, key or prefix does not fit its grammar."""


class TooLargeError(UsageError, ValueError):
    """A delta or an envelope is over the limits of the wire; the message says which split would fit."""


class NoServiceError(UsageError):
    """A Settings class is to be joined or pushed to, and names no service."""


class ClosedError(UsageError):
    """The live object, fleet or writer was closed before."""


class ForkedError(UsageError):
    """This object belongs to the parent process; the child must join again."""


class FrozenSnapshotError(UsageError, AttributeError):
    """A live snapshot is immutable; change settings with ``tars-settings push``, or copy it."""


# --- the surroundings': broker, disk, keys, environment ------------------------------------------------------------


class SurroundingsError(TarsSettingsError):
    """Broker, disk, keys or environment variables are not as they must be."""

    exit_code: ClassVar[int] = 3


class ConfigurationError(SurroundingsError):
    """A ``TARS_SETTINGS_*`` variable is missing or malformed; the message names it and what made it."""


class StateDirError(SurroundingsError):
    """The state directory can't be made, or is not ours alone."""


class ReplicaError(SurroundingsError):
    """The replica can't be read or written; registers in memory are untouched."""


class LkgError(SurroundingsError):
    """The last-known-good store can't be read or written."""


class KeyFileError(SurroundingsError):
    """A key file is missing, malformed, or readable by others."""


class PassphraseError(KeyFileError):
    """A key file is under a passphrase, and none or another one was given."""


class BrokerError(SurroundingsError):
    """The broker can't be used."""


class BrokerUnreachableError(BrokerError):
    """No connection was made within the deadline."""


class BrokerUnsuitableError(BrokerError):
    """The broker is there and lacks something that can't be done without, such as retained messages."""


# --- the answer is no ----------------------------------------------------------------------------------------------


class RefusedError(TarsSettingsError):
    """A well-formed request was answered with no; nothing was published."""


class NotGrantedError(RefusedError):
    """The writer's grant does not cover what it wants to write."""


class NotCosignedError(NotGrantedError):
    """The grant demands cosignatures of other writers, and too few are there."""


class InvalidValueError(RefusedError):
    """Values do not fit the model or the schemas in use; all bad keys are named together."""


class ConflictError(RefusedError):
    """Someone else wrote first (``--expect-epoch``), or the push was superseded."""


class NothingOnTrialError(RefusedError):
    """There is nothing to confirm, revert or promote."""


class NotSyncedError(RefusedError):
    """The writer could not catch up with the scope that it wants to write."""


class EpochExhaustedError(RefusedError):
    """The scope's epoch is at or near its end; the root must raise the gen."""


class PlainOrSecretError(RefusedError):
    """The first value of a key that nobody described must say whether it is a secret."""


# --- received from outside, not to be trusted ----------------------------------------------------------------------


class RejectedError(TarsSettingsError):
    """Bytes from the broker, the disk or a file did not pass; nothing of them was used."""

    reason: ClassVar[str] = "rejected"


class MalformedError(RejectedError):
    """Not of the form that the wire has: size, JSON, fields, grammar or canonical encoding."""

    reason: ClassVar[str] = "malformed"


class NewerVersionError(MalformedError):
    """An envelope of a version that this release does not know; it is left alone and never repaired over."""

    reason: ClassVar[str] = "newer-version"


class BadSignatureError(RejectedError):
    """The signature does not fit these bytes, this purpose, this fleet and this key."""

    reason: ClassVar[str] = "bad-signature"


class UntrustedError(RejectedError):
    """A trust document that does not follow from the one that is held."""

    reason: ClassVar[str] = "untrusted"


class ChainMissingError(UntrustedError):
    """A trust document that its own roots signed and the held ones did not: the versions between may lead to it."""


class SealBrokenError(RejectedError):
    """Sealed content was made with another key or for another purpose, or was changed."""

    reason: ClassVar[str] = "seal-broken"


class DecryptionError(RejectedError):
    """An encrypted value does not open: another key, another place, or changed bytes."""

    reason: ClassVar[str] = "decryption"


class SecretKeyMissingError(DecryptionError):
    """An encrypted value names a key id that this process does not hold."""

    reason: ClassVar[str] = "secret-key-missing"
