"""Where a service that is started for a measurement listens."""

from __future__ import annotations

from serve_app import launch


def free_port() -> int:
    """Returns a port of the loopback interface that nobody listens on now."""
    return launch.free_port("127.0.0.1")
