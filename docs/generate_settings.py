"""Writes docs/settings.md from the settings model: `python docs/generate_settings.py`."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

from pydantic.fields import FieldInfo

from serve_app.settings.listing import SettingGroup, setting_groups
from serve_app.settings.section import Tier

TARGET = Path(__file__).with_name("settings.md")
HEAD = """# Settings

Written by `python docs/generate_settings.py`.

A setting can be given, in order of precedence, on the command line
(`--set recognizer.device=cpu`) or in a Serve config's `args`, in the environment
(`PARASERVE_RECOGNIZER__DEVICE=cpu`), or in a profile's YAML. Unknown names are errors.

In the tables, `STAGE.deployment` stands for `ingress.deployment`, `segmenter.deployment`,
`recognizer.deployment`, `punctuator.deployment` and `speaker_embedder.deployment`; `MODEL` for
`recognizer`, `punctuator` and, except for CUDA graphs, `speaker_embedder`;
`batch.STAGE` for `batch.segmenters`, `batch.recognizers` and `batch.punctuators`.
Autoscaling is off until one of the settings of `autoscaling` is given.
"""
PARTS: tuple[tuple[Tier, str], ...] = (
    ("operator", "Choose these for your machines, your traffic and your users."),
    ("advanced", "The defaults of these are rarely wrong."),
)


def settings_page() -> str:
    return HEAD + "".join(_part(tier, text) for tier, text in PARTS)


def _part(tier: Tier, text: str) -> str:
    rows = "".join(
        f"| `{group.name}` | {_defaults(group)} | {group.description} |\n"
        for group in setting_groups()
        if group.tier == tier
    )
    title = f"{tier.capitalize()} settings"
    return f"\n## {title}\n\n{text}\n\n| setting | default | meaning |\n|---|---|---|\n{rows}"


def _defaults(group: SettingGroup) -> str:
    """Returns the default; where stages differ, each with its stages."""
    stages: dict[str, list[str]] = {}
    for member in group.members:
        name = member.name.removeprefix("batch.").partition(".")[0]
        stages.setdefault(_default(member.field), []).append(name)
    if len(stages) == 1:
        return next(iter(stages))
    return "; ".join(f"{default} ({', '.join(names)})" for default, names in stages.items())


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        # Of this user, without directories that the environment names.
        with patch.dict(os.environ, {"HOME": "/~"}):
            for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
                os.environ.pop(variable, None)
            return f"`{field.default_factory()}`".replace("/~", "~")  # type: ignore[call-arg]
    value = field.default
    if value is None:
        return "unset"
    if value == () or value == {}:
        return "empty"
    return f"`{', '.join(map(str, value)) if isinstance(value, tuple) else value}`"


if __name__ == "__main__":
    TARGET.write_text(settings_page(), encoding="utf-8")
