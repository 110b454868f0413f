"""``keys root``: who may say who writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from tars_settings.cli.common import Common, command
from tars_settings.cli.options import YesOption
from tars_settings.cli.ratify import (
    OutOption,
    ReasonOption,
    RootKeyOption,
    Signing,
    confirmed,
    public_key,
    ratify,
)
from tars_settings.cli.session import session
from tars_settings.errors import UsageError
from tars_settings.trust import succession
from tars_settings.trust.document import TrustBody, TrustDocument
from tars_settings.trust.keys import kid_of

AddOption = Annotated[
    list[str] | None, typer.Option("--add", metavar="KEY", help="A new root's public key, from 'keys new --root'")
]
DropOption = Annotated[
    list[str] | None, typer.Option("--drop", metavar="KEY", help="A root that ends: its key id or its public key")
]
ThresholdOption = Annotated[
    int | None, typer.Option("--threshold", metavar="N", min=1, help="How many roots must sign from then on")
]
CountArgument = Annotated[int, typer.Argument(metavar="N", min=1, help="How many roots must sign from then on")]


def register(root: typer.Typer) -> None:
    """Add the commands."""
    command(root, "rotate", rotate)
    command(root, "threshold", threshold)


def rotate(
    common: Common,
    add: AddOption = None,
    drop: DropOption = None,
    threshold: ThresholdOption = None,
    root_key: RootKeyOption = None,
    out: OutOption = None,
    reason: ReasonOption = "",
    yes: YesOption = False,
) -> int:
    """Add and drop root keys. Both the roots that are and those that will be must sign: name the new one's file too.

    Workers keep the TARS_SETTINGS_FLEET that they have: the chain of documents leads from it to the new roots.

    Example: tars-settings keys root rotate --add ed25519:... --drop KID --root-key root.key --root-key root-2.key
    """
    if not add and not drop:
        raise UsageError("nothing to rotate: say --add KEY, --drop KEY, or both")

    def change(held: TrustDocument, why: dict[str, Any]) -> TrustBody:
        added = [public_key(one, "--add") for one in add or ()]
        return succession.change_roots(held, add=added, drop=_named(held, drop or ()), threshold=threshold, **why)

    return _changed(common, change, Signing.of(root_key, out, reason), yes=yes)


def threshold(
    common: Common,
    count: CountArgument,
    root_key: RootKeyOption = None,
    out: OutOption = None,
    reason: ReasonOption = "",
    yes: YesOption = False,
) -> int:
    """Demand the signatures of N roots from then on; that many must sign this change already.

    Example: tars-settings keys root threshold 2 --root-key root.key --root-key root-2.key
    """
    return _changed(
        common,
        lambda held, why: succession.change_roots(held, threshold=count, **why),
        Signing.of(root_key, out, reason),
        yes=yes,
    )


def _named(held: TrustDocument, words: Iterable[str]) -> list[bytes]:
    by_kid = {kid_of(public): public for public in held.body.roots}
    return [by_kid[word] if word in by_kid else public_key(word, "--drop") for word in words]


def _changed(common: Common, change: Any, signing: Signing, *, yes: bool) -> int:
    with session(common) as writer:
        body = change(writer.trust, signing.why)
        kids = ", ".join(kid_of(public) for public in body.roots)
        confirmed(
            common,
            f"{body.threshold} of these roots sign from then on: {kids}. Whoever loses them loses the fleet.",
            yes=yes,
        )
        common.out.document(ratify(common, writer, body, signing))
    return 0
