"""Autoscaling options of Serve for other bounds than those of the settings.

Serve takes the options of its list of deployments in place, without restarting a replica,
but it replaces `autoscaling_config` as a whole (Ray 2.60, `override_deployment_info`): the
bounds alone would cost the deployment its policy. So all of it is made anew, from the
settings, by the code that makes it at the start.
"""

from __future__ import annotations

from serve_app.settings import AutoscalingSettings, DeploymentSettings, Settings

_SECTIONS = {
    "Ingress": "ingress",
    "Segmenter": "segmenter",
    "Recognizer": "recognizer",
    "Punctuator": "punctuator",
}


def is_autoscaled(settings: Settings, deployment: str) -> bool:
    """True if Serve has bounds for the deployment instead of a number.

    Where the recogniser follows the audio that waits, the segmenter has bounds too, if
    only from N to N, since only such deployments may report to a policy.
    """
    if _size(settings, deployment).autoscaling is not None:
        return True
    recognizer = settings.recognizer.deployment.autoscaling
    by_queue = recognizer is not None and recognizer.policy == "queued_audio"
    return deployment == "Segmenter" and by_queue


def autoscaling_options(
    settings: Settings, deployment: str, bounds: tuple[int, int]
) -> dict[str, object]:
    """Returns `autoscaling_config` of a deployment that `is_autoscaled`.

    Args:
        settings: of its application.
        deployment: its name.
        bounds: least and largest number of replicas.
    """
    # Ray takes a second to import, and is needed here alone.
    from serve_app.deployments.options import (
        by_requests,
        recognizer_autoscaling,
        segmenter_autoscaling,
    )

    size = _resized(_size(settings, deployment), bounds)
    changed = _with_size(settings, deployment, size)
    config = None
    if deployment == "Recognizer":
        config = recognizer_autoscaling(changed)
    elif deployment == "Segmenter":
        config = segmenter_autoscaling(changed)
    if config is None:
        config = by_requests(size.autoscaling or AutoscalingSettings())
    options: dict[str, object] = config.model_dump(
        mode="json", exclude_unset=True, exclude_none=True
    )
    return options


def _size(settings: Settings, deployment: str) -> DeploymentSettings:
    sizes: dict[str, DeploymentSettings] = {
        "Ingress": settings.ingress.deployment,
        "Segmenter": settings.segmenter.deployment,
        "Recognizer": settings.recognizer.deployment,
        "Punctuator": settings.punctuator.deployment,
    }
    return sizes[deployment]


def _resized(size: DeploymentSettings, bounds: tuple[int, int]) -> DeploymentSettings:
    minimum, maximum = bounds
    if size.autoscaling is None:
        return size.model_copy(update={"num_replicas": minimum})
    scaling = size.autoscaling.model_copy(update={"min_replicas": minimum, "max_replicas": maximum})
    return size.model_copy(update={"autoscaling": scaling})


def _with_size(settings: Settings, deployment: str, size: DeploymentSettings) -> Settings:
    name = _SECTIONS[deployment]
    section = getattr(settings, name).model_copy(update={"deployment": size})
    changed: Settings = settings.model_copy(update={name: section})
    return changed
