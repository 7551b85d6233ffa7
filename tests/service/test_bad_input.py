"""What users send by mistake: one clear error each, and the service goes on."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.service.requests import URL, audio_file, post, transcribe

pytestmark = pytest.mark.ray

TONE = (np.sin(np.arange(32_000) / 10) * 8000).astype(np.int16)


def nan_wav() -> bytes:
    samples = np.full(16_000, np.nan, np.float32)
    return audio_file(samples, subtype="FLOAT")


BAD_FILES = {
    "empty": (b"", 400, "empty_file"),
    "text renamed wav": (b"this is not audio at all\n" * 50, 400, "unknown_audio_format"),
    "pdf": (b"%PDF-1.7\n" + bytes(500), 400, "unknown_audio_format"),
    "wav without samples": (audio_file(TONE)[:44], 400, "truncated_audio"),
    "flac without frames": (audio_file(TONE, kind="FLAC")[:100], 400, "corrupt_audio"),
    "zero samples": (audio_file(TONE[:0]), 400, "audio_too_short"),
    "20 ms": (audio_file(TONE[:320]), 400, "audio_too_short"),
    "nan": (nan_wav(), 400, "invalid_samples"),
    "4 kHz": (audio_file(TONE, rate_hz=4000), 400, "unsupported_audio_layout"),
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("stream", ["false", "true"])
def test_bad_file_is_one_clear_error(client: httpx.Client, name: str, stream: str) -> None:
    content, status, code = BAD_FILES[name]
    response = post(client, content, stream=stream)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code), response.text
    assert error["param"] == "file"
    assert "Traceback" not in error["message"]


def test_service_is_unharmed_by_bad_files_and_keeps_none(
    client: httpx.Client, demo_flac: bytes, spool_dir: Path
) -> None:
    before = transcribe(client, demo_flac)
    for content, _, _ in BAD_FILES.values():
        post(client, content)
    assert transcribe(client, demo_flac) == before
    assert list(spool_dir.iterdir()) == []
    assert client.get("/readyz").status_code == 200


def test_a_truncated_file_is_decoded_up_to_its_end(client: httpx.Client) -> None:
    response = post(client, audio_file(TONE)[:20_000], response_format="verbose_json")

    assert response.status_code == 200, response.text
    assert response.json()["failed_ranges"][0]["reason"] == "damaged"
    assert "X-Paraserve-Partial" in response.headers


def test_too_large_upload_is_refused(client: httpx.Client) -> None:
    response = post(client, b"fLaC" + bytes(51 * 2**20))
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "upload_too_large"


def test_recording_that_unfolds_over_the_limit_is_refused(client: httpx.Client) -> None:
    hours = audio_file(np.zeros(6 * 3600 * 8000, np.int16), rate_hz=8000, kind="FLAC")
    response = post(client, hours)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "audio_too_long"


def test_wrong_method_and_path(client: httpx.Client) -> None:
    assert client.get(URL).status_code == 405
    assert client.get("/v1/nothing").status_code == 404
