"""G: what may be learned without breaking in."""

from __future__ import annotations

import ast
from pathlib import Path

import tars_settings.trust


def test_g04_no_tag_or_key_is_compared_with_equals() -> None:
    """Seals are compared by hmac.compare_digest; where == stands in trust, what it compares is public."""
    folder = Path(tars_settings.trust.__file__).parent
    words = ("tag", "material", "secret", "_secret", "derived", "seed", "_material")
    found = []
    for name in ("seal.py", "secrets.py", "keys.py", "sodium.py", "envelope.py"):
        for node in ast.walk(ast.parse((folder / name).read_text())):
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
                names |= {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
                if names & set(words) and "len" not in names and "sha256" not in names:
                    found.append((name, node.lineno, ast.unparse(node)))
    assert found == []
    assert "compare_digest" in (folder / "seal.py").read_text()
