"""Profiles as a source of settings."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from serve_app.core.errors import ConfigurationError
from serve_app.profiles import DEFAULT_PROFILE

__all__ = ["DEFAULT_PROFILE", "ENV_PREFIX", "ProfileSource", "profile_names", "read_profile"]

ENV_PREFIX = "PARASERVE_"
_PROFILES = "serve_app.profiles"


class ProfileSource(PydanticBaseSettingsSource):
    """The YAML profile as a source of settings."""

    def __init__(self, settings_cls: type[BaseSettings], profile: str) -> None:
        super().__init__(settings_cls)
        self._profile = profile

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise AssertionError("__call__ gives all values at once")

    def __call__(self) -> dict[str, Any]:
        return read_profile(self._profile)


def profile_names() -> list[str]:
    """Returns the names of the built-in profiles."""
    folder = resources.files(_PROFILES)
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )


def read_profile(profile: str) -> dict[str, Any]:
    """Returns the content of a profile.

    Args:
        profile: name of a built-in one, path of a YAML file, or the content of one as {...},
            for machines that cannot read the file.

    Raises:
        ConfigurationError: there is no such profile, or it is not a mapping.
    """
    if profile.startswith("{"):
        text = profile
    elif profile in profile_names():
        text = resources.files(_PROFILES).joinpath(f"{profile}.yaml").read_text("utf-8")
    elif Path(profile).is_file():
        text = Path(profile).read_text("utf-8")
    else:
        raise ConfigurationError(
            f"profile {profile!r} is neither a file nor one of: {', '.join(profile_names())}"
        )
    try:
        content = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigurationError(f"profile {profile!r} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"profile {profile!r} is not a mapping of settings")
    return content
