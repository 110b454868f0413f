"""The total order behind last-writer-wins."""

from __future__ import annotations

from typing import Final

import msgspec

MAX_EPOCH: Final = 2**53 - 1
MAX_GEN: Final = 2**32 - 1
MAX_EPOCH_JUMP: Final = 2**20
"""A writer refuses a larger step (a reader only raises an alarm, or a fresh peer could never catch up)."""


class Stamp(msgspec.Struct, frozen=True, order=True, gc=False):
    """Who wrote when. The larger stamp wins; no two different deltas share one.

    (epoch, kid) alone is no total order: one writer's key on two hosts signs two deltas with one epoch, so the digest
    of the signed bytes decides last (REVIEW F3: 33 of 1,000 runs diverged without it). No clock takes part.
    """

    gen: int
    epoch: int
    kid: str
    digest: bytes

    def blob(self) -> bytes:
        """Return 60 bytes that compare as the stamp does: gen 4, epoch 8, kid 16, digest 32, big-endian."""
        return self.gen.to_bytes(4, "big") + self.epoch.to_bytes(8, "big") + bytes.fromhex(self.kid) + self.digest
