"""The service under test: one that runs already, or one of our own for the run."""

from __future__ import annotations

import ipaddress
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from loadtests.ports import free_port
from serve_app.launch import prepare_environment, running
from serve_app.settings import Settings, load_settings

_OBJECT_STORE_BYTES = 2**30
_MAX_UPLOAD_BYTES = 2**28


class RemoteRefused(Exception):
    """The address is not on this machine, and nobody allowed that."""


def check_local(url: str, *, allow_remote: bool) -> None:
    """Keeps a typing error from loading somebody else's service.

    Raises:
        RemoteRefused: the host is not a loopback address.
    """
    host = urlsplit(url).hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local and not allow_remote:
        raise RemoteRefused(f"{host or url} is not this machine; --allow-remote if you mean it")


def own_settings(assignments: Sequence[str] = ()) -> Settings:
    """Returns the demo profile on a free port, able to take recordings of three hours.

    Args:
        assignments: further settings, `NAME=VALUE` as on the command line; last wins.

    Raises:
        ConfigurationError: an assignment is malformed.
    """
    return load_settings(
        "demo",
        [
            f"http.port={free_port()}",
            # Some loads deploy it by Serve's own means, which demand keys otherwise.
            "auth.mode=off",
            f"cluster.object_store_bytes={_OBJECT_STORE_BYTES}",
            f"audio.max_upload_bytes={_MAX_UPLOAD_BYTES}",
            *assignments,
        ],
    )


@contextmanager
def service(url: str | None, settings: Settings) -> Iterator[str]:
    """Yields the URL that was given, or the one of a service that runs for the block."""
    if url is not None:
        yield url
        return
    prepare_environment(settings)
    with running(settings, lambda message: print(message, flush=True)) as application:
        yield application.url


def machine() -> str:
    """Where this runs, for reports."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"
