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
import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from loadtests.harness.clips import ClipLibrary
from loadtests.harness.loops import Probe, probe
from loadtests.harness.report import Report, parse, parser
from loadtests.harness.requests import WHISPER, Caller, Request, Retries
from loadtests.serving import own_settings, service
from serve_app.client import ClientError, Paraserve
from serve_app.settings import Settings

_CLIP_S = 3.0
_READS = 600
# As OpenAI's clients.
_RETRIES = Retries(refusals=True, breaks=True, failures=True, max_attempts=3)


def main(given: Sequence[str] | None = None) -> int:
    made = parser("redeploy", __doc__)
    made.add_argument("--seconds", type=float, default=600.0, help="that the upload lasts")
    made.add_argument("--minutes", type=float, default=10.0, help="of audio in the upload")
    options = parse(made, given)
    settings = own_settings(("ingress.deployment.num_replicas=1",))
    with (
        tempfile.TemporaryDirectory() as directory,
        service(None, settings) as url,
        Report("redeploy", options) as report,
    ):
        library = ClipLibrary(Path(directory))
        asyncio.run(_run(url, settings, library, options, report))
    return report.exit_code


async def _run(
    url: str,
    settings: Settings,
    library: ClipLibrary,
    options: argparse.Namespace,
    report: Report,
) -> None:
    long = library.content(60 * options.minutes)
    async with Caller(url) as caller:
        long_text = await caller.text(long)
        clip = library.content(_CLIP_S)
        request = Request(clip, await caller.text(clip))
        report.table("Changes during the upload", ("change", "after s"))
        upload = asyncio.create_task(asyncio.to_thread(_upload, url, long, options.seconds))
        changing = asyncio.create_task(_change(settings, options.seconds, report))
        clips = await probe(
            caller, request, lambda _: not upload.done(), pause_s=1.0, retries=_RETRIES
        )
        await changing
    judge(report, await upload, long_text, clips)


def judge(report: Report, answer: str, expected: str, clips: Probe) -> None:
    """Adds what was promised to the upload and to the clips beside it."""
    right = answer.strip() == expected.strip()
    report.promise("the upload is answered right", "yes" if right else answer[:200], right)
    others = clips.num_refused + clips.num_other
    found = f"{len(clips.latencies_s)} of {len(clips.latencies_s) + others}"
    report.promise("every clip is answered right", found, others == 0)


async def _change(settings: Settings, seconds: float, report: Report) -> None:
    """Scales ingress replicas up and down, then changes a setting."""
    changes: tuple[tuple[float, str, Callable[[Settings], Settings]], ...] = (
        (0.15, "3 ingress replicas", lambda given: _with_ingresses(given, 3)),
        (0.25, "1 ingress replica", lambda given: _with_ingresses(given, 1)),
        (0.25, "another setting", _with_shorter_batches),
    )
    began_s = time.monotonic()
    for share, name, change in changes:
        await asyncio.sleep(share * seconds)
        settings = change(settings)
        await asyncio.to_thread(_deploy, settings)
        report.row(name, time.monotonic() - began_s)
        report.say(name)


def _deploy(settings: Settings) -> None:
    from ray import serve

    from serve_app.app import build

    # It is not over before the upload is: the replica that reads it ends with it.
    target = serve.RunTarget(build(settings), name=settings.app_name, route_prefix="/")
    serve.run_many([target], wait_for_applications_running=False)


def _with_ingresses(settings: Settings, number: int) -> Settings:
    deployment = settings.ingress.deployment.model_copy(update={"num_replicas": number})
    ingress = settings.ingress.model_copy(update={"deployment": deployment})
    return settings.model_copy(update={"ingress": ingress})


def _with_shorter_batches(settings: Settings) -> Settings:
    recognizer = settings.recognizer.model_copy(update={"max_batch_s": 0.8})
    return settings.model_copy(update={"recognizer": recognizer})


class SlowFile(io.BytesIO):
    """A recording that takes so many seconds to read, at a steady rate."""

    def __init__(self, content: bytes, seconds: float) -> None:
        super().__init__(content)
        self._read_bytes = len(content) // _READS + 1
        self._pause_s = seconds / _READS

    def read(self, size: int | None = -1, /) -> bytes:
        time.sleep(self._pause_s)
        return super().read(self._read_bytes)


def _upload(url: str, content: bytes, seconds: float) -> str:
    """Uploads a recording over so many seconds, once; returns the text, or what went wrong."""
    with Paraserve(url, "", timeout_s=900.0, max_retries=0) as client:
        try:
            return client.transcribe_as(SlowFile(content, seconds), "text", WHISPER).text
        except ClientError as error:
            return f"{error.status} {error.code}: {error}"


if __name__ == "__main__":
    sys.exit(main())
