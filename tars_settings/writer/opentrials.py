"""What is on trial in a scope: found in the fleet's own values, so that any host with a writer's key can settle it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from tars_settings.core.delta import MAX_TRIAL_S, Algorithm, Assignment, Ciphertext, Delta, Trial
from tars_settings.core.names import overlap
from tars_settings.core.register import Register
from tars_settings.core.trial import bare
from tars_settings.errors import RefusedError, UsageError
from tars_settings.sources.environment import Environment
from tars_settings.sources.trials import age_s
from tars_settings.trust.secrets import NONCE_BYTES, decrypt, encrypt


@dataclass(frozen=True)
class OpenTrial:
    """A delta on trial, and the keys that it still wins; ``crossed`` are keys of newer deltas above or below them."""

    delta: Delta
    trial: Trial
    keys: tuple[str, ...]
    crossed: tuple[str, ...] = ()

    def is_fresh(self, wall: datetime) -> bool:
        """Return whether it runs at the time *wall*, or is over for no longer than it ran: somebody may mean it."""
        return age_s(self.delta, wall) < 2 * self.trial.within_s

    def __str__(self) -> str:
        return f"epoch {self.delta.stamp.epoch} ({', '.join(self.keys)})"

    def confirmed(self) -> tuple[Assignment, ...]:
        """Return what makes it stay."""
        return tuple(bare(item) for item in self.delta.assign if item.key in self.keys)

    def reverted(self) -> tuple[Assignment, ...]:
        """Return what ends it."""
        return tuple(item for item in self.trial.undo if item.key in self.keys)

    def check(self) -> bool:
        """Return True where it can be pushed again.

        Raises:
            RefusedError: it would hide something newer.
        """
        if self.crossed:
            raise RefusedError(
                f"{self.delta.scope} epoch {self.delta.stamp.epoch}: a newer push set {', '.join(self.crossed)}, which "
                "would be hidden; push the values that you want instead"
            )
        return True


def open_trials(winners: Mapping[str, Register]) -> tuple[OpenTrial, ...]:
    """Return the trials among the winners of a scope, oldest first."""
    found: dict[bytes, list[Register]] = {}
    for one in sorted(winners.values(), key=lambda one: (one.delta.stamp, one.key)):
        if one.delta.trial is not None:
            found.setdefault(one.delta.stamp.digest, []).append(one)
    return tuple(_open(registers, winners) for registers in found.values())


def _open(registers: list[Register], winners: Mapping[str, Register]) -> OpenTrial:
    delta, keys = registers[0].delta, tuple(one.key for one in registers)
    newer = [one.key for one in winners.values() if one.delta.stamp > delta.stamp]
    crossed = tuple(sorted(other for other in newer if any(overlap(other, key) for key in keys)))
    assert delta.trial is not None  # noqa: S101 - only such are looked at
    return OpenTrial(delta, delta.trial, keys, crossed)


def trial_seconds(revert_after_s: float | None) -> int:
    """Return for how many whole seconds a trial is, 0 where there is none.

    Raises:
        UsageError: it is shorter than a second or longer than a week.
    """
    if revert_after_s is None:
        return 0
    if not 1 <= revert_after_s <= MAX_TRIAL_S:
        raise UsageError("a trial is of 1 second to 7 days")
    return round(revert_after_s)


def moved(
    tried: OpenTrial, scope: str, environment: Environment, token: Callable[[int], bytes]
) -> tuple[Assignment, ...]:
    """Return what is on trial as it is said in another scope: there encrypted values are encrypted anew.

    Raises:
        DecryptionError: a value can't be decrypted here; SecretKeyMissingError where the key to it is not held.
    """
    return tuple(_moved(item, tried.delta.scope, scope, environment, token) for item in tried.confirmed())


def _moved(
    item: Assignment, scope: str, to: str, environment: Environment, token: Callable[[int], bytes]
) -> Assignment:
    if not isinstance(item.secret, Ciphertext):
        return item
    keys, fleet = environment.secret_keys(), environment.fleet_id
    plain = decrypt(item.secret, keys, fleet=fleet, scope=scope, key=item.key)
    held = keys[item.secret.id]
    alg: Algorithm = item.secret.alg
    fresh = encrypt(plain, held, fleet=fleet, scope=to, key=item.key, nonce=token(NONCE_BYTES[alg]), alg=alg)
    return Assignment(item.key, secret=fresh)
