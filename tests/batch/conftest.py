"""One small cluster, without Serve, for the tests of jobs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serve_app.hosting.node import reload_token
from serve_app.launch import prepare_environment
from serve_app.settings import Settings


@pytest.fixture(scope="session")
def settings() -> Settings:
    settings = Settings.model_validate(
        {"profile": "demo", "batch": {"block_bytes": 256 * 1024, "log_interval_s": 1}}
    )
    # Must come before anything imports Ray.
    prepare_environment(settings)
    return settings


@pytest.fixture(scope="package")
def cluster(settings: Settings) -> Iterator[None]:
    import ray

    reload_token()
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
