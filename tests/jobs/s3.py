"""An S3 API of the tests' own."""

from __future__ import annotations

import uuid

import httpx
from moto.server import ThreadedMotoServer


class S3:
    """A running server."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.endpoint = f"http://{host}:{port}"

    def new_bucket(self) -> str:
        """Creates a bucket and returns its URL."""
        name = f"jobs-{uuid.uuid4().hex}"
        httpx.put(f"{self.endpoint}/{name}").raise_for_status()
        return f"s3://{name}"

    def objects(self, bucket_url: str) -> str:
        """Returns the listing of a bucket, as XML."""
        return httpx.get(f"{self.endpoint}/{bucket_url.removeprefix('s3://')}").text

    def close(self) -> None:
        self._server.stop()
