"""Whether the running service gives the texts that a job's fingerprints promise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve

from serve_app.batch.records import PackIdentity
from serve_app.core.errors import ConfigurationError, StartFailed
from serve_app.core.stages import PackRole, Stage, StageReadiness
from serve_app.inference.fingerprint import deciding_values
from serve_app.settings import Settings

_ASK_TIMEOUT_S = 120.0
_SHOWN_CHARACTERS = 24
_DEPLOYMENTS: Mapping[Stage, str] = {"asr": "Recognizer", "punctuation": "Punctuator"}
"""The stages that the service runs for a job; the others are the job's own."""


def check_running(settings: Settings) -> None:
    """Finds out whether the service is there.

    Raises:
        StartFailed: it is not.
    """
    application = serve.status().applications.get(settings.app_name)
    if application is None or application.status != "RUNNING":
        state = "not there" if application is None else application.status
        raise StartFailed(
            f"the application {settings.app_name} is {state}; batch.resources=serve needs it"
        )


def check_service(settings: Settings, models: Mapping[PackRole, PackIdentity]) -> None:
    """Asks the service what its texts come from.

    Args:
        settings: of the job; `app_name` names the service.
        models: that the job's fingerprints name.

    Raises:
        StartFailed: it does not run.
        ConfigurationError: it would give other texts; the message names the differences.
    """
    check_running(settings)
    found: list[str] = []
    for stage, name in _DEPLOYMENTS.items():
        if stage in settings.stages:
            handle: Any = serve.get_deployment_handle(name, settings.app_name)
            answer: StageReadiness = handle.describe.remote().result(timeout_s=_ASK_TIMEOUT_S)
            found += differences(answer, settings, models)
    if found:
        raise ConfigurationError(
            "the service is not what the job's settings say, so that its texts would be others: "
            f"{'; '.join(found)}. Give the job the profile and the --set of the service"
        )


def differences(
    served: StageReadiness, settings: Settings, models: Mapping[PackRole, PackIdentity]
) -> list[str]:
    """Returns what of a stage is other than in a job's settings, a phrase each."""
    found: list[str] = []
    wanted = models[served.stage]
    if served.checksum != wanted.checksum:
        found.append(
            f"{served.stage} runs the pack {served.pack} ({_shown(served.checksum)}), "
            f"the job names {wanted.name} ({_shown(wanted.checksum)})"
        )
    drafter = models.get("draft")
    ours = dict(deciding_values(settings, served.stage, drafter.checksum if drafter else None))
    theirs = dict(served.decided_by)
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            there, here = (_shown(values.get(name, "unset")) for values in (theirs, ours))
            found.append(f"{name} is {there} there and {here} in the job")
    return found


def _shown(value: str) -> str:
    return value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}…"
