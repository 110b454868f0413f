"""What a file sets, as far as the schemas in use name it."""

from __future__ import annotations

from tars_settings.cli.filediff import said_by
from tars_settings.cli.files import Content

SCHEMA = (
    b'{"$defs":{"a":{"properties":{"gain":{"type":"number"}}}},"properties":{"audio":{"$ref":"#/$defs/a"},'
    b'"limits":{"type":"object"},"vad":{"type":"number"}}}'
)


def test_names_of_variables_are_keys_without_regard_to_case() -> None:
    content = Content(texts={"VAD": "0.5", "AUDIO__GAIN": "3", "OTHER": "x"})
    assert said_by(content, [SCHEMA]) == ({"vad": 0.5, "audio.gain": 3}, ("OTHER",))


def test_without_a_schema_names_are_keys_and_values_are_what_they_look_like() -> None:
    assert said_by(Content(texts={"a": "1", "b": "x", "_c": "1"}), []) == ({"a": 1, "b": "x"}, ("_c",))


def test_an_object_descends_where_there_is_a_model_and_is_a_value_elsewhere() -> None:
    tree = {"audio": {"gain": 2}, "limits": {"x": 1}, "bad key": 1}
    assert said_by(Content(tree=tree), [SCHEMA]) == ({"audio.gain": 2, "limits": {"x": 1}}, ("bad key",))
