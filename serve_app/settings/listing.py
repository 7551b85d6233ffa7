"""All settings by name, one after another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from serve_app.settings.model import Settings
from serve_app.settings.section import Tier, tier_of

_SHARED = (
    (
        re.compile(
            r"^(ingress|segmenter|recognizer|punctuator|speaker_embedder|live)\.deployment\."
        ),
        "STAGE.deployment.",
    ),
    (re.compile(r"^batch\.(segmenters|recognizers|punctuators)\."), "batch.STAGE."),
    (re.compile(r"^(recognizer|punctuator|speaker_embedder)\.(?!.*\.)"), "MODEL."),
)
"""Sections that several stages have, and the name that stands for all of them."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: the full one, as `recognizer.device`.
        field: of its section.
    """

    name: str
    field: FieldInfo

    @property
    def tier(self) -> Tier:
        return tier_of(self.field)

    @property
    def description(self) -> str:
        return " ".join((self.field.description or "").split())


@dataclass(frozen=True, slots=True)
class SettingGroup:
    """A setting, or one that means the same in several stages.

    Attributes:
        name: the setting's; with `STAGE` or `MODEL` for several stages.
        members: the settings, at least one.
    """

    name: str
    members: tuple[Setting, ...]

    @property
    def tier(self) -> Tier:
        return self.members[0].tier

    @property
    def description(self) -> str:
        return self.members[0].description


def all_settings() -> Iterator[Setting]:
    """Yields every setting, in the order of the sections."""
    for name, field in _fields(Settings, ""):
        if section_of(field.annotation) is None:
            yield Setting(name, field)


def section_names() -> Iterator[str]:
    """Yields the name of every section, as `recognizer.deployment`."""
    for name, field in _fields(Settings, ""):
        if section_of(field.annotation) is not None:
            yield name


def setting_groups() -> tuple[SettingGroup, ...]:
    """Returns all settings; those that mean the same in several stages are one group."""
    found: dict[tuple[str, Tier, str], list[Setting]] = {}
    for setting in all_settings():
        key = (_shared_name(setting.name), setting.tier, setting.description)
        found.setdefault(key, []).append(setting)
    return tuple(
        SettingGroup(name if len(members) > 1 else members[0].name, tuple(members))
        for (name, _, _), members in found.items()
    )


def section_of(annotation: object) -> type[BaseModel] | None:
    """Returns the section that a field holds, None for a field that is a setting."""
    for choice in get_args(annotation) or (annotation,):
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            return choice
    return None


def _fields(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}", field
        below = section_of(field.annotation)
        if below is not None:
            yield from _fields(below, f"{prefix}{name}.")


def _shared_name(name: str) -> str:
    for pattern, shared in _SHARED:
        if pattern.match(name):
            return pattern.sub(shared, name)
    return name
