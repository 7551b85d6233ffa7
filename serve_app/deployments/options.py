"""From our settings of a deployment to Ray Serve's."""

from __future__ import annotations

import logging
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import LoggingConfig

from serve_app.settings import DeploymentSettings

# A child of Serve's own logger: it inherits the handlers and the JSON encoding
# that the builder asks for, and the ids of replica and request.
LOGGER = logging.getLogger("ray.serve.paraserve")

_HEALTH_CHECK_PERIOD_S = 10
_HEALTH_CHECK_TIMEOUT_S = 60


def as_deployment(
    target: type, name: str, settings: DeploymentSettings, log_level: str
) -> serve.Deployment:
    """Returns the class as a Serve deployment of the given size."""
    options: dict[str, Any] = {
        "name": name,
        "max_ongoing_requests": settings.max_ongoing_requests,
        "ray_actor_options": {"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
        "graceful_shutdown_timeout_s": settings.graceful_shutdown_timeout_s,
        "health_check_period_s": _HEALTH_CHECK_PERIOD_S,
        "health_check_timeout_s": _HEALTH_CHECK_TIMEOUT_S,
        "logging_config": LoggingConfig(
            encoding="JSON", log_level=log_level, enable_access_log=False
        ),
    }
    if settings.autoscaling is None:
        options["num_replicas"] = settings.num_replicas
    else:
        options["autoscaling_config"] = AutoscalingConfig(
            **settings.autoscaling.model_dump(), initial_replicas=settings.num_replicas
        )
    deployment: serve.Deployment = serve.deployment(**options)(target)
    return deployment
