"""A slow upload while the service is scaled and redeployed under it.

    python -m loadtests redeploy [--seconds 600]

Starts the demo profile on this machine and uploads a recording for ten minutes at a steady,
slow rate. Meanwhile ingress replicas go from 1 to 3 and back to 1, and a setting is changed by a
redeployment. Clips of 3 s are sent all the time, tried again as OpenAI's clients do. Exit code
0 if the upload is answered 200 with the right text and every clip was answered right.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from loadtests.load.clips import ClipLibrary
from loadtests.load.target import machine, own_settings
from loadtests.uploads.bodies import FORM_TYPE, form
from serve_app.client import AsyncParaserve, ClientError, TranscriptionRequest
from serve_app.launch import prepare_environment, running
from serve_app.settings import Settings

_LONG_S = 600.0
_CLIP_S = 3.0
_PIECES = 600
_REQUEST = TranscriptionRequest(model="whisper-1")


@dataclass(frozen=True, slots=True)
class Redeployment:
    """What came of it.

    Attributes:
        status: of the upload's answer; 0 if its connection broke.
        is_right: whether it has the right text.
        detail: what the answer was if not.
        num_clips: sent meanwhile.
        num_clips_right: of them.
    """

    status: int
    is_right: bool
    detail: str
    num_clips: int
    num_clips_right: int

    @property
    def held(self) -> bool:
        return self.is_right and self.num_clips_right == self.num_clips


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests redeploy", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="that the upload lasts")
    options = parser.parse_args(given)
    settings = own_settings(("ingress.deployment.num_replicas=1",))
    prepare_environment(settings)
    with (
        tempfile.TemporaryDirectory() as directory,
        running(settings, lambda message: print(message, flush=True)) as application,
    ):
        library = ClipLibrary(Path(directory))
        found = asyncio.run(_run(application.url, settings, library, options.seconds))
    print(found)
    print(machine())
    return 0 if found.held else 1


async def _run(url: str, settings: Settings, library: ClipLibrary, seconds: float) -> Redeployment:
    long = library.path(library.clip(_LONG_S)).read_bytes()
    clip = library.path(library.clip(_CLIP_S)).read_bytes()
    async with AsyncParaserve(url, "", max_retries=2) as service:
        long_text = (await service.transcribe(long, _REQUEST)).text
        clip_text = (await service.transcribe(clip, _REQUEST)).text
        upload = asyncio.create_task(_upload(url, long, seconds))
        changing = asyncio.create_task(_change(settings, seconds))
        sent = right = 0
        while not upload.done():
            sent += 1
            try:
                right += (await service.transcribe(clip, _REQUEST)).text == clip_text
            except ClientError as error:
                print(f"a clip: {error.status} {error.code} {error}", flush=True)
            await asyncio.sleep(1.0)
        await changing
    status, body = await upload
    is_right = status == 200 and body.strip() == long_text.strip()
    return Redeployment(status, is_right, "" if is_right else body[:200], sent, right)


async def _change(settings: Settings, seconds: float) -> None:
    """Scales ingress replicas up and down, then changes a setting."""
    changes: tuple[tuple[float, str, Callable[[Settings], Settings]], ...] = (
        (0.15, "3 ingress replicas", lambda given: _with_ingresses(given, 3)),
        (0.25, "1 ingress replica", lambda given: _with_ingresses(given, 1)),
        (0.25, "another setting", _with_shorter_batches),
    )
    for share, name, change in changes:
        await asyncio.sleep(share * seconds)
        settings = change(settings)
        await asyncio.to_thread(_deploy, settings)
        print(f"{time.strftime('%H:%M:%S')}  {name}", flush=True)


def _deploy(settings: Settings) -> None:
    from ray import serve

    from serve_app.app import build

    auth = settings.auth.model_copy(update={"mode": "off"})
    app = build(settings.model_copy(update={"auth": auth}))
    # It is not over before the upload is: the replica that reads it ends with it.
    target = serve.RunTarget(app, name=settings.app_name, route_prefix="/")
    serve.run_many([target], wait_for_applications_running=False)


def _with_ingresses(settings: Settings, number: int) -> Settings:
    deployment = settings.ingress.deployment.model_copy(update={"num_replicas": number})
    ingress = settings.ingress.model_copy(update={"deployment": deployment})
    return settings.model_copy(update={"ingress": ingress})


def _with_shorter_batches(settings: Settings) -> Settings:
    recognizer = settings.recognizer.model_copy(update={"max_batch_s": 0.8})
    return settings.model_copy(update={"recognizer": recognizer})


async def _upload(url: str, content: bytes, seconds: float) -> tuple[int, str]:
    """Posts a recording in pieces over so many seconds; returns status and body."""
    import httpx

    body = form(content, fields={"response_format": "text"})
    size = len(body) // _PIECES + 1

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]
            await asyncio.sleep(seconds / _PIECES)

    headers = {"Content-Type": FORM_TYPE, "Content-Length": str(len(body))}
    async with httpx.AsyncClient(base_url=url, timeout=900, trust_env=False) as client:
        try:
            answer = await client.post(
                "/v1/audio/transcriptions", content=pieces(), headers=headers
            )
        except httpx.HTTPError as error:
            return 0, f"{type(error).__name__}: {error}"
    return answer.status_code, answer.text


if __name__ == "__main__":
    sys.exit(main())
