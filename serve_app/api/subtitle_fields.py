"""The form fields that control how subtitles are divided into cues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from serve_app.core.errors import InvalidParameter
from serve_app.settings.subtitles import SubtitleSettings
from serve_app.transcript.subtitles import SubtitleOptions

_PREFIX = "subtitle_"

SUBTITLE_FIELDS = frozenset(f"{_PREFIX}{name}" for name in SubtitleSettings.model_fields)
"""Names of the fields; only the formats srt and vtt use them."""


def parse_subtitle_options(
    single: Mapping[str, str], defaults: SubtitleSettings
) -> SubtitleOptions:
    """Returns the options of subtitles: those of the fields, else of the service.

    A field without a value counts as absent.

    Args:
        single: form fields; unknown ones are ignored.
        defaults: of the service.

    Raises:
        InvalidParameter: a value is no number, out of bounds, or the durations contradict.
    """
    given = {
        name.removeprefix(_PREFIX): value.strip()
        for name, value in single.items()
        if name in SUBTITLE_FIELDS and value.strip()
    }
    if not given:
        return defaults.options()
    try:
        return SubtitleSettings.model_validate({**defaults.model_dump(), **given}).options()
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise InvalidParameter(
                f"{_PREFIX}min_duration_s", f"is larger than {_PREFIX}max_duration_s"
            ) from None
        name = str(first["loc"][0])
        raise InvalidParameter(
            f"{_PREFIX}{name}", f"{given[name]!r} is not {_kind(name)}"
        ) from None


def subtitle_field_schemas() -> dict[str, dict[str, Any]]:
    """What the OpenAPI document says of these fields."""
    properties = SubtitleSettings.model_json_schema()["properties"]
    return {f"{_PREFIX}{name}": _schema(field) for name, field in properties.items()}


def _schema(field: Mapping[str, Any]) -> dict[str, Any]:
    number = next((one for one in field.get("anyOf", ()) if one.get("type") != "null"), field)
    kept = ("type", "minimum", "maximum")
    schema = {name: number[name] for name in kept}
    if field.get("default") is not None:
        schema["default"] = field["default"]
    return {**schema, "description": f"srt and vtt: {field['description']}"}


def _kind(name: str) -> str:
    schema = subtitle_field_schemas()[f"{_PREFIX}{name}"]
    number = "a whole number" if schema["type"] == "integer" else "a number"
    return f"{number} from {schema['minimum']:g} to {schema['maximum']:g}"
