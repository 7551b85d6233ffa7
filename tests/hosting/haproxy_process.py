"""HAProxy as the tests run it: Ray's configuration, the launcher, the real program."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import httpx
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from serve_app.hosting.haproxy_guard import haproxy_processes
from serve_app.hosting.haproxy_launcher import OPTIONS_VARIABLE, ProxyOptions
from serve_app.hosting.processes import Process, process_of
from tests.waiting import wait_until

HEADER_TIMEOUT_S = 1
OPTIONS = ProxyOptions(header_timeout_s=HEADER_TIMEOUT_S)


class Backend(BaseHTTPRequestHandler):
    """Serves documents that may be cached, and all else without saying so."""

    documents: ClassVar[list[tuple[str, Message]]] = []

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path.startswith(("/openapi.json", "/docs")):
            self.documents.append((self.path, self.headers))
            self.send_header("Cache-Control", "public, max-age=60")
            self.send_header("ETag", '"1"')
            self.send_header("X-Request-ID", self.headers["X-Request-ID"] or "made-by-replica")
        content = b"served"
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def configuration(
    folder: Path,
    port: int,
    backend: int | None,
    prefix: str = "/",
    passes_checks: bool = True,
) -> str:
    """Returns what Ray's own code writes."""
    config = HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=port),
        is_head=True,
        socket_path=str(folder / "admin"),
        server_state_base=str(folder),
        server_state_file=str(folder / "state"),
        metrics_socket_path=str(folder / "metrics"),
        pass_health_checks=passes_checks,
    )
    backends = {}
    if backend is not None:
        server = ServerConfig("r", "127.0.0.1", backend)
        backends["http-app"] = BackendConfig("http-app", prefix, app_name="app", servers=[server])
        config.has_received_routes = True
    api = HAProxyApi(config, backends, config_file_path=str(folder / "haproxy.cfg"))
    api._generate_config_file_internal()
    return (folder / "haproxy.cfg").read_text()


@dataclass
class Proxy:
    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Ends it for good: the guards first, which would stand in for it."""
        for guard in guards(self.folder):
            guard.send(signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for process in haproxy_processes(str(self.folder / "haproxy.cfg")):
            process.send(signal.SIGKILL)


def guards(folder: Path) -> list[Process]:
    """Returns the processes of launchers in a folder that have not become HAProxy."""
    found = []
    for entry in Path("/proc").iterdir():
        process = process_of(int(entry.name)) if entry.name.isdigit() else None
        if process is None or process.name == "haproxy":
            continue
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder / "haproxy.cfg") in command:
            found.append(process)
    return found


def launch(folder: Path, port: int, options: ProxyOptions = OPTIONS, maxconn: int = 0) -> Proxy:
    path = folder / "haproxy.cfg"
    if maxconn:
        path.write_text(re.sub(r"maxconn \d+", f"maxconn {maxconn}", path.read_text()))
    process = subprocess.Popen(
        [sys.executable, "-m", "serve_app.hosting.haproxy_launcher", "-db", "-f", str(path), "-dR"],
        env={**os.environ, OPTIONS_VARIABLE: json.dumps(asdict(options))},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        assert process.poll() is None, "HAProxy did not start"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return Proxy(port, folder, process)
    raise AssertionError("HAProxy does not listen")


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=20)


def wait_until_served(url: str) -> httpx.Response:
    wait_until(lambda: get(url).status_code == 200, lambda: get(url).text)
    return get(url)
