"""A process that only reads the replica sees a floor in it as well."""

from __future__ import annotations

from pathlib import Path

from tars_settings.adapters.replica import SqliteReplica
from tars_settings.core.floor import FloorBody, cut
from tars_settings.core.records import DeltaRow, FloorRow, FloorSegmentRow, TrustRow
from tars_settings.core.wire import encode
from tars_settings.sources.environment import Environment
from tars_settings.sources.stored import load_stored
from tars_settings.trust.keys import fleet_text
from tests.fleets import ALICE, BOB, FLEET, ROOT, SCOPE, delta, document, set_, unset


def test_what_another_process_put_back_below_a_floor_is_not_read(tmp_path: Path) -> None:
    old, gone, kept = delta(BOB, 1, set_("a")), delta(ALICE, 2, unset("a")), delta(ALICE, 3, set_("b"))
    inline, parts = cut([kept.stamp.digest, *(n.to_bytes(32, "big") for n in range(450))])
    raw = ALICE.sign("floor", FLEET, encode(FloorBody(SCOPE, 1, 3, 1, inline, tuple(parts))))
    trust = document()
    environment = Environment(
        fleet=fleet_text(ROOT.public), state_dir=tmp_path, instance="pi", broker="mqtt://127.0.0.1:1"
    )
    replica = SqliteReplica(environment.replica_path)
    rows = [
        TrustRow(1, trust.digest, trust.raw),
        *(DeltaRow(SCOPE, one.stamp.digest, one.raw) for one in (old, gone, kept)),
        FloorRow(SCOPE, ALICE.kid, 1, 3, b"", raw),
    ]
    replica.apply(rows)
    before = load_stored(environment, SCOPE)
    assert {one.key for scope in before.view.scopes for one in scope.registers} == {"b"}
    replica.apply([FloorSegmentRow(SCOPE, name, part) for name, part in parts.items()], [rows[2]])
    after = load_stored(environment, SCOPE)
    assert {one.key for scope in after.view.scopes for one in scope.registers} == {"b"}
    assert any("below-floor" in line for line in after.trouble)
    replica.close()
