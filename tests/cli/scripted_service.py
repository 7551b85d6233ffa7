"""`paraserve transcribe` against a service that answers from a script."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import pytest
from typer.testing import CliRunner, Result

from serve_app.cli.main import app


def transcribe(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["transcribe", *arguments])


def serve_answer(monkeypatch: pytest.MonkeyPatch, document: Mapping[str, object]) -> list[str]:
    """Answers every transcription with a document; returns the list of the bodies sent."""
    bodies: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"data": [{"id": "paraformer-demo"}]})
        bodies.append(request.read().decode("utf-8", "replace"))
        return httpx.Response(200, json=document)

    original = httpx.Client.__init__

    def init(self: httpx.Client, **options: object) -> None:
        original(self, **{**options, "transport": httpx.MockTransport(answer)})  # type: ignore[arg-type]

    monkeypatch.setattr(httpx.Client, "__init__", init)
    return bodies


def fields_of(body: str) -> dict[str, str]:
    """Returns the fields of a multipart form."""
    parts = [part.split("\r\n\r\n", 1) for part in body.split("form-data; name=")[1:]]
    return {head.split('"')[1]: value.split("\r\n")[0] for head, value in parts}
