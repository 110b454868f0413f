"""The next trust document: the held one and one change give the body that the roots are to sign.

Nothing is signed here. What no peer would follow, or would be sorry to have followed, is refused before anybody signs
it: a name that is taken, a writer's key that is a root too, a gen that goes back, a threshold that nobody can reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from tars_settings.core.delta import Delta
from tars_settings.core.names import check_service
from tars_settings.core.stamp import MAX_GEN
from tars_settings.core.wire import MAX_COSIGNATURES
from tars_settings.errors import IllegalNameError, RefusedError
from tars_settings.trust.cosign import is_cosigned
from tars_settings.trust.document import MAX_VERSION, Demand, Retirement, TrustBody, TrustDocument, Writer
from tars_settings.trust.grants import is_grant
from tars_settings.trust.keys import kid_of
from tars_settings.trust.validity import judge

MAX_ROOTS: Final = 16


def find_writer(held: TrustDocument, name: str) -> tuple[str, Writer]:
    """Return (key id, entry) of the writer with this name or key id.

    Raises:
        RefusedError: none is listed.
    """
    for kid, writer in held.writers().items():
        if name in (writer.name, kid):
            return kid, writer
    raise RefusedError(f"trust document {held.version} lists no writer {name!r}; tars-settings keys list names them")


def grant(
    held: TrustDocument,
    name: str,
    public: bytes | None,
    grants: Iterable[str],
    cosign: Iterable[Demand] = (),
    **why: str,
) -> TrustBody:
    """Return the body that lists a writer, or gives one that is listed other grants, with the demands of *cosign*.

    *public* is needed for a name that is not listed; a listed writer keeps its key for ever.

    Raises:
        IllegalNameError: a name or a grant that can be none.
        RefusedError: another key is listed under the name, the key is a root's, the writer is no longer active, or a
            demand can't be met.
    """
    demands = tuple(cosign)
    _check_begun(held)
    check_service(name, what="writer")
    given = tuple(dict.fromkeys(grants))
    if wrong := [one for one in given if not is_grant(one)]:
        raise IllegalNameError(f"{', '.join(map(ascii, wrong))} is no grant; expected SCOPE or SCOPE.KEY, * at an end")
    listed = next((one for one in held.body.writers if one.name == name), None)
    if listed is None:
        fresh = _newcomer(held, name, public, given)
        _check_demands(held, kid_of(fresh.public), demands)
        return _next(held, why, writers=(*held.body.writers, msgspec.structs.replace(fresh, cosign=demands)))
    if public not in (None, listed.public):
        raise RefusedError(f"{name!r} is listed with another key; a writer keeps its key: take another name")
    _check_active(listed)
    _check_demands(held, kid_of(listed.public), demands)
    return _with_writer(held, msgspec.structs.replace(listed, grants=given, cosign=demands), why)


def _check_demands(held: TrustDocument, own: str, demands: Iterable[Demand]) -> None:
    for one in demands:
        if not is_grant(one.grant):
            raise IllegalNameError(f"{one.grant!a} is no grant; expected SCOPE or SCOPE.KEY, * at an end")
        cosigners = [held.writer(kid) for kid in one.of]
        if own in one.of or any(writer is None or writer.status != "active" for writer in cosigners):
            raise RefusedError(f"{one.grant}: only other writers that are listed and active can cosign")
        if not 1 <= one.need <= len(set(one.of)) == len(one.of) <= MAX_COSIGNATURES:
            raise RefusedError(
                f"{one.grant}: {one.need} of {len(one.of)} can't be met; expected at least one, and each of up to "
                f"{MAX_COSIGNATURES} writers once"
            )


def as_if(held: TrustDocument, body: TrustBody) -> TrustDocument:
    """Return the document that *body* would make in the fleet of *held*: to see what becomes of what is there."""
    return TrustDocument(held.fleet, body, b"", b"to be signed")


def uphold(held: TrustDocument, body: TrustBody, winners: Iterable[Delta]) -> TrustBody:
    """Return *body* with the digests endorsed of those *winners* that it would void for want of cosignatures.

    A demand is for what is signed from now on; what shows already was in order when it was signed.
    """
    after = as_if(held, body)
    void = {one.stamp.digest.hex() for one in winners if judge(one, after).reason == "not-cosigned"}
    return msgspec.structs.replace(body, endorsed=tuple(sorted({*body.endorsed, *void})))


def _newcomer(held: TrustDocument, name: str, public: bytes | None, grants: tuple[str, ...]) -> Writer:
    if public is None:
        raise RefusedError(f"no writer {name!r} is listed yet: name its public key with --public")
    if public in held.body.roots or held.writer(kid_of(public)) is not None:
        raise RefusedError(f"the key of {name!r} is listed already, as a root's or another writer's")
    return Writer(name, public, grants)


def retire(held: TrustDocument, name: str, limits: Mapping[str, tuple[int, int, int]], **why: str) -> TrustBody:
    """Return the body that retires a writer: what it wrote up to *limits* stands, and nothing after.

    *limits* are (gen, epoch, index counter) by scope; in a scope that is not named, nothing of it stands.

    Raises:
        RefusedError: it is not listed, or no longer active.
    """
    _, writer = find_writer(held, name)
    _check_active(writer)
    retired = {scope: Retirement(*limit) for scope, limit in sorted(limits.items())}
    return _with_writer(held, msgspec.structs.replace(writer, status="retired", retired=retired), why)


def compromise(held: TrustDocument, name: str, endorsed: Iterable[str], **why: str) -> TrustBody:
    """Return the body that voids what a writer signed, but for the *endorsed* digests (hex), and raises gen.

    With the raised gen every new push is above whatever epoch the stolen key used.

    Raises:
        RefusedError: it is not listed, is compromised already, or there is no gen left.
    """
    _, writer = find_writer(held, name)
    if writer.status == "compromised":
        raise RefusedError(f"writer {writer.name!r} is compromised already")
    if held.gen >= MAX_GEN:
        raise RefusedError(f"gen {held.gen} is the last there is")
    marked = msgspec.structs.replace(writer, status="compromised", retired={})
    stand = tuple(sorted({*held.body.endorsed, *endorsed}))
    return _with_writer(held, marked, why, gen=held.gen + 1, endorsed=stand)


def change_roots(
    held: TrustDocument,
    *,
    add: Iterable[bytes] = (),
    drop: Iterable[bytes] = (),
    threshold: int | None = None,
    **why: str,
) -> TrustBody:
    """Return the body with other roots, or another threshold of signatures.

    The held roots sign it and the new ones do: whoever lost too many of the held ones can't get here.

    Raises:
        RefusedError: a root that is there already or is not, a writer's key, or a threshold that can't be reached.
    """
    _check_begun(held)
    gone, fresh = set(drop), tuple(add)
    if strangers := gone - set(held.body.roots):
        raise RefusedError(f"{', '.join(sorted(map(kid_of, strangers)))}: no root of trust document {held.version}")
    taken = {*held.body.roots, *(one.public for one in held.body.writers)}
    if doubled := [kid_of(one) for one in fresh if one in taken]:
        raise RefusedError(f"{', '.join(doubled)}: listed already; a root needs a key of its own")
    roots = (*(one for one in held.body.roots if one not in gone), *fresh)
    demanded = held.body.threshold if threshold is None else threshold
    if not 1 <= demanded <= len(roots) <= MAX_ROOTS:
        raise RefusedError(f"{demanded} signatures of {len(roots)} roots: expected 1 to {MAX_ROOTS} roots, and no more")
    if (roots, demanded) == (held.body.roots, held.body.threshold):
        raise RefusedError(f"trust document {held.version} has these roots and this threshold already")
    return _next(held, why, roots=roots, threshold=demanded)


def needs(delta: Delta, kid: str, trust: TrustDocument) -> bool:
    """Return whether a delta falls with the key *kid*: it is its writer's, or it carries too few other cosignatures."""
    if delta.stamp.kid == kid:
        return True
    writer = trust.writer(delta.stamp.kid)
    if writer is None or not writer.cosign or kid not in {one.kid for one in delta.body.cosig}:
        return False
    marked = [
        msgspec.structs.replace(one, status="compromised", retired={}) if kid_of(one.public) == kid else one
        for one in trust.body.writers
    ]
    return not is_cosigned(delta, writer, as_if(trust, msgspec.structs.replace(trust.body, writers=tuple(marked))))


def good_digests(
    deltas: Iterable[Delta], kid: str, until: Mapping[str, int], trust: TrustDocument
) -> dict[tuple[str, str], Delta]:
    """Return, by (scope, key), the greatest delta that needs a key, up to the epoch that *until* names for its scope.

    Those are worth an endorsement when the key is compromised: below them nothing is missed, and what is above them is
    what the thief may have signed. In a scope that *until* does not name, nothing is good.
    """
    good: dict[tuple[str, str], Delta] = {}
    for delta in deltas:
        if delta.stamp.epoch > until.get(delta.scope, 0) or not needs(delta, kid, trust):
            continue
        for item in delta.assign:
            held = good.get((delta.scope, item.key))
            if held is None or delta.stamp > held.stamp:
                good[delta.scope, item.key] = delta
    return good


def _check_begun(held: TrustDocument) -> None:
    if held.is_pin:
        raise RefusedError("no trust document was found: nothing can follow it")


def _check_active(writer: Writer) -> None:
    if writer.status != "active":
        raise RefusedError(f"writer {writer.name!r} is {writer.status}, and stays so: make a new key for it")


def _with_writer(held: TrustDocument, changed: Writer, why: Mapping[str, str], **more: Any) -> TrustBody:
    writers = tuple(changed if one.public == changed.public else one for one in held.body.writers)
    return _next(held, why, writers=writers, **more)


def _next(held: TrustDocument, why: Mapping[str, str], **changes: Any) -> TrustBody:
    if held.version >= MAX_VERSION:
        raise RefusedError(f"version {held.version} is the last there is")
    given = {"at": "", "reason": "", **why}
    return msgspec.structs.replace(held.body, version=held.version + 1, **given, **changes)
