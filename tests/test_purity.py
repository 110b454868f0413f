"""What import-linter can't see: builtins, standard modules outside its lists, state of modules, the facade."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tars_settings"
PURE = ("core", "trust", "gossip")

ALLOWED_MODULES = frozenset(
    {
        "__future__", "base64", "binascii", "bisect", "collections", "collections.abc", "copy", "dataclasses", "enum",
        "functools", "hashlib", "heapq", "hmac", "itertools", "math", "operator", "re", "string", "struct", "types",
        "typing",
        "msgspec", "nacl", "nacl.exceptions",
        "tars_settings.errors",
    }
)  # fmt: skip
FORBIDDEN_BUILTINS = frozenset(
    {"open", "print", "input", "breakpoint", "exec", "eval", "compile", "__import__", "globals", "locals"}
)
PER_PROCESS = frozenset({"id", "hash"})
"""They differ from process to process: nothing that peers must agree on may rest on a call of one."""
MUTATORS = frozenset(
    {
        "add",
        "append",
        "clear",
        "discard",
        "extend",
        "insert",
        "pop",
        "popitem",
        "remove",
        "setdefault",
        "sort",
        "update",
    }
)
HEAVY = ("paho", "nacl", "diskcache", "sqlite3", "typer", "rich", "amqtt", "pydantic_settings", "msgspec")


def pure_modules() -> list[Path]:
    return sorted(path for layer in PURE for path in (PACKAGE / layer).rglob("*.py"))


def imports_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what they reach"
            yield node.module or ""


def breaches_of_purity(source: str) -> list[str]:
    """Return what a pure module may not do, by line."""
    tree = ast.parse(source)
    found = [f"imports {name}" for name in imports_of(tree) if not _is_allowed(name)]
    state = _names_of_module(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()) if name in FORBIDDEN_BUILTINS:
                found.append(f"{node.lineno}: uses {name}")
            case ast.Call(func=ast.Name(id=name)) if name in PER_PROCESS:
                found.append(f"{node.lineno}: calls {name}")
            case ast.Global():
                found.append(f"{node.lineno}: global")
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attr)) if name in state and attr in MUTATORS:
                found.append(f"{node.lineno}: changes the module's {name}")
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()) if name in state:
                found.append(f"{node.lineno}: changes the module's {name}")
    return found + [f"{node.lineno}: state of the module" for node in tree.body if _is_state(node)]


def _is_allowed(module: str) -> bool:
    ours = tuple(f"tars_settings.{layer}" for layer in PURE)
    return module in ALLOWED_MODULES or module in ours or module.startswith(tuple(f"{one}." for one in ours))


def _names_of_module(tree: ast.Module) -> set[str]:
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _is_state(node: ast.stmt) -> bool:
    """Whether a statement makes something that could change: a container or an object that is not declared Final."""
    match node:
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return False
        case ast.Assign(value=ast.List() | ast.Dict() | ast.Set() | ast.ListComp() | ast.DictComp() | ast.SetComp()):
            return True
        case ast.Assign(value=ast.Call(func=ast.Name(id="list" | "dict" | "set" | "bytearray" | "defaultdict"))):
            return True
        case ast.AnnAssign(annotation=annotation):
            return "Final" not in ast.unparse(annotation) and "TypeAlias" not in ast.unparse(annotation)
    return False


@pytest.mark.parametrize("path", pure_modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_pure_module_is_pure(path: Path) -> None:
    assert breaches_of_purity(path.read_text()) == []


def test_there_are_pure_modules() -> None:
    assert {path.relative_to(PACKAGE).parts[0] for path in pure_modules()} == set(PURE)


@pytest.mark.parametrize(
    ("source", "breach"),
    [
        ("import uuid", "imports uuid"),
        ("def f():\n    from time import monotonic", "imports time"),
        ("import tars_settings.adapters.clock", "imports tars_settings.adapters.clock"),
        ("def f():\n    return open('x')", "2: uses open"),
        ("print('x')", "1: uses print"),
        ("write = print", "1: uses print"),
        ("def f(x):\n    return hash(x)", "2: calls hash"),
        ("seen = {}", "1: state of the module"),
        ("seen: list[int] = []", "1: state of the module"),
        ("SEEN: Final = []\ndef f():\n    SEEN.append(1)", "3: changes the module's SEEN"),
        ("SEEN: Final = {}\ndef f():\n    SEEN[1] = 1", "3: changes the module's SEEN"),
        ("def f():\n    global x", "2: global"),
    ],
)
def test_a_breach_of_purity_is_found(source: str, breach: str) -> None:
    assert breach in breaches_of_purity(source)


def uses_of_msgspec(source: str) -> set[str]:
    """Return what a module takes from msgspec."""
    tree = ast.parse(source)
    from_imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "msgspec"]
    names = {alias.name for node in from_imports for alias in node.names}
    return names | {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "msgspec"
    }


def test_only_core_decodes_and_encodes() -> None:
    declaring = {"Struct", "Meta", "UNSET", "UnsetType", "field", "structs"}
    elsewhere = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "core"]
    uses = {str(path.relative_to(PACKAGE)): uses_of_msgspec(path.read_text()) - declaring for path in elsewhere}
    # The form of a trust document is trust's; its decoder is handed to core, which alone calls it.
    assert {name: used for name, used in uses.items() if used} == {"trust/document.py": {"json"}}


def _modules_after(statements: str) -> set[str]:
    """Return which modules a fresh interpreter holds after statements."""
    program = f"import sys\n{statements}\nprint(*sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def _loaded_by(statement: str) -> set[str]:
    """Return which heavy modules a fresh interpreter holds after a statement."""
    return _modules_after(statement) & set(HEAVY)


def test_the_facade_loads_nothing() -> None:
    assert _loaded_by("import tars_settings") == set()


def test_settings_load_no_broker_no_cryptography_and_no_looks() -> None:
    assert _loaded_by("import tars_settings; tars_settings.Settings") == {"pydantic_settings"}


def test_declaring_settings_loads_pydantic_settings_and_nothing_else() -> None:
    declared = "from tars_settings import Settings\nclass S(Settings, service='s'):\n    x: int = 1"
    plain = "from pydantic_settings import BaseSettings\nclass S(BaseSettings):\n    x: int = 1"
    brought = _modules_after(declared) - _modules_after(plain)
    assert brought == {"tars_settings", "tars_settings.settings", "tars_settings.settings.model"}


def test_an_import_is_noticed() -> None:
    assert _loaded_by("import sqlite3") == {"sqlite3"}
