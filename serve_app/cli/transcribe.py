"""`paraserve transcribe` and `paraserve segments`."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import typer
from rich.progress import Progress, TaskID

from serve_app.api.hotword_report import report_hotwords
from serve_app.api.models import offer_of
from serve_app.api.parameters import Offer, TranscriptionParameters, parse_parameters
from serve_app.api.responses import render_body
from serve_app.api.speaker_fields import NAMES, REFERENCES, SPEAKER_NUMBERS
from serve_app.audio import AudioDecoder
from serve_app.cli.console import FAILED, PARTIAL, tell
from serve_app.cli.job_progress import end_text, progress_bar, show_job
from serve_app.cli.known_speakers import reference_url
from serve_app.cli.output_files import FoundRecording, find_recordings, output_paths, write_whole
from serve_app.cli.service_options import ServiceOptions, connect, problem_of
from serve_app.client import ClientError, Job, Paraserve, Rendered, TranscriptionRequest
from serve_app.core.errors import ConfigurationError, InvalidParameter, ParaserveError
from serve_app.core.records import STAGES, RecordingEnd, SpeechSegment
from serve_app.core.speakers import ANY_NUMBER, KnownSpeaker, parse_speaker_numbers
from serve_app.core.words import join_words
from serve_app.inference.loading import load_vad, segmentation_options
from serve_app.inference.local import LocalTranscriber
from serve_app.packs.registry import demo_warning, is_demo_pack
from serve_app.settings import Settings
from serve_app.transcript.itn import AS_SAID, apply_rules
from serve_app.transcript.transcript import Transcript, TranscriptEvent, collect

_DIARIZED, _VERBOSE = "diarized_json", "verbose_json"
_OUTPUT_SUFFIX = {
    "text": "txt",
    "json": "json",
    "verbose_json": "json",
    _DIARIZED: "json",
    "srt": "srt",
    "vtt": "vtt",
}
_UNREADABLE = "cannot be read"
_JOB_TIMEOUT_S, _JOB_RETRIES = 600.0, 4


@dataclass(frozen=True, slots=True)
class TranscribeRequest:
    """Options of the command.

    Attributes:
        patterns: files, directories and glob patterns.
        url: of a running service, None to run the models in this process.
        response_format: as in the HTTP API.
        stages: as in the HTTP API, None for all.
        itn: write numbers in digits.
        replacements: as in the HTTP API, None for none.
        model: as in the HTTP API, None for the first.
        hotwords: as in the HTTP API, None for none.
        refine_keywords: as in the HTTP API, None for none.
        language: as in the HTTP API, None for the service's default.
        api_key: for the service at `url`, None if it needs none.
        output_dir: for one file per recording, None for stdout.
        subtitles: `NAME=VALUE` each, for the field `subtitle_NAME` of the HTTP API.
        speakers: label who speaks: `any`, a number of speakers or a range; None for no labels.
        channels: as in the HTTP API, None for their mix.
        as_job: make jobs of a service instead of requests.
        known: known speakers whom labels name.
    """

    patterns: tuple[str, ...]
    url: str | None
    response_format: str
    stages: str | None
    itn: bool
    output_dir: Path | None
    model: str | None = None
    hotwords: str | None = None
    refine_keywords: str | None = None
    language: str | None = None
    replacements: str | None = None
    api_key: str | None = field(default=None, repr=False)
    subtitles: tuple[str, ...] = ()
    speakers: str | None = None
    channels: str | None = None
    as_job: bool = False
    known: tuple[KnownSpeaker, ...] = ()

    @property
    def calls_service(self) -> bool:
        return self.url is not None or self.as_job

    @property
    def asked_format(self) -> str:
        """The format that carries what the command prints: text and json have no labels."""
        if self._asks_for_labels and self.response_format in ("text", "json"):
            return _DIARIZED
        return _VERBOSE if self.is_dialog else self.response_format

    @property
    def is_dialog(self) -> bool:
        """Whether to print a line for each turn, with the channel and the speaker."""
        separate = (self.channels or "").strip().lower() == "separate"
        return self.response_format == "text" and (separate or self._asks_for_labels)

    @property
    def has_labels(self) -> bool:
        return self._asks_for_labels or self.response_format == _DIARIZED

    @property
    def _asks_for_labels(self) -> bool:
        return self.speakers is not None or bool(self.known)

    def optional_fields(self) -> dict[str, str | list[str]]:
        """Returns the form fields that are set."""
        texts = {
            "stages": self.stages,
            "hotwords": self.hotwords,
            "refine_keywords": self.refine_keywords,
            "language": self.language,
            "replacements": self.replacements,
            "channels": self.channels,
        }
        fields: dict[str, str | list[str]] = {name: text for name, text in texts.items() if text}
        for assignment in self.subtitles:
            name, _, value = assignment.partition("=")
            fields[f"subtitle_{name.strip()}"] = value
        if self.itn:
            fields["itn"] = "true"
        if self.speakers is not None:
            fields |= _speaker_fields(self.speakers)
        if self.known:
            fields[f"{NAMES}[]"] = [speaker.name for speaker in self.known]
            fields[f"{REFERENCES}[]"] = [reference_url(speaker.pcm) for speaker in self.known]
        if self._asks_for_labels and self.response_format in ("srt", "vtt"):
            fields["subtitle_speakers"] = "true"
        if self.channels and self.response_format in ("srt", "vtt"):
            fields["subtitle_channels"] = "true"
        if self.response_format == "verbose_json":
            fields["timestamp_granularities[]"] = ["word", "segment"]
        return fields


def speech_segments(file: Path, settings: Settings) -> list[SpeechSegment]:
    """Returns the speech segments that the VAD finds in a file.

    Raises:
        AudioError: the file cannot be decoded.
        PackError: the VAD's pack cannot be loaded.
    """
    stream = load_vad(settings).engine.open()
    found: list[SpeechSegment] = []
    with AudioDecoder(file, segmentation_options(settings).limits) as decoder:
        for pcm in decoder.blocks():
            found.extend(stream.push(pcm))
    return found + stream.finish()


def transcribe_files(request: TranscribeRequest, settings: Settings) -> int:
    """Transcribes each file.

    Returns:
        The exit code: 0 if all were transcribed, 1 if a file failed or none was found, 3 if
        parts of a file have no text.

    Raises:
        ConfigurationError: the URL of the service is invalid.
        InvalidParameter: a field has an invalid value.
    """
    recordings = list(find_recordings(request.patterns))
    if not recordings:
        tell("error", f"no recordings found in {', '.join(request.patterns)}")
        return FAILED
    if request.has_labels and not request.calls_service and "speakers" not in settings.stages:
        settings = settings.model_copy(update={"stages": (*settings.stages, "speakers")})
    offer = offer_of(settings)
    parameters = _parameters(request, offer)
    with progress_bar() as progress:
        run = _Run(request, parameters, recordings, progress)
        if request.as_job:
            run.as_jobs(ServiceOptions(request.url, request.api_key))
        elif request.url:
            run.over_http(request.url)
        else:
            run.in_process(settings, offer)
    return run.exit_code


def _parameters(request: TranscribeRequest, served: Offer) -> TranscriptionParameters:
    # At a terminal, mistakes are reported rather than ignored.
    offer = replace(served, unknown_fields="refuse")
    if request.calls_service:
        # The service checks it.
        offer = replace(offer, takes_keywords=True, stages=STAGES)
    fields = {
        "model": [offer.model if request.calls_service else request.model or offer.model],
        "response_format": [request.asked_format],
    }
    for name, value in request.optional_fields().items():
        fields[name] = value if isinstance(value, list) else [value]
    if request.calls_service:
        # The service has other settings, and checks the language itself.
        fields.pop("language", None)
    return parse_parameters(fields, offer)


class _Run:
    """One run of the command over all its files."""

    def __init__(
        self,
        request: TranscribeRequest,
        parameters: TranscriptionParameters,
        recordings: list[FoundRecording],
        progress: Progress,
    ) -> None:
        self._request = request
        self._parameters = parameters
        self._files = [one.path for one in recordings]
        self._progress = progress
        suffix = f".{_OUTPUT_SUFFIX.get(request.response_format, 'txt')}"
        self._paths = output_paths(recordings, suffix)
        self._num_failed = 0
        self._num_partial = 0

    @property
    def exit_code(self) -> int:
        if self._num_failed:
            return FAILED
        return PARTIAL if self._num_partial else 0

    def in_process(self, settings: Settings, offer: Offer) -> None:
        """Transcribes with models in this process."""
        asyncio.run(self._in_process(settings, offer))

    def over_http(self, url: str) -> None:
        """Transcribes with a running service.

        Raises:
            ConfigurationError: the URL is invalid.
        """
        try:
            service = Paraserve(url, self._request.api_key or "", timeout_s=24 * 3600.0)
        except ValueError as error:
            raise ConfigurationError(f"--url {error}") from None
        request = TranscriptionRequest(
            model=self._request.model, fields=self._request.optional_fields()
        )
        with service:
            for file in self._files:
                task = self._begin(file, total_s=None)
                try:
                    with _Upload(file, partial(self._show_sent, task)) as upload:
                        answer = service.transcribe_as(upload, self._request.asked_format, request)
                except (ClientError, OSError) as error:
                    self._fail(file, _reason(error))
                else:
                    self._write_response(file, answer)
                self._finish(task, "")

    def as_jobs(self, options: ServiceOptions) -> None:
        """Transcribes as jobs of a running service, which go on if this command is ended.

        Raises:
            ConfigurationError: the URL is invalid.
        """
        with connect(options, timeout_s=_JOB_TIMEOUT_S, max_retries=_JOB_RETRIES) as service:
            made: dict[Path, tuple[Job, TaskID]] = {}
            try:
                for file in self._files:
                    task = self._begin(file, total_s=None)
                    if (job := self._create_job(service, file, task)) is not None:
                        made[file] = job, task
                for file, (job, task) in tuple(made.items()):
                    self._await_job(service, file, job, task, options)
                    del made[file]
            except KeyboardInterrupt:
                for file, (job, _) in made.items():
                    hint = _result_hint(job.id, self._request.response_format, options)
                    self._report("warning", f"{file}: the job goes on; {hint}")
                raise

    def _create_job(self, service: Paraserve, file: Path, task: TaskID) -> Job | None:
        fields = self._request.optional_fields() | {"response_format": self._request.asked_format}
        request = TranscriptionRequest(model=self._request.model, fields=fields)
        try:
            with _Upload(file, partial(self._show_sent, task)) as upload:
                job = service.jobs.create(upload, request)
        except (ClientError, OSError) as error:
            reason = problem_of(error, service.url) if isinstance(error, ClientError) else None
            self._fail(file, reason or _reason(error))
            self._finish(task, "")
            return None
        show_job(self._progress, task, job)
        return job

    def _await_job(
        self, service: Paraserve, file: Path, job: Job, task: TaskID, options: ServiceOptions
    ) -> None:
        try:
            ended = service.jobs.wait(job, progress=partial(show_job, self._progress, task))
            if ended.status != "completed":
                self._fail(file, end_text(ended))
            else:
                answer = service.jobs.result(job, self._request.asked_format)
                self._write_response(file, answer)
        except ClientError as error:
            hint = _result_hint(job.id, self._request.response_format, options)
            self._fail(file, f"{problem_of(error, service.url)}; {hint}")
        self._finish(task, "")

    def _write_response(self, file: Path, answer: Rendered) -> None:
        if answer.partial:
            self._num_partial += 1
            self._report("partial", f"{file}: parts have no text because of errors")
        for warning in answer.warnings:
            self._report("warning", f"{file}: {warning}")
        self._write(file, answer.text)

    async def _in_process(self, settings: Settings, offer: Offer) -> None:
        model = self._request.model or settings.recognizer.pack
        if is_demo_pack(model) and not all(map(_is_sample, self._files)):
            self._report("warning", demo_warning(model))
        loading = self._progress.add_task("loading models", total=None, position="")
        async with LocalTranscriber(settings) as transcriber:
            self._progress.remove_task(loading)
            self._report_hotwords(transcriber, offer)
            for file in self._files:
                try:
                    transcript = await self._transcribe(transcriber, file, settings)
                except (ParaserveError, OSError) as error:
                    self._fail(file, _reason(error))
                    continue
                if transcript.failures and not transcript.sentences:
                    self._fail(file, transcript.failures[0].error)
                    continue
                self._num_partial += transcript.partial
                for failed in transcript.failures:
                    span = f"{failed.start_ms / 1000:.1f} to {failed.end_ms / 1000:.1f} s"
                    self._report("partial", f"{file}: no text from {span}: {failed.error}")
                for notice in transcript.notices:
                    self._report("warning", f"{file}: {notice}")
                self._write(file, render_body(transcript, self._parameters))

    def _report_hotwords(self, transcriber: LocalTranscriber, offer: Offer) -> None:
        """Warns about options without effect, such as hotwords, and removes them.

        Raises:
            InvalidParameter: the model takes no hotwords.
        """
        check = transcriber.check_hotwords(self._parameters.recognition_options)
        self._parameters = report_hotwords(self._parameters, check, offer)
        for warning in self._parameters.warnings:
            self._report("warning", str(warning))

    async def _transcribe(
        self, transcriber: LocalTranscriber, file: Path, settings: Settings
    ) -> Transcript:
        with AudioDecoder(file, segmentation_options(settings).limits) as decoder:
            task = self._begin(file, decoder.info.declared_s)
        audio = np.memmap(file, dtype=np.uint8, mode="r")

        async def watched() -> AsyncGenerator[TranscriptEvent]:
            stages = self._parameters.stages
            speakers = self._parameters.speakers
            events = transcriber.transcribe(
                audio,
                stages,
                file.name,
                self._parameters.recognition_options,
                speakers=None
                if speakers is None
                else replace(speakers.options, known=self._request.known),
                separate_channels=self._parameters.separate_channels,
            )
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

    def _begin(self, file: Path, total_s: float | None) -> TaskID:
        return self._progress.add_task(file.name, total=total_s, position="")

    def _advance(self, task: TaskID, position_ms: int) -> None:
        position_s = position_ms / 1000
        self._progress.update(task, completed=position_s, position=f"{position_s:.0f} s")

    def _show_sent(self, task: TaskID, sent_bytes: int, total_bytes: int) -> None:
        if sent_bytes < total_bytes:
            position = f"sending, {sent_bytes / 1e6:.1f} of {total_bytes / 1e6:.1f} MB"
            self._progress.update(task, completed=sent_bytes, total=total_bytes, position=position)
        else:
            # The bar pulses: how long recognition takes is not known.
            self._progress.update(task, total=None, position="recognizing")

    def _finish(self, task: TaskID, position: str) -> None:
        self._progress.update(task, total=1, completed=1, position=position)

    def _fail(self, file: Path, reason: str) -> None:
        self._num_failed += 1
        self._report("failed", f"{file}: {reason}")

    def _report(self, kind: str, message: str) -> None:
        tell(kind, message, self._progress.console)

    def _write(self, file: Path, content: str) -> None:
        if self._request.is_dialog:
            content = _dialog(content)
        if self._request.output_dir is not None:
            path = self._request.output_dir / self._paths[file]
            write_whole(path, content)
            return
        if len(self._files) > 1:
            typer.echo(f"==> {file} <==")
        typer.echo(content.rstrip("\n"))


def _result_hint(job_id: str, response_format: str, options: ServiceOptions) -> str:
    chosen = "" if response_format == "text" else f" -f {response_format}"
    return f"its result: paraserve jobs result {job_id}{chosen}{options.as_arguments}"


def _speaker_fields(speakers: str) -> dict[str, str | list[str]]:
    """Returns the fields for a value of `--speakers`.

    Raises:
        InvalidParameter: it is neither a number nor a range.
    """
    if speakers == ANY_NUMBER:
        return {"speaker_labels": "true"}
    try:
        options = parse_speaker_numbers(speakers)
    except ValueError as error:
        raise InvalidParameter("--speakers", str(error)) from None
    numbers = {name: getattr(options, name) for name in SPEAKER_NUMBERS}
    return {name: str(number) for name, number in numbers.items() if number is not None}


def _dialog(body: str) -> str:
    """Returns a line for each turn: who speaks and the text.

    Args:
        body: of `diarized_json` or `verbose_json`.
    """
    turns = groupby(json.loads(body)["segments"], key=_label)
    return "".join(
        f"{label}: {join_words(str(segment['text']) for segment in turn)}\n"
        for label, turn in turns
    )


def _label(segment: Mapping[str, object]) -> str:
    channel = segment.get("channel")
    named = [f"Channel {channel + 1}"] if isinstance(channel, int) else []
    return ", ".join([*named, *([str(segment["speaker"])] if "speaker" in segment else [])])


class _Upload(io.FileIO):
    """A file that reports how much of it has been read.

    Args:
        file: to send.
        on_read: called with the bytes read so far and the size of the file.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, file: Path, on_read: Callable[[int, int], None]) -> None:
        super().__init__(file, "rb")
        self._total_bytes = file.stat().st_size
        self._on_read = on_read

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(-1 if size is None else size)
        self._on_read(self.tell(), self._total_bytes)
        return content


def _is_sample(file: Path) -> bool:
    """Whether a file is one of the demo models' recordings."""
    return "serve_app/packs/builtin/samples" in Path(os.path.abspath(file)).as_posix()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{_UNREADABLE}: {error.strerror or error}"
    return str(error)
