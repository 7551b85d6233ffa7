"""Environment variables that look like ours must name a setting."""

from __future__ import annotations

import os

from pydantic import BaseModel

from serve_app.core.errors import ConfigurationError
from serve_app.settings.model import Settings
from serve_app.settings.sources import ENV_PREFIX


def check_environment(environ: dict[str, str] | None = None) -> None:
    """Refuses environment variables with our prefix that name no setting.

    pydantic-settings ignores them, so a typing error would go unseen.

    Raises:
        ConfigurationError: naming the variables.
    """
    environ = dict(os.environ) if environ is None else environ
    unknown = [
        name
        for name in environ
        if name.upper().startswith(ENV_PREFIX)
        and not _names_a_setting(name.upper().removeprefix(ENV_PREFIX).lower().split("__"))
    ]
    if unknown:
        raise ConfigurationError(f"unknown environment variables: {', '.join(sorted(unknown))}")


def _names_a_setting(path: list[str]) -> bool:
    model: type[BaseModel] | None = Settings
    for name in path:
        if model is None or name not in model.model_fields:
            return False
        model = _section_of(model.model_fields[name].annotation)
    return True


def _section_of(annotation: object) -> type[BaseModel] | None:
    options = getattr(annotation, "__args__", ()) or (annotation,)
    for option in options:
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None
