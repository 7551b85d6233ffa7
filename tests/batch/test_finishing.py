from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.batch.assembling import HeardRecording
from serve_app.batch.finishing import (
    FinishTask,
    TimedPunctuator,
    TranscriptWriter,
    punctuate_in_parts,
)
from serve_app.batch.outputs import OutputStore
from serve_app.batch.records import BatchItem
from serve_app.batch.tables import AudioEnd
from serve_app.core.chunks import Token, Utterance
from serve_app.core.joining import PunctuationResult, PunctuationTask, punctuate_tasks
from serve_app.core.origin import Origin
from serve_app.core.pacing import BatchLimits
from serve_app.core.punctuation import PunctuationState


class EveryFifth:
    """Puts a full stop after each word that ends in 5, a comma after those in 3."""

    max_in_flight = 1

    def label(self, batch: Sequence[Sequence[str]]) -> list[list[str]]:
        marks = {"5": "。", "3": "，"}
        return [[marks.get(word[-1], "") for word in words] for words in batch]


def task(num_words: int, *, final: bool) -> PunctuationTask:
    words = tuple(str(i) for i in range(num_words))
    return PunctuationTask(Origin("1"), PunctuationState(), words, final)


@given(num_words=st.integers(0, 1700), final=st.booleans())
async def test_text_punctuated_in_parts_is_that_of_the_whole(num_words: int, final: bool) -> None:
    async def punctuate(part: PunctuationTask) -> tuple[PunctuationResult, float]:
        return punctuate_tasks(EveryFifth(), [part])[0], 0.5

    whole = task(num_words, final=final)
    result, spent_s = await punctuate_in_parts(punctuate, whole)
    assert result == punctuate_tasks(EveryFifth(), [whole])[0]
    assert spent_s == 0.5 * max(1, -(-num_words // 400))


async def test_compute_of_a_batch_is_shared_out_by_words() -> None:
    punctuator = TimedPunctuator(EveryFifth(), BatchLimits(2000))
    result, took_s = await punctuator.punctuate_timed(task(100, final=True))
    await punctuator.close()
    assert len(result.pairs) == 100
    assert took_s > 0


def heard(error: str | None = None) -> HeardRecording:
    tokens = tuple(Token(text, i * 100, i * 100 + 90, 0.9) for i, text in enumerate("好的吗"))
    utterance = Utterance(0, 0, 1000, "done", tokens, error)
    return HeardRecording(4, (utterance,), 0.25, AudioEnd(1, 2000, 0.5, 100.0))


@pytest.mark.parametrize("stages", [{"asr", "punctuation"}, {"asr"}])
async def test_transcript_is_written_with_what_it_took(tmp_path: Path, stages: set[str]) -> None:
    async def punctuate(part: PunctuationTask) -> tuple[PunctuationResult, float]:
        return punctuate_tasks(EveryFifth(), [part])[0], 0.125

    store = OutputStore(str(tmp_path))
    writer = TranscriptWriter(punctuate, None, {}, store)
    item = BatchItem("a", "/a.wav")
    names = frozenset(name for name in ("asr", "punctuation") if name in stages)
    finished = await writer.finish(FinishTask(item, "f" * 32, names, heard()))
    assert (finished.number, finished.audio_s) == (4, 2.0)
    summary = store.summaries()["a"]
    assert summary.fingerprint == "f" * 32
    assert summary.times.segment_s == 0.5
    assert summary.times.punctuate_s == (0.125 if "punctuation" in stages else 0.0)
