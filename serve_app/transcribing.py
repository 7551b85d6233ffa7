"""`paraserve transcribe` and `paraserve segments`."""

from __future__ import annotations

import asyncio
import glob
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from serve_app.api.parameters import Offer, TranscriptionParameters, parse_parameters
from serve_app.api.rendering import render_body
from serve_app.audio import AudioDecoder
from serve_app.core.chunks import RecordingEnd, SpeechSegment
from serve_app.core.errors import ParaserveError
from serve_app.core.itn import AS_SAID, apply_rules
from serve_app.core.transcripts import Transcript, TranscriptEvent, collect
from serve_app.pipeline.loading import load_vad, segmentation_options
from serve_app.pipeline.local import LocalTranscriber
from serve_app.settings import Settings

_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".amr", ".webm", ".mp4"}
)
_OUTPUT_SUFFIX = {"text": "txt", "json": "json", "verbose_json": "json", "srt": "srt", "vtt": "vtt"}


@dataclass(frozen=True, slots=True)
class TranscribeRequest:
    """What the command line asked for.

    Attributes:
        patterns: files, directories and glob patterns.
        url: a running service, None to run the models in this process.
        response_format: as in the HTTP API.
        stages: as in the HTTP API, None for all.
        itn: write numbers in digits.
        replacements: as in the HTTP API, None for none.
        model: as in the HTTP API, None for the first.
        hotwords: as in the HTTP API, None for none.
        keywords: as in the HTTP API, None for none.
        language: as in the HTTP API, None for what the service takes it for.
        api_key: for the service at `url`, None where it asks for none.
        output_dir: where to write one file per recording, None for stdout.
    """

    patterns: tuple[str, ...]
    url: str | None
    response_format: str
    stages: str | None
    itn: bool
    output_dir: Path | None
    model: str | None = None
    hotwords: str | None = None
    keywords: str | None = None
    language: str | None = None
    replacements: str | None = None
    api_key: str | None = field(default=None, repr=False)

    def optional_fields(self) -> dict[str, str | list[str]]:
        """The form fields that are not always sent."""
        texts = {
            "stages": self.stages,
            "hotwords": self.hotwords,
            "keywords": self.keywords,
            "language": self.language,
            "replacements": self.replacements,
        }
        fields: dict[str, str | list[str]] = {name: text for name, text in texts.items() if text}
        if self.itn:
            fields["itn"] = "true"
        if self.response_format == "verbose_json":
            fields["timestamp_granularities[]"] = ["word", "segment"]
        return fields


def speech_segments(file: Path, settings: Settings) -> list[SpeechSegment]:
    """Returns what the VAD finds in a file.

    Raises:
        AudioError: the file is not usable audio.
        PackError: the VAD's pack cannot be used.
    """
    stream = load_vad(settings).engine.open()
    found: list[SpeechSegment] = []
    with AudioDecoder(file, segmentation_options(settings).limits) as decoder:
        for pcm in decoder.windows():
            found.extend(stream.push(pcm))
    return found + stream.finish()


def transcribe_files(request: TranscribeRequest, settings: Settings, console: Console) -> int:
    """Transcribes each file; returns the exit code: 1 if any of them failed."""
    files = list(_expand(request.patterns))
    if not files:
        console.print("[red]error:[/red] no recordings found", highlight=False)
        return 1
    parameters = _parameters(request, settings)
    if request.output_dir is not None:
        request.output_dir.mkdir(parents=True, exist_ok=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[position]}"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        run = _Run(request, parameters, files, progress)
        num_failed = run.over_http(request.url) if request.url else run.in_process(settings)
    return 1 if num_failed else 0


def _expand(patterns: tuple[str, ...]) -> Iterator[Path]:
    """Yields the files that the patterns name, each once."""
    seen: set[Path] = set()
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            found = sorted(entry for entry in path.rglob("*") if entry.suffix.lower() in _SUFFIXES)
        elif path.exists() or not glob.has_magic(pattern):
            found = [path]
        else:
            found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
        for entry in found:
            if entry not in seen:
                seen.add(entry)
                yield entry


def _parameters(request: TranscribeRequest, settings: Settings) -> TranscriptionParameters:
    section = settings.recognizer
    first, *others = section.models
    offer = Offer(
        first,
        (),
        section.languages,
        settings.stages,
        section.default_language,
        tuple(others),
        # A service checks by itself what it is sent.
        request.url is not None or section.engine == "hybrid",
        settings.text.all_replacements(),
    )
    fields = {
        "model": [offer.model if request.url else request.model or offer.model],
        "response_format": [request.response_format],
    }
    for name, value in request.optional_fields().items():
        fields[name] = value if isinstance(value, list) else [value]
    if request.url is not None:
        # These settings are not those of the service, which checks by itself what it is sent.
        fields.pop("language", None)
    return parse_parameters(fields, offer)


class _Run:
    """One invocation over all its files."""

    def __init__(
        self,
        request: TranscribeRequest,
        parameters: TranscriptionParameters,
        files: list[Path],
        progress: Progress,
    ) -> None:
        self._request = request
        self._parameters = parameters
        self._files = files
        self._progress = progress
        self._num_failed = 0

    def in_process(self, settings: Settings) -> int:
        """Returns the number of files that failed."""
        asyncio.run(self._in_process(settings))
        return self._num_failed

    def over_http(self, url: str) -> int:
        """Returns the number of files that failed."""
        key = self._request.api_key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with httpx.Client(base_url=url, headers=headers, timeout=None) as client:  # noqa: S113 - hours are normal
            for file in self._files:
                task = self._begin(file, total_s=None)
                try:
                    self._write(file, self._post(client, file))
                except (httpx.HTTPError, OSError) as error:
                    self._fail(file, str(error))
                self._finish(task, "")
        return self._num_failed

    async def _in_process(self, settings: Settings) -> None:
        loading = self._progress.add_task("loading models", total=None, position="")
        async with LocalTranscriber(settings) as transcriber:
            self._progress.remove_task(loading)
            transcriber.check_hotwords(self._parameters.hints)
            for file in self._files:
                try:
                    transcript = await self._transcribe(transcriber, file, settings)
                except (ParaserveError, OSError) as error:
                    self._fail(file, str(error))
                    continue
                for failed in transcript.failures:
                    self._fail(file, f"{failed.start_ms}-{failed.end_ms} ms: {failed.error}")
                self._write(file, render_body(transcript, self._parameters))

    async def _transcribe(
        self, transcriber: LocalTranscriber, file: Path, settings: Settings
    ) -> Transcript:
        with AudioDecoder(file, segmentation_options(settings).limits) as decoder:
            task = self._begin(file, decoder.info.declared_s)
        audio = np.memmap(file, dtype=np.uint8, mode="r")

        async def watched() -> AsyncGenerator[TranscriptEvent]:
            stages = self._parameters.stages
            events = transcriber.transcribe(audio, stages, file.name, self._parameters.hints)
            if self._parameters.text_rules != AS_SAID:
                events = apply_rules(events, self._parameters.text_rules)
            async with aclosing(events):
                async for event in events:
                    if not isinstance(event, RecordingEnd):
                        self._advance(task, event.end_ms)
                    yield event

        transcript = await collect(watched())
        self._finish(task, f"{transcript.duration_ms / 1000:.0f} s")
        return transcript

    def _post(self, client: httpx.Client, file: Path) -> str:
        fields: dict[str, str | list[str]] = {
            "model": self._request.model or self._served_model(client),
            "response_format": self._request.response_format,
            **self._request.optional_fields(),
        }
        with file.open("rb") as content:
            response = client.post(
                "/v1/audio/transcriptions", data=fields, files={"file": (file.name, content)}
            )
        if response.is_error:
            raise httpx.HTTPError(_error_message(response))
        return response.text

    def _served_model(self, client: httpx.Client) -> str:
        response = client.get("/v1/models")
        if response.is_error:
            raise httpx.HTTPError(_error_message(response))
        return str(response.json()["data"][0]["id"])

    def _begin(self, file: Path, total_s: float | None) -> TaskID:
        return self._progress.add_task(file.name, total=total_s, position="")

    def _advance(self, task: TaskID, position_ms: int) -> None:
        position_s = position_ms / 1000
        self._progress.update(task, completed=position_s, position=f"{position_s:.0f} s")

    def _finish(self, task: TaskID, position: str) -> None:
        self._progress.update(task, total=1, completed=1, position=position)

    def _fail(self, file: Path, reason: str) -> None:
        self._num_failed += 1
        self._progress.console.print(f"[red]failed:[/red] {file}: {reason}", highlight=False)

    def _write(self, file: Path, content: str) -> None:
        if self._request.output_dir is not None:
            suffix = _OUTPUT_SUFFIX[self._parameters.response_format]
            (self._request.output_dir / f"{file.name}.{suffix}").write_text(content)
            return
        if len(self._files) > 1:
            typer.echo(f"==> {file} <==")
        typer.echo(content.rstrip("\n"))


def _error_message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {response.status_code}"
