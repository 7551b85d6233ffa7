"""Live transcription is an application of its own in the Serve config."""

from __future__ import annotations

import pytest
from ray.serve._private.build_app import build_app

from serve_app.app import build_live
from serve_app.launch import LIVE_ROUTE_PREFIX
from serve_app.settings import Settings
from tests.deploy.charting import Json, combined, ready_values, render, serve_config

LIVE: Json = {"settings": {"live": {"enabled": True, "max_sessions": 7}}}


def applications(values: Json) -> dict[str, Json]:
    config = serve_config(render(values))
    return {application["name"]: application for application in config["applications"]}


@pytest.mark.parametrize("name", ["demo-cpu", "one-gpu", "airgapped"])
def test_live_transcription_is_served_only_if_enabled(name: str) -> None:
    without = applications(ready_values(name))
    with_live = applications(combined(ready_values(name), LIVE))
    assert set(with_live) - set(without) == {"paraserve-live"}
    assert with_live["paraserve-live"]["route_prefix"] == LIVE_ROUTE_PREFIX
    # Turning it on or off restarts nothing but the page, which then has live captions.
    page = without.pop("paraserve-ui", None)
    assert {name: with_live[name] for name in without} == without
    if page is not None:
        args = {**page["args"], "live": {"enabled": True}}
        assert with_live["paraserve-ui"] == {**page, "args": args}


def test_its_application_is_built_from_its_args_and_uses_the_main_one() -> None:
    rendered = applications(combined(ready_values("demo-cpu"), LIVE))
    settings = Settings.model_validate(rendered["paraserve-live"]["args"])
    assert settings.live.max_sessions == 7
    assert settings.app_name == rendered["paraserve"]["name"]
    off = settings.model_copy(update={"auth": settings.auth.model_copy(update={"mode": "off"})})
    built = build_app(build_live(off), name="live", route_prefix=LIVE_ROUTE_PREFIX)
    assert [deployment.name for deployment in built.deployments] == ["Live"]


def test_its_number_of_replicas_is_no_part_of_its_args() -> None:
    three: Json = {"settings": {"live": {"enabled": True, "deployment": {"num_replicas": 3}}}}
    live = applications(combined(ready_values("demo-cpu"), three))["paraserve-live"]
    assert live["deployments"] == [{"name": "Live", "num_replicas": 3}]
    assert "num_replicas" not in live["args"]["live"]["deployment"]


def test_it_scales_with_its_sessions() -> None:
    scaling: Json = {
        "settings": {"live": {"enabled": True, "deployment": {"autoscaling": {"max_replicas": 6}}}}
    }
    live = applications(combined(ready_values("demo-cpu"), scaling))["paraserve-live"]
    settings = Settings.model_validate(live["args"])
    assert "deployments" not in live
    assert settings.live.deployment.autoscaling is not None
    assert settings.live.deployment.autoscaling.target_ongoing_requests == 20


def test_that_of_another_application_is_refused() -> None:
    values = combined(
        ready_values("demo-cpu"),
        {"extraApplications": {"fast": {"settings": {"live": {"enabled": True}}}}},
    )
    with pytest.raises(Exception, match="belongs to the main application"):
        render(values)


def test_sessions_do_not_lengthen_the_grace_period_of_pods_but_outlive_proxies() -> None:
    long: Json = {"settings": {"live": {"enabled": True, "max_session_s": 30_000}}}
    without, with_live = (
        _pod(render(values))
        for values in (ready_values("demo-cpu"), combined(ready_values("demo-cpu"), long))
    )
    assert with_live["terminationGracePeriodSeconds"] == without["terminationGracePeriodSeconds"]
    variables = {one["name"]: one.get("value") for one in with_live["containers"][0]["env"]}
    assert variables["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"] == "30060"


def _pod(objects: list[Json]) -> Json:
    (service,) = (one for one in objects if one["kind"] == "RayService")
    group = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    pod: Json = group["template"]["spec"]
    return pod
