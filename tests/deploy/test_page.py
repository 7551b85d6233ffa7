"""The web page is an application of its own in the Serve config."""

from __future__ import annotations

import pytest
from ray.serve._private.build_app import build_app

from serve_app.app import build_page
from serve_app.settings import Settings
from tests.deploy.charting import Json, combined, ready_values, render, serve_config

PAGE: Json = {"settings": {"ui": {"enabled": True, "max_running": 3}}}


def applications(values: Json) -> dict[str, Json]:
    config = serve_config(render(values))
    return {application["name"]: application for application in config["applications"]}


@pytest.mark.parametrize("name", ["demo-cpu", "one-gpu", "airgapped"])
def test_page_is_served_only_if_enabled(name: str) -> None:
    without = applications(ready_values(name))
    with_page = applications(combined(ready_values(name), PAGE))
    assert set(with_page) - set(without) == {"paraserve-ui"}
    assert with_page["paraserve-ui"]["route_prefix"] == "/ui"
    # Turning it on or off restarts nothing.
    assert {name: with_page[name] for name in without} == without


def test_application_of_the_page_is_built_from_its_args() -> None:
    page = applications(combined(ready_values("demo-cpu"), PAGE))["paraserve-ui"]
    settings = Settings.model_validate(page["args"])
    assert settings.ui.max_running == 3
    built = build_app(build_page(settings), name="page", route_prefix="/ui")
    assert [deployment.name for deployment in built.deployments] == ["Page"]


def test_page_of_another_application_is_refused() -> None:
    values = combined(
        ready_values("demo-cpu"),
        {"extraApplications": {"fast": {"settings": {"ui": {"enabled": True}}}}},
    )
    with pytest.raises(Exception, match="belongs to the main application"):
        render(values)
