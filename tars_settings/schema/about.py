"""About: what an operator wants to know of a field beyond its type and description. It travels in the schema."""

from __future__ import annotations

import dataclasses
from typing import Any, Final, Literal

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

COMPLEXITY_MARK: Final = "x-tars-complexity"
UNIT_MARK: Final = "x-tars-unit"
HELP_MARK: Final = "x-tars-help"

Complexity = Literal["simple", "advanced"]


@dataclasses.dataclass(frozen=True)
class About:
    """An annotation of a field: ``rate: Annotated[int, About(unit="Hz", complexity="advanced")] = 16_000``.

    ``complexity`` says who should touch it: ``simple`` is for everybody. ``unit`` is what its numbers count. ``help``
    is longer than the field's description, and may have several lines. It changes nothing of what validates.
    """

    complexity: Complexity = "simple"
    unit: str = ""
    help: str = ""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = dict(handler(core_schema))
        marks: dict[str, Any] = {COMPLEXITY_MARK: self.complexity, UNIT_MARK: self.unit, HELP_MARK: self.help}
        return described | {name: value for name, value in marks.items() if value}
