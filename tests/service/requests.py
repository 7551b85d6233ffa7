"""Requests that the service tests send, and files to send."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import soundfile

URL = "/v1/audio/transcriptions"


def post(client: httpx.Client, content: bytes, **fields: str | Sequence[str]) -> httpx.Response:
    data: Mapping[str, Any] = {"model": "whisper-1", **fields}
    return client.post(URL, data=data, files={"file": ("recording", content)})


def transcribe(client: httpx.Client, content: bytes, **fields: str | Sequence[str]) -> Any:
    """Returns the JSON answer; anything but success fails the test."""
    response = post(client, content, **fields)
    assert response.status_code == 200, response.text
    return response.json()


def audio_file(
    samples: npt.NDArray[Any], rate_hz: int = 16_000, kind: str = "WAV", subtype: str = "PCM_16"
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=kind, subtype=subtype)
    return file.getvalue()


def read_audio(content: bytes) -> npt.NDArray[np.int16]:
    samples, _ = soundfile.read(io.BytesIO(content), dtype="int16")
    return np.asarray(samples, np.int16)
