"""The pipeline in one process, without Ray or HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from types import TracebackType

from serve_app.core.records import (
    AS_DEPLOYED,
    NO_OPTIONS,
    Chunk,
    FileBytes,
    HotwordCheck,
    RecognitionOptions,
    RecordingEnd,
    RequestContext,
    SpeechDetection,
    Stage,
    Utterance,
    UtteranceSummary,
)
from serve_app.core.speakers import SpeakerOptions
from serve_app.inference.batched import recognizer_limits
from serve_app.inference.loading import (
    load_punctuator,
    load_speaker_embedder,
    load_vad,
    segmentation_options,
)
from serve_app.inference.recognizer_models import RecognizerModels
from serve_app.inference.voices import LocalVoices
from serve_app.scheduling.fair_executor import FairExecutor
from serve_app.settings import Settings
from serve_app.speakers.transcripts import RecordingVoices
from serve_app.transcript.assembly import assemble
from serve_app.transcript.fanout import fan_out
from serve_app.transcript.segmentation import Segmentation
from serve_app.transcript.sentences import PunctuationResult, PunctuationTask, punctuate_tasks
from serve_app.transcript.transcript import TranscriptEvent

_LOGGER = logging.getLogger(__name__)


class LocalTranscriber:
    """All stages of the settings in this process; use with `async with`.

    Raises:
        PackError: a model pack cannot be used.
        DeviceUnavailable: a device is not on this machine.
    """

    def __init__(self, settings: Settings) -> None:
        stages = settings.stages
        self._settings = settings
        self._options = segmentation_options(settings)
        self._vad = load_vad(settings).engine if "vad" in stages else None
        # There is one request at a time: no other would wait behind a long batch.
        limits = replace(recognizer_limits(settings), max_s=None)
        models = RecognizerModels(settings, limits, _LOGGER)
        self._recognizer = models.cache
        self._hotword_validator = models.hotword_validator
        self._punctuator = load_punctuator(settings).engine if "punctuation" in stages else None
        self._voices: LocalVoices | None = None
        if "speakers" in stages:
            self._voices = LocalVoices(load_speaker_embedder(settings).engine)
        self._decoding: FairExecutor[list[Chunk] | None] = FairExecutor("segmenter")
        self._punctuating = ThreadPoolExecutor(1, thread_name_prefix="punctuator")

    async def __aenter__(self) -> LocalTranscriber:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._recognizer.close()
        await self._decoding.close()
        self._punctuating.shutdown(wait=True)
        if self._voices is not None:
            self._voices.close()

    def check_hotwords(self, recognition_options: RecognitionOptions) -> HotwordCheck:
        """Returns which hotwords the requested model can use."""
        return self._hotword_validator.validate(recognition_options)

    async def transcribe(
        self,
        audio: FileBytes,
        stages: frozenset[Stage],
        request_id: str = "local",
        recognition_options: RecognitionOptions = NO_OPTIONS,
        detection: SpeechDetection = AS_DEPLOYED,
        speakers: SpeakerOptions | None = None,
        *,
        separate_channels: bool = False,
    ) -> AsyncGenerator[TranscriptEvent]:
        """Yields the parts of the transcript in order of time, then a `RecordingEnd`.

        Args:
            audio: the file, shape [bytes].
            stages: the loaded stages to run.
            request_id: identifies the recording in logs.
            recognition_options: for the recognizer.
            detection: for the VAD.
            speakers: find who speaks; needs the stage `speakers`. None for no labels.
            separate_channels: recognize each channel for itself, instead of their mix.

        Raises:
            AudioError: the file is not usable audio.
            ModelNotFound: `recognition_options` name a model that is not served.
        """
        context = RequestContext(request_id)
        vad = self._vad if "vad" in stages else None
        segmentation = Segmentation(
            audio,
            vad,
            self._options,
            recognition_options,
            detection,
            separate_channels=separate_channels,
        )
        spans: list[UtteranceSummary] = []
        voices = RecordingVoices()
        embedder = self._voices if speakers is not None else None

        async def utterances() -> AsyncGenerator[Utterance]:
            groups = segmentation.groups_on(self._decoding, context)
            max_in_flight = self._settings.segmenter.max_in_flight
            embed = None if embedder is None else embedder.embed
            async with aclosing(
                fan_out(groups, self._recognizer.transcribe, max_in_flight, embed)
            ) as recognized:
                async for utterance in recognized:
                    voices.add(utterance)
                    spans.append(utterance.summary)
                    yield utterance

        is_punctuated = self._punctuator is not None and "punctuation" in stages
        events = assemble(
            context,
            utterances(),
            self._punctuate if is_punctuated else None,
            self._settings.punctuator.sentence_break_s,
            lambda: segmentation.end(spans),
        )
        async with aclosing(events):
            async for event in events:
                if isinstance(event, RecordingEnd) and embedder is not None and speakers:
                    event = replace(event, diarization=await embedder.diarize(voices, speakers))
                yield event

    async def _punctuate(self, task: PunctuationTask) -> PunctuationResult:
        assert self._punctuator is not None  # noqa: S101 - transcribe() has checked
        loop = asyncio.get_running_loop()
        results = await loop.run_in_executor(
            self._punctuating, punctuate_tasks, self._punctuator, [task]
        )
        return results[0]
