"""What HAProxy's tests share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from loadtests.ports import free_port
from tests.hosting.haproxy_process import Backend, Proxy, configuration, launch


@pytest.fixture(scope="module")
def backend() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Sockets have short paths.
    return tmp_path_factory.mktemp("h")


@pytest.fixture
def proxy(folder: Path, backend: int) -> Iterator[Proxy]:
    port = free_port()
    configuration(folder, port, backend)
    proxy = launch(folder, port)
    yield proxy
    proxy.stop()
