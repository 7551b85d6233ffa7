"""What Ray is told follows from the settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ray.serve._private import constants

from serve_app.hosting.haproxy_launcher import OPTIONS_VARIABLE
from serve_app.hosting.ray_environment import (
    common_environment,
    hard_stop_after_s,
    run_environment,
)
from serve_app.hosting.run_directory import RunDirectory
from serve_app.settings import Settings

RUN = RunDirectory(Path("/tmp/paraserve-0/abcdef"))


def environment(**sections: dict[str, object]) -> dict[str, str]:
    settings = Settings.model_validate(sections)
    fixed, changeable = run_environment(settings, RUN, 12345)
    return {**common_environment(settings), **changeable, **fixed}


@pytest.mark.parametrize("longest_s", [7200.0, 20_000.5])
def test_replaced_proxy_keeps_its_connections_longer_than_any_request(longest_s: float) -> None:
    variables = environment(ingress={"max_request_timeout_s": longest_s})
    assert float(variables["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"]) >= longest_s + 60


def test_every_file_of_haproxy_lies_in_the_private_directory() -> None:
    variables = environment()
    paths = [
        name
        for name in vars(constants)
        if name.startswith("RAY_SERVE_HAPROXY_") and str(getattr(constants, name)).startswith("/")
    ]
    assert paths
    assert all(variables[name].startswith(str(RUN.path)) for name in paths)


def test_clients_are_bounded_as_the_settings_say() -> None:
    variables = environment(
        http={
            "header_timeout_s": 3,
            "idle_timeout_s": 4,
            "max_connections": 500,
            "max_connections_per_address": 6,
            "host": "0.0.0.0",
        }
    )
    options = json.loads(variables[OPTIONS_VARIABLE])
    assert options["header_timeout_s"] == 3
    assert options["max_connections_per_address"] == 6
    assert options["listen_host"] == "0.0.0.0"
    assert options["expects_root"] is True
    assert variables["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"] == "4"
    assert variables["RAY_SERVE_HAPROXY_MAXCONN"] == "500"


def test_variables_are_those_that_ray_serve_knows() -> None:
    source = Path(str(constants.__file__)).read_text()
    for name in environment():
        if name.startswith("RAY_SERVE_"):
            assert f'"{name}"' in source, name


def test_ray_listens_on_the_loopback_address_by_default() -> None:
    switch = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    assert environment()[switch] == "0"
    assert switch not in environment(cluster={"host": "10.0.0.5"})
    assert environment()["RAY_AUTH_MODE"] == "token"


def test_a_replaced_haproxy_outlives_the_longest_live_session() -> None:
    settings = Settings.model_validate({"live": {"enabled": True, "max_session_s": 30_000}})
    assert hard_stop_after_s(settings) == 30_060
    off = settings.model_copy(update={"live": settings.live.model_copy(update={"enabled": False})})
    assert hard_stop_after_s(off) < 30_000
