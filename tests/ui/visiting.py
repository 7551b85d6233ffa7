"""A visitor without a browser: what an attacker sends, byte by byte if need be."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.ui.serving import PREFIX

Json = dict[str, Any]
OCTETS = "application/octet-stream"
ORDER: Json = {
    "model": "paraformer-demo",
    "stages": [],
    "hotwords": "",
    "language": "",
    "itn": False,
    "num_speakers": 0,
    "separate_channels": False,
}


class Visit:
    """An open page: a cookie, a heartbeat, events.

    Args:
        url: of the page.
        session: as a browser would call it.
        key: for the API.
    """

    def __init__(self, url: str, session: str = "a1b2c3", key: str = "") -> None:
        self.url = url
        self.session = session
        self.key = key
        self.http = httpx.Client(base_url=url, timeout=20, trust_env=False)
        self._open = ExitStack()
        self._open.enter_context(self.http)

    def __enter__(self) -> Visit:
        self.http.get("").raise_for_status()
        self.open_page(self.session)
        self.functions = _functions(self.http.get("config").json())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())

    def open_page(self, session: str) -> int:
        """Returns the status of another heartbeat, which stays open."""
        path = f"gradio_api/heartbeat/{session}"
        return self._open.enter_context(self.http.stream("GET", path)).status_code

    def event(self, name: str, values: list[Any], **others: Any) -> Json:
        return {
            "data": values,
            "event_data": None,
            "fn_index": self.functions[name],
            "trigger_id": 1,
            "session_hash": self.session,
            **others,
        }

    def join(self, name: str, values: list[Any], **others: Any) -> httpx.Response:
        return self.send(json.dumps(self.event(name, values, **others)).encode())

    def send(self, body: bytes, route: str = "gradio_api/queue/join") -> httpx.Response:
        headers = {"Content-Type": "application/json"}
        return self.http.post(route, content=body, headers=headers)

    def submit(self, source: object) -> httpx.Response:
        return self.join("submit", [source])

    def submit_upload(self, upload: str) -> httpx.Response:
        return self.submit({"upload": upload, "run": "ab", "key": self.key, "order": ORDER})

    def upload(self, content: bytes, **headers: str) -> httpx.Response:
        sent = {"Content-Type": OCTETS}
        if self.key:
            sent["Authorization"] = f"Bearer {self.key}"
        return self.http.post("upload", content=content, headers=sent | headers)

    def results(self) -> Iterator[Json]:
        """Yields what the page is sent, until its events are over."""
        query = {"session_hash": self.session}
        with self.http.stream("GET", "gradio_api/queue/data", params=query) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if line.startswith("data: "):
                    message = json.loads(line.removeprefix("data: "))
                    if message["msg"] == "close_stream":
                        return
                    yield message

    def shown(self) -> Iterator[Json]:
        """Yields the page's values, put together from the differences that are sent."""
        value: Json = {}
        for message in self.results():
            if message["msg"] == "process_generating":
                data = message["output"]["data"][0]
                value = _patched(value, data) if isinstance(data, list) else data
                if "__type__" not in value:
                    yield value


def _patched(value: Json, edits: list[Any]) -> Json:
    """Returns a value with Gradio's edits; a value that says nothing of itself is an update."""
    patched = json.loads(json.dumps(value))
    for action, path, new in edits:
        if not path:
            return dict(new)
        holder = patched
        for key in path[:-1]:
            holder = holder[key]
        if action == "delete":
            del holder[path[-1]]
        elif action == "append":
            holder[path[-1]] += new
        elif action == "add" and isinstance(holder, list):
            holder.insert(path[-1], new)
        else:
            holder[path[-1]] = new
    return dict(patched)


def _functions(config: Json) -> dict[str, int]:
    """Returns Gradio's numbers of the page's functions, by the event that calls them."""
    return {
        event: dependency["id"]
        for dependency in config["dependencies"]
        if dependency["inputs"]
        for _, event in dependency["targets"]
    }


@contextmanager
def connection(url: str) -> Iterator[socket.socket]:
    """Yields a connection on which nothing has been sent yet."""
    address = urlsplit(url)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 80), timeout=20) as opened:
        yield opened


def request_head(method: str, path: str, **headers: str) -> bytes:
    """Returns the head of a request as it is on the wire; `_` in names stands for `-`."""
    lines = [f"{method} {PREFIX}/{path} HTTP/1.1", "Host: page"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def status_of(opened: socket.socket) -> int:
    """Returns the status of the response that comes."""
    received = b""
    while b"\r\n" not in received:
        block = opened.recv(4096)
        if not block:
            return 0
        received += block
    return int(received.split(b" ", 2)[1])
