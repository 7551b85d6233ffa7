"""Finished recordings for the tests of what is written of them."""

from __future__ import annotations

from serve_app.batch.records import BatchItem, Failure, FinishedRecording, PackIdentity, StageTimes
from serve_app.core.records import PackRole, Token, UtteranceSummary
from serve_app.transcript.transcript import FailedRange, MarkedToken, Sentence, Transcript

MODELS: dict[PackRole, PackIdentity] = {
    "vad": PackIdentity("fsmn-vad", "aa"),
    "asr": PackIdentity("paraformer-demo", "bb"),
}


def transcript(text: str = "你好世界", failed: bool = False) -> Transcript:
    tokens = tuple(
        MarkedToken(Token(character, 200 * at, 200 * at + 180, 0.9), "")
        for at, character in enumerate(text)
    )
    failures = (FailedRange(5000, 6000, "internal_error"),) if failed else ()
    sentences = (Sentence(tokens),) if tokens else ()
    return Transcript(8000, sentences, failures, (UtteranceSummary(0, 4000, "done"),))


def recording(
    recording_id: str = "a/1.wav",
    text: str = "你好世界",
    fingerprint: str = "f1",
    reference: str | None = None,
    uri: str = "s3://key:secret@bucket/a/1.wav?X-Signature=hidden",
    failed: bool = False,
) -> FinishedRecording:
    return FinishedRecording(
        BatchItem(recording_id, uri, reference=reference, metadata={"speaker": "甲", "n": [1, 2]}),
        fingerprint,
        transcript(text, failed),
        StageTimes(0.5, 1.5, 0.25, 4.0),
        MODELS,
        8.0,
    )


def failure(recording_id: str = "bad.wav", kind: str = "corrupt_audio", **others: str) -> Failure:
    return Failure(
        recording_id,
        others.get("uri", "https://me:pw@host/bad.wav?token=hidden"),
        kind,
        others.get("reason", "the audio is damaged"),
        True,
        1,
        others.get("fingerprint", "f1"),
    )
