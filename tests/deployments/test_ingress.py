"""The ingress's calls to the other deployments, with scripted handles and without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError

from serve_app.api.service import TranscriptionJob
from serve_app.core.errors import (
    CorruptAudio,
    ModelUnavailable,
    NotReady,
    ParaserveError,
    RecognitionFailed,
)
from serve_app.core.records import (
    HotwordCheck,
    RecognitionOptions,
    RecordingEnd,
    RequestContext,
    SegmentationJob,
    SpeechDetection,
    Stage,
    StageReadiness,
    Token,
    Utterance,
)
from serve_app.deployments import ingress as module
from serve_app.deployments import retries
from serve_app.deployments.ingress import HandleTranscriptionService, IngressReplica
from serve_app.deployments.metrics import take_retries
from serve_app.scheduling.backoff import Backoff
from serve_app.settings import Settings
from serve_app.transcript.punctuation import PunctuationState
from serve_app.transcript.sentences import PunctuationResult
from serve_app.transcript.transcript import FailedRange, Sentence, TranscriptEvent
from tests.deployments.conftest import Recorded
from tests.fakes.handles import FakeHandle, Script, task_error

CONTEXT = RequestContext("request")
AUDIO = np.zeros(4, np.uint8)
WORDS = Utterance(0, 0, 1000, "done", (Token("一", 0, 500, 0.9), Token("句", 500, 1000, 0.9)))
FAILED = Utterance(1, 1000, 2000, "failed", error="poison: it kills")
END = RecordingEnd(3000)
MARKS = PunctuationResult((("一", ""), ("句", "。")), PunctuationState())
DIED = ActorDiedError()
TIMEOUT_S = 20.0
UNAVAILABLE = DeploymentUnavailableError(DeploymentID("Segmenter"))
READY: Mapping[Stage, StageReadiness] = {
    stage: StageReadiness(stage, "cpu", "pack", "abc") for stage in ("vad", "asr", "punctuation")
}
ALL_STAGES: frozenset[Stage] = frozenset(READY)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch, recorded: Recorded) -> None:
    monkeypatch.setattr(retries, "_BACKOFF", Backoff(0.0001, 0.0001))


class Service:
    """The service under test and its three handles."""

    def __init__(
        self,
        streams: Script = (),
        *,
        segmenter: Script = (),
        recognizer_script: Script = (),
        punctuator: Script | None = (),
        **settings: Any,
    ) -> None:
        self.segmenter = FakeHandle(segmenter, streams)
        self.recognizer = FakeHandle(recognizer_script)
        self.punctuator = None if punctuator is None else FakeHandle(punctuator)
        self.tested = HandleTranscriptionService(
            Settings.model_validate({"max_attempts": 2, **settings}),
            self.segmenter.handle,
            self.recognizer.handle,
            None if self.punctuator is None else self.punctuator.handle,
        )

    async def events(self, stages: frozenset[Stage] = ALL_STAGES) -> list[TranscriptEvent]:
        job = TranscriptionJob(CONTEXT, AUDIO, stages)
        return [event async for event in self.tested.transcribe(job)]


def texts(events: list[TranscriptEvent]) -> list[str]:
    return [event.text for event in events if isinstance(event, Sentence)]


async def test_sentences_come_with_their_marks_and_then_the_end() -> None:
    service = Service([[None, WORDS, END]], punctuator=[MARKS])
    *sentences, end = await service.events()
    assert texts(sentences) == ["一句。"]
    assert isinstance(end, RecordingEnd)
    assert end.duration_ms == 3000
    assert service.segmenter.num_cancelled == 1


async def test_failed_utterance_becomes_a_failed_range() -> None:
    service = Service([[FAILED, END]])
    failed, _ = await service.events()
    assert failed == FailedRange(1000, 2000, "poison: it kills")


async def test_punctuator_is_not_called_for_a_request_without_its_stage() -> None:
    service = Service([[WORDS, END]])
    assert texts(await service.events(frozenset({"vad", "asr"}))) == ["一句"]
    assert service.punctuator is not None
    assert service.punctuator.asked == []


async def test_service_without_a_punctuator_returns_words_without_marks() -> None:
    service = Service([[WORDS, END]], punctuator=None)
    assert texts(await service.events()) == ["一句"]


@pytest.mark.parametrize("use_vad", [True, False])
async def test_segmenter_gets_the_options_of_the_request(use_vad: bool) -> None:
    service = Service([[END]])
    options, detection = RecognitionOptions(model="other"), SpeechDetection(silence_duration_ms=300)
    stages: frozenset[Stage] = frozenset({"vad", "asr"} if use_vad else {"asr"})
    job = TranscriptionJob(CONTEXT, AUDIO, stages, options, detection)
    async for _ in service.tested.transcribe(job):
        pass
    (asked,) = service.segmenter.asked
    assert isinstance(asked, SegmentationJob)
    assert asked.audio is AUDIO
    assert (asked.use_vad, asked.recognition_options, asked.speech_detection) == (
        use_vad,
        options,
        detection,
    )


async def test_end_counts_the_retries_of_all_stages() -> None:
    service = Service([[DIED], [WORDS, END]], punctuator=[DIED, MARKS])
    *_, end = await service.events()
    assert isinstance(end, RecordingEnd)
    assert end.cost.num_retries == 2


async def test_retries_of_a_failed_request_do_not_remain() -> None:
    service = Service([[DIED], [DIED]])
    with pytest.raises(RecognitionFailed):
        await service.events()
    assert take_retries(CONTEXT) == 0


async def test_error_of_the_segmenter_is_raised_without_ray_wrapper() -> None:
    service = Service([[task_error(CorruptAudio("its header cannot be read"))]])
    with pytest.raises(CorruptAudio) as caught:
        await service.events()
    assert not isinstance(caught.value, RayTaskError)


async def test_unexpected_error_of_the_segmenter_keeps_its_remote_traceback() -> None:
    service = Service([[task_error(ZeroDivisionError("bug"))]])
    with pytest.raises(RayTaskError) as caught:
        await service.events()
    assert not isinstance(caught.value, ParaserveError)


@pytest.mark.parametrize(
    "script",
    [{"streams": [[UNAVAILABLE], [UNAVAILABLE]]}, {"punctuator": [UNAVAILABLE, UNAVAILABLE]}],
)
async def test_deployment_that_failed_to_start_is_not_ready(script: dict[str, Any]) -> None:
    service = Service(**{"streams": [[WORDS, END]], **script})
    with pytest.raises(NotReady):
        await service.events()


async def test_caller_who_leaves_cancels_the_segmenters_call() -> None:
    service = Service([[WORDS, END]], punctuator=None)
    events = service.tested.transcribe(TranscriptionJob(CONTEXT, AUDIO, ALL_STAGES))
    async with aclosing(events):
        await anext(events)
        assert service.segmenter.num_cancelled == 0
    async with asyncio.timeout(TIMEOUT_S):
        while not service.segmenter.num_cancelled:  # noqa: ASYNC110, no event to wait for
            await asyncio.sleep(0)


async def test_hotwords_are_checked_by_a_recognizer_that_answers() -> None:
    check = HotwordCheck(unwritable=("X",))
    service = Service(recognizer_script=[DIED, check])
    options = RecognitionOptions(model="other")
    assert await service.tested.check_hotwords(options, CONTEXT) == check
    assert service.recognizer.asked == [options, options]


async def test_error_of_the_hotword_check_is_raised_without_ray_wrapper() -> None:
    service = Service(recognizer_script=[task_error(ModelUnavailable("other", "no space"))])
    with pytest.raises(ModelUnavailable) as caught:
        await service.tested.check_hotwords(RecognitionOptions(), CONTEXT)
    assert not isinstance(caught.value, RayTaskError)


def ready_service(asr: Script = (READY["asr"],) * 2, **settings: Any) -> Service:
    return Service(
        segmenter=[READY["vad"]] * 2,
        recognizer_script=asr,
        punctuator=[READY["punctuation"]] * 2,
        **settings,
    )


async def test_readiness_names_every_stage_in_order() -> None:
    assert await ready_service().tested.readiness() == list(READY.values())


async def test_readiness_leaves_out_stages_without_a_model() -> None:
    service = Service(segmenter=[None], recognizer_script=[READY["asr"]], punctuator=None)
    assert await service.tested.readiness() == [READY["asr"]]


@pytest.mark.parametrize(
    "error", [TimeoutError(), DIED, UNAVAILABLE], ids=lambda e: type(e).__name__
)
async def test_stage_whose_readiness_fails_is_not_ready(error: Exception) -> None:
    service = Service(segmenter=[READY["vad"]], recognizer_script=[error], punctuator=None)
    with pytest.raises(NotReady, match="asr"):
        await service.tested.readiness()


async def test_stage_that_does_not_answer_in_time_is_not_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_READINESS_TIMEOUT_S", 0.01)
    service = Service(recognizer_script=[READY["asr"]], punctuator=None)

    async def never(argument: object = None) -> object:
        return await asyncio.Event().wait()

    monkeypatch.setattr(service.segmenter, "_call", never)
    with pytest.raises(NotReady, match="vad"):
        await service.tested.readiness()


async def test_stage_of_fixed_size_is_called_for_every_probe() -> None:
    service = ready_service()
    await service.tested.readiness()
    await service.tested.readiness()
    assert len(service.recognizer.asked) == 2


async def test_probes_do_not_wake_a_stage_that_may_scale_to_zero() -> None:
    scaling = {"min_replicas": 0, "max_replicas": 2}
    service = ready_service(recognizer={"deployment": {"autoscaling": scaling}})
    first = await service.tested.readiness()
    assert await service.tested.readiness() == first
    assert len(service.recognizer.asked) == 1
    assert len(service.segmenter.asked) == 2


async def test_failed_probe_of_a_stage_that_may_scale_to_zero_is_repeated() -> None:
    scaling = {"min_replicas": 0, "max_replicas": 2}
    service = ready_service(
        [DIED, READY["asr"]], recognizer={"deployment": {"autoscaling": scaling}}
    )
    with pytest.raises(NotReady):
        await service.tested.readiness()
    assert await service.tested.readiness() == list(READY.values())


def test_replica_serves_the_routes_of_the_api() -> None:
    handles = [FakeHandle([]).handle for _ in range(3)]
    settings = Settings.model_validate({"auth": {"mode": "off"}})
    app = IngressReplica(settings, *handles).__serve_build_asgi_app__()
    assert "/v1/audio/transcriptions" in {getattr(route, "path", "") for route in app.routes}
