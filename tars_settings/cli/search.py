"""``search``: settings by what is said of them, best first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Final

import typer

from tars_settings.adapters.fulltext import FullText, Hit
from tars_settings.cli.common import Common, command
from tars_settings.cli.described import Described
from tars_settings.cli.listing import default_text
from tars_settings.cli.look import by_key, say_how
from tars_settings.cli.options import CatchUpOption, OfflineOption
from tars_settings.cli.reading import Reading, Values, read
from tars_settings.cli.render import MASK, Marked, Table, rows_of, value_text
from tars_settings.core.names import Scope
from tars_settings.schema import Entry

WordsArgument = Annotated[list[str], typer.Argument(metavar="WORDS...", help="What it is about")]
ServiceOption = Annotated[str | None, typer.Option("--service", metavar="SERVICE", help="Only settings of this one")]
MostOption = Annotated[int, typer.Option("--most", metavar="N", min=1, max=1000, help="At most so many")]

_WEIGHTS: Final[Mapping[str, float]] = MappingProxyType(
    {"key": 10.0, "service": 3.0, "description": 5.0, "help": 2.0, "unit": 2.0, "examples": 1.0, "current": 1.0}
)
"""How much a word counts by where it stands."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "search", search)


@dataclass(frozen=True)
class _Text:
    """One setting of a service as it is searched for; ``said`` is by scope, secrets masked."""

    service: str
    key: str
    entry: Entry | None
    said: tuple[tuple[str, Any], ...]

    @property
    def current(self) -> str:
        """The values that the fleet sets, or else the default, as text."""
        if self.said:
            return "\n".join(f"{value_text(value)} ({scope})" for scope, value in self.said)
        return "" if self.entry is None else default_text(self.entry)

    def row(self) -> tuple[str, ...]:
        """Return its texts, in the order of the weights. A secret has no value to be found by."""
        one = self.entry
        found = " ".join(value_text(value) for _, value in self.said if value != MASK)
        if one is None:
            return (self.key, self.service, "", "", "", "", found)
        plain = found or ("" if one.secret else one.default)
        return (self.key, self.service, one.description, one.help, one.unit, " ".join(one.examples), plain)

    def document(self, hit: Hit) -> dict[str, Any]:
        """Return it as a document."""
        one = self.entry or Entry(self.key, "")
        return {
            "service": self.service,
            "key": self.key,
            "snippet": hit.snippet,
            "marks": [list(mark) for mark in hit.marks],
            "values": [{"scope": scope, "value": value} for scope, value in self.said],
            "type": one.type,
            "default": one.default,
            "secret": one.secret or any(value == MASK for _, value in self.said),
            "complexity": one.complexity,
            "unit": one.unit,
            "description": one.description,
        }


def search(
    common: Common,
    words: WordsArgument,
    service: ServiceOption = None,
    most: MostOption = 20,
    offline: OfflineOption = False,
    timeout_s: CatchUpOption = 5.0,
) -> int:
    """Find settings by words in their key, description, help, unit, examples and value; best first.

    Every word counts as it is, and the last one may be the beginning of one. Where nothing holds all of them, what
    holds any is shown. Secrets are not searched. Exit code 1 where nothing is found.

    Example: tars-settings search microphone gain
    """
    scope = None if service is None else Scope.parse(service)
    with FullText(_WEIGHTS) as index:
        reading = read(common, scope, offline=offline, timeout_s=timeout_s)
        values = Values(reading, common.environment())
        texts = _texts(reading, values)
        index.add(one.row() for one in texts)
        hits = [(hit, texts[hit.number - 1]) for hit in index.find(" ".join(words), most)]
    common.out.document(
        {"source": reading.source, "words": list(words), "found": [text.document(hit) for hit, text in hits]}
    )
    rows = [(f"{text.service} {text.key}", text.current, _told(hit, text)) for hit, text in hits]
    common.out.table(Table(("setting", "value", "about"), rows_of(rows)))
    say_how(common, reading, values)
    if not hits:
        common.out.note(f"nothing of {len(texts)} settings is about {' '.join(words)}")
    return 0 if hits else 1


def _told(hit: Hit, text: _Text) -> str:
    """Return the piece that was found, where it says what the setting is for; else what that is."""
    prose = "" if text.entry is None else f"{text.entry.description}\n{text.entry.help}"
    if hit.snippet.strip("…") in prose:
        return Marked(hit.snippet, hit.marks)
    return prose.strip().partition("\n")[0] or Marked(hit.snippet, hit.marks)


def _texts(reading: Reading, values: Values) -> list[_Text]:
    """Return every setting that a schema describes or the fleet sets."""
    described = Described(reading.schemas)
    said: dict[tuple[str, str], list[tuple[str, Any]]] = {}
    for scope, winners in reading.scopes.items():
        for one in by_key(winners.values()):
            if not one.assignment.unset:
                name = Scope.parse(scope).service or scope
                said.setdefault((name, one.key), []).append((scope, values.shown(one)))
    found = [
        _Text(name, key, entry, tuple(said.pop((name, key), ())))
        for name in described.services
        for key in described.keys(name)
        for entry in described.of(name, key)[:1]
    ]
    return found + [_Text(name, key, None, tuple(values)) for (name, key), values in sorted(said.items())]
