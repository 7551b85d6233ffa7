"""Writes docs/settings.md from the settings model: `python docs/generate_settings.py`."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from serve_app.settings import Settings

TARGET = Path(__file__).with_name("settings.md")
HEAD = """# Settings

Written by `python docs/generate_settings.py`. Each can stand in a profile's YAML, in a Serve
config's `args`, on the command line (`--set recognizer.device=cpu`) or in the environment
(`PARASERVE_RECOGNIZER__DEVICE=cpu`).

| setting | default | meaning |
|---|---|---|
"""


def settings_page() -> str:
    return HEAD + "".join(
        f"| `{name}` | `{_default(field)}` | {' '.join((field.description or '').split())} |\n"
        for name, field in _fields(Settings, "")
    )


def _fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is not None:
            yield from _fields(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _section(annotation: object) -> type[BaseModel] | None:
    choices = (
        typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    )
    for choice in choices:
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            return choice
    return None


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "~/.cache/paraserve/packs"
    value = field.default
    if value is None:
        return "unset"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    TARGET.write_text(settings_page(), encoding="utf-8")
