"""Ray Serve's deployment options, from our settings.

Ray Serve 2.60 has each replica listen for calls of other replicas on all addresses of the
machine (`replica.py`: "[::]:0") and has no setting for it. It unpickles what arrives there, with
Ray's token as the only protection. On a cluster that `paraserve serve` has started, replicas
listen on the node's own address instead.
"""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import asdict
from typing import Any

from ray import serve
from ray._common.tls_utils import add_port_to_grpc_server
from ray.serve._private import replica
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.schema import LoggingConfig

from serve_app.core.in_flight import NODE_ADDRESS_VARIABLE
from serve_app.settings import AutoscalingSettings, DeploymentSettings, Settings
from serve_app.settings.deployments import RecognizerAutoscalingSettings

_EVERYWHERE = "[::]:0"
_HELPER = "add_port_to_grpc_server"


def listen_on_node_address_only() -> None:
    """Makes replicas of this process listen on the node's address, if it is set."""
    if os.environ.get(NODE_ADDRESS_VARIABLE):
        if not hasattr(replica, _HELPER):
            raise RuntimeError(f"Ray's replica no longer has {_HELPER}")
        setattr(replica, _HELPER, _add_port_on_node_address)


def _add_port_on_node_address(server: Any, address: str) -> Any:
    host = os.environ[NODE_ADDRESS_VARIABLE]
    if address != _EVERYWHERE:
        raise RuntimeError(f"Ray's replicas listen on {address} instead of {_EVERYWHERE}")
    own = f"[{host}]:0" if ":" in host else f"{host}:0"
    return add_port_to_grpc_server(server, own)  # type: ignore[no-untyped-call]  # Ray leaves it


# A child of Serve's own logger: it inherits the handlers, the JSON encoding that
# `as_deployment` sets, and the ids of replica and request.
LOGGER = logging.getLogger("ray.serve.paraserve")

# Every replica imports this module.
listen_on_node_address_only()

_HEALTH_CHECK_PERIOD_S = 10
_HEALTH_CHECK_TIMEOUT_S = 60
_LOOK_BACK_INTERVALS = 5
# Ray Serve's default; operators choose the delays instead.
_LOOK_BACK_S = 30.0
_POLICIES = "serve_app.deployments.autoscaling"


def as_deployment(
    target: type,
    name: str,
    settings: DeploymentSettings,
    log_level: str,
    autoscaling: AutoscalingConfig | None = None,
) -> serve.Deployment:
    """Returns the class as a Serve deployment of the given size.

    Args:
        target: the class.
        name: of the deployment.
        settings: its size and placement.
        log_level: lowest level that is logged.
        autoscaling: overrides that of `settings`.
    """
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
    if autoscaling is None and settings.autoscaling is not None:
        autoscaling = by_requests(settings.autoscaling)
    if autoscaling is None:
        options["num_replicas"] = settings.num_replicas
    else:
        options["autoscaling_config"] = autoscaling
    deployment: serve.Deployment = serve.deployment(**options)(target)
    return deployment


def recognizer_autoscaling(settings: Settings) -> AutoscalingConfig | None:
    """Returns the recognizer's autoscaling; None for a fixed size."""
    scaling = settings.recognizer.deployment.autoscaling
    if scaling is None:
        return None
    if scaling.policy == "ongoing_requests":
        return by_requests(scaling)
    limits = asdict(scaling.limits())
    # The policy has its own delays, to which Serve's would be added.
    return _config(
        scaling,
        upscale_delay_s=0.0,
        downscale_delay_s=0.0,
        downscale_to_zero_delay_s=0.0,
        # The policy averages nothing, but Serve requires more than the interval.
        look_back_period_s=_LOOK_BACK_INTERVALS * scaling.report_interval_s,
        **_reporting(scaling, "QueuedAudioPolicy", {"limits": limits}),
    )


def segmenter_autoscaling(settings: Settings) -> AutoscalingConfig | None:
    """Returns the segmenter's autoscaling; None for that of its own settings.

    If the recognizer scales on queued audio, the segmenter must report its backlog. Serve allows
    reports only from deployments with autoscaling, even if it is from N to N replicas.
    """
    recognizer = settings.recognizer.deployment.autoscaling
    if recognizer is None or recognizer.policy == "ongoing_requests":
        return None
    deployment = settings.segmenter.deployment
    scaling = deployment.autoscaling or _fixed(deployment.num_replicas)
    return _config(scaling, **_reporting(recognizer, "SegmenterPolicy", {}))


def job_runner_autoscaling(settings: Settings) -> AutoscalingConfig | None:
    """Returns the job runner's autoscaling, from N to N replicas; None for a fixed size.

    If the recognizer scales on queued audio, the runner must report the waiting jobs.
    """
    recognizer = settings.recognizer.deployment.autoscaling
    if recognizer is None or recognizer.policy == "ongoing_requests":
        return None
    scaling = _fixed(settings.jobs.num_runners)
    return _config(scaling, **_reporting(recognizer, "JobRunnerPolicy", {}))


def _fixed(num_replicas: int) -> AutoscalingSettings:
    return AutoscalingSettings(min_replicas=num_replicas, max_replicas=num_replicas)


def by_requests(scaling: AutoscalingSettings) -> AutoscalingConfig:
    """Returns Ray Serve's own policy within our bounds."""
    return _config(scaling)


def _reporting(
    scaling: RecognizerAutoscalingSettings, policy: str, kwargs: dict[str, object]
) -> dict[str, Any]:
    interval_s = scaling.report_interval_s
    return {
        "metrics_interval_s": interval_s,
        "policy": AutoscalingPolicy(  # type: ignore[no-untyped-call]  # Ray leaves it untyped
            policy_function=f"{_POLICIES}:{policy}",
            policy_kwargs={"report_interval_s": interval_s, **kwargs},
        ),
    }


def _config(scaling: AutoscalingSettings, **overrides: Any) -> AutoscalingConfig:
    options: dict[str, Any] = {
        "min_replicas": scaling.min_replicas,
        "max_replicas": scaling.max_replicas,
        # Serve returns to this number at every change of the settings, whatever the load. It is
        # set only if the first start would otherwise start no replica and prove nothing.
        "initial_replicas": 1 if scaling.min_replicas == 0 else None,
        "target_ongoing_requests": scaling.target_ongoing_requests,
        "look_back_period_s": _LOOK_BACK_S,
        "upscale_delay_s": scaling.upscale_delay_s,
        "downscale_delay_s": scaling.downscale_delay_s,
        "downscale_to_zero_delay_s": scaling.idle_to_zero_delay_s,
    }
    with warnings.catch_warnings():
        # Ray 2.60 deprecates metrics_interval_s in favor of environment variables, which have
        # no effect yet on what replicas report.
        warnings.filterwarnings("ignore", "The `metrics_interval_s` field", DeprecationWarning)
        return AutoscalingConfig(**(options | overrides))
