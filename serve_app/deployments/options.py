"""Ray Serve's deployment options, from our settings.

Ray Serve 2.60 has each replica listen for calls of other replicas on all addresses of the
machine (`replica.py`: "[::]:0") and has no setting for it. What arrives there is unpickled,
with Ray's token as the only protection. On a cluster that `paraserve serve` has started,
replicas listen on the node's own address instead.
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
    """Has replicas of this process listen on the node's address, if one is given."""
    if os.environ.get(NODE_ADDRESS_VARIABLE):
        if not hasattr(replica, _HELPER):
            raise RuntimeError(f"Ray's replica has no {_HELPER} any more")
        setattr(replica, _HELPER, _add_port_on_node_address)


def _add_port_on_node_address(server: Any, address: str) -> Any:
    host = os.environ[NODE_ADDRESS_VARIABLE]
    if address != _EVERYWHERE:
        raise RuntimeError(f"Ray's replicas listen on {address}, not on {_EVERYWHERE}, any more")
    own = f"[{host}]:0" if ":" in host else f"{host}:0"
    return add_port_to_grpc_server(server, own)  # type: ignore[no-untyped-call]  # Ray leaves it


# A child of Serve's own logger: it inherits the handlers and the JSON encoding
# that the builder asks for, and the ids of replica and request.
LOGGER = logging.getLogger("ray.serve.paraserve")

# Every deployment comes through here, in its replicas too.
listen_on_node_address_only()

_HEALTH_CHECK_PERIOD_S = 10
_HEALTH_CHECK_TIMEOUT_S = 60
_LOOK_BACK_INTERVALS = 5
# Ray Serve's own default; what is worth choosing are the delays.
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
        log_level: least level that is logged.
        autoscaling: instead of what `settings` say of it.
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
    """Returns how the recognizer scales; None for a fixed size."""
    scaling = settings.recognizer.deployment.autoscaling
    if scaling is None:
        return None
    if scaling.policy == "ongoing_requests":
        return by_requests(scaling)
    limits = asdict(scaling.limits())
    # The policy has delays of its own: those of Serve would come on top.
    return _config(
        scaling,
        upscale_delay_s=0.0,
        downscale_delay_s=0.0,
        downscale_to_zero_delay_s=0.0,
        # Nothing of it is averaged, but Serve wants it longer than the interval.
        look_back_period_s=_LOOK_BACK_INTERVALS * scaling.report_interval_s,
        **_reporting(scaling, "QueuedAudioPolicy", {"limits": limits}),
    )


def segmenter_autoscaling(settings: Settings) -> AutoscalingConfig | None:
    """Returns how the segmenter scales; None for what its own settings say.

    If the recognizer follows the audio that waits, the segmenter must report it, which
    Serve lets only deployments do that scale, if only between N and N.
    """
    recognizer = settings.recognizer.deployment.autoscaling
    if recognizer is None or recognizer.policy == "ongoing_requests":
        return None
    deployment = settings.segmenter.deployment
    fixed = AutoscalingSettings(
        min_replicas=deployment.num_replicas, max_replicas=deployment.num_replicas
    )
    return _config(deployment.autoscaling or fixed, **_reporting(recognizer, "SegmenterPolicy", {}))


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
        # Serve would return to it at every change of the settings, load or no load; it
        # is given only where a first start would otherwise prove nothing.
        "initial_replicas": 1 if scaling.min_replicas == 0 else None,
        "target_ongoing_requests": scaling.target_ongoing_requests,
        "look_back_period_s": _LOOK_BACK_S,
        "upscale_delay_s": scaling.upscale_delay_s,
        "downscale_delay_s": scaling.downscale_delay_s,
        "downscale_to_zero_delay_s": scaling.idle_to_zero_delay_s,
    }
    with warnings.catch_warnings():
        # Ray 2.60 announces that metrics_interval_s will give way to environment
        # variables, which do nothing yet for what replicas report.
        warnings.filterwarnings("ignore", "The `metrics_interval_s` field", DeprecationWarning)
        return AutoscalingConfig(**(options | overrides))
