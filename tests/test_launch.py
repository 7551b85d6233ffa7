"""Starting the service, as far as it goes without a cluster."""

from __future__ import annotations

import socket

import pytest

from serve_app.core.errors import ConfigurationError, StartFailed
from serve_app.launch import running, wait_until_ready
from serve_app.settings import Settings


def test_port_in_use_is_reported_before_anything_starts() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        settings = Settings.model_validate({"http": {"port": port}})
        with pytest.raises(StartFailed, match=f"127.0.0.1:{port}"), running(settings):
            pass


def test_missing_api_keys_are_reported_before_a_cluster_starts() -> None:
    settings = Settings.model_validate({"auth": {"mode": "keys"}})
    told: list[str] = []
    with pytest.raises(ConfigurationError, match="keys_file"), running(settings, told.append):
        pass
    assert told == []


def test_wait_ends_once_there_is_no_use_in_it() -> None:
    def check() -> None:
        raise StartFailed("the node is lost")

    with pytest.raises(StartFailed, match="the node is lost"):
        wait_until_ready("http://127.0.0.1:9", 600.0, check)
