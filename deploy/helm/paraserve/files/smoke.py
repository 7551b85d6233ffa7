"""Transcribes the bundled clip through a running service: `smoke.py URL MAX_ERROR_RATE`.

A negative rate only demands an answer. An API key is read from a mounted file.
"""

from __future__ import annotations

import json
import sys
from importlib import resources
from pathlib import Path

import httpx

from serve_app.transcript.cer import character_error_rate

KEY_FILE = Path("/etc/paraserve/api-key/key")


def main(url: str, max_error_rate: float) -> int:
    samples = resources.files("serve_app.packs.builtin") / "samples"
    clip = (samples / "clip.flac").read_bytes()
    sentences = json.loads((samples / "clip.json").read_text(encoding="utf-8"))
    spoken = "".join(sentence["text"] for sentence in sentences)
    headers = {}
    if KEY_FILE.exists():
        headers["Authorization"] = f"Bearer {KEY_FILE.read_text().strip()}"
    with httpx.Client(base_url=url, headers=headers, timeout=300, trust_env=False) as client:
        ready = client.get("/readyz")
        print("readyz:", ready.status_code, ready.text)
        answer = client.post(
            "/v1/audio/transcriptions",
            data={"model": "whisper-1", "response_format": "verbose_json"},
            files={"file": ("clip.flac", clip)},
        )
    print("transcription:", answer.status_code, answer.text)
    if answer.status_code == httpx.codes.UNAUTHORIZED and not KEY_FILE.exists():
        print("FAILED: the service wants an API key; put one into the Secret that")
        print("helmTest.apiKeySecret names, under the key helmTest.apiKeySecretKey")
        return 1
    if not answer.is_success:
        return 1
    heard = answer.json()
    if heard.get("partial"):
        print("FAILED: the transcript is partial")
        return 1
    error_rate = character_error_rate(spoken, heard["text"])
    print(f"error rate {error_rate:.2%}, spoken {spoken!r}, heard {heard['text']!r}")
    if 0 <= max_error_rate < error_rate:
        print(f"FAILED: more than {max_error_rate:.2%}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
