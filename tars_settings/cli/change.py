"""A change of one scope: what commands make of words, files and edited text, and what is carried out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tars_settings.cli.allowed import with_allowed
from tars_settings.cli.splitting import parts_of
from tars_settings.core.delta import Assignment
from tars_settings.core.names import Scope
from tars_settings.errors import InvalidValueError
from tars_settings.settings import Settings
from tars_settings.writer import Receipt, Writer


@dataclass(frozen=True)
class Change:
    """What is to become of one scope. *target* is the Settings class that knows the values, else the scope.

    *secret* and *plain* are the keys of which that is known; *options* go to :meth:`Writer.push` as they are; *schemas*
    are those by which it was typed.
    """

    scope: Scope
    target: type[Settings] | str
    values: Mapping[str, Any] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    secret: frozenset[str] = frozenset()
    plain: frozenset[str] = frozenset()
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    schemas: tuple[bytes, ...] = ()

    @property
    def items(self) -> dict[str, Any]:
        """Its keys in order; None in the place of a value that is unset."""
        return {**self.values, **dict.fromkeys(self.unset)}

    def parts(self) -> list[Change]:
        """Return it in as many changes as deltas are needed.

        Raises:
            TooLargeError: one value alone is too large.
        """
        return [self._of(part) for part in parts_of(self.items, self.secret, reason=self.options.get("reason", ""))]

    def _of(self, part: Mapping[str, Any]) -> Change:
        values = {key: value for key, value in part.items() if key in self.values}
        unset = tuple(key for key in part if key not in self.values)
        keys = frozenset(values)
        return dataclasses.replace(self, values=values, unset=unset, secret=self.secret & keys, plain=self.plain & keys)

    def joined(self, others: Iterable[Change]) -> Change:
        """Return it and the other parts of the same change as one."""
        whole = self
        for one in others:
            whole = dataclasses.replace(
                whole,
                values={**whole.values, **one.values},
                unset=(*whole.unset, *one.unset),
                secret=whole.secret | one.secret,
                plain=whole.plain | one.plain,
            )
        return whole

    def assignments(self, writer: Writer) -> tuple[Assignment, ...]:
        """Return what would be signed, secrets encrypted; raises what :meth:`push` raises."""
        try:
            return writer.assignments(self.target, self.values, **self._said())
        except InvalidValueError as error:
            told = with_allowed(str(error), self.schemas)
        raise InvalidValueError(told)

    def push(self, writer: Writer, **more: Any) -> Receipt:
        """Sign and publish it; raises what :meth:`Writer.push` raises, and says what is allowed."""
        try:
            return writer.push(self.target, self.values, **self._said(), **{**self.options, **more})
        except InvalidValueError as error:
            told = with_allowed(str(error), self.schemas)
        raise InvalidValueError(told)

    def _said(self) -> dict[str, Any]:
        instance = None if isinstance(self.target, str) else self.scope.instance
        return {"unset": self.unset, "instance": instance, "secret": self.secret, "plain": self.plain}


@dataclass(frozen=True)
class CosignedChange(Change):
    """A draft that others cosigned: it is signed as they saw it, or not at all."""

    draft: bytes = b""

    def parts(self) -> list[Change]:
        """Return it alone: it was one delta when they saw it."""
        return [self]

    def push(self, writer: Writer, **more: Any) -> Receipt:
        """Sign and publish it; raises what :meth:`Writer.push_cosigned` raises."""
        del more  # the draft says whom it asks, and what it replaces
        return writer.push_cosigned(self.draft)
