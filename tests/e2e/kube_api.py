"""The API server as the node and the played operator use it: JSON in, JSON out."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx

from tests.deploy.charting import Json

RAY = "/apis/ray.io/v1"
CORE = "/api/v1"


class Refusal(Exception):
    """The API server's answer to what it does not do."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class KubeApi:
    """An API server, as its administrator.

    Args:
        url: of the server.
        ca_file: with which its certificate is checked.
        token: of the administrator.
        manager: under which fields are written.
    """

    def __init__(self, url: str, ca_file: Path, token: str, manager: str) -> None:
        self._client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            verify=ssl.create_default_context(cafile=str(ca_file)),
            trust_env=False,
            timeout=20,
        )
        self._manager = manager

    def find(self, path: str) -> Json | None:
        """Returns an object, None if there is none."""
        try:
            return self._send("GET", path)
        except Refusal as error:
            if error.status == 404:
                return None
            raise

    def items(self, path: str, selector: str = "") -> list[Json]:
        answer = self._send("GET", path, params={"labelSelector": selector} if selector else {})
        found: list[Json] = answer["items"]
        return found

    def create(self, path: str, body: Json) -> Json:
        return self._send("POST", path, body, {"fieldManager": self._manager})

    def replace(self, path: str, body: Json) -> Json:
        """Writes the whole object, as an Update of a Go client does."""
        return self._send("PUT", path, body, {"fieldManager": self._manager})

    def delete(self, path: str, grace_s: int | None = None) -> None:
        """Deletes an object, if it is there."""
        body: Json = {"propagationPolicy": "Background"}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        try:
            self._send("DELETE", path, body)
        except Refusal as error:
            if error.status != 404:
                raise

    def _send(
        self, method: str, path: str, body: Json | None = None, params: Json | None = None
    ) -> Json:
        answer = self._client.request(method, path, json=body, params=params)
        content: Json = answer.json() if "json" in answer.headers.get("content-type", "") else {}
        if answer.is_error:
            raise Refusal(answer.status_code, str(content.get("message", answer.text[:300])))
        return content
