from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.batch.arrow_tables import AudioEnd, RecognizedRecording
from serve_app.batch.outputs import OutputStore
from serve_app.batch.punctuate_stage import (
    FinishTask,
    TimedPunctuator,
    TranscriptWriter,
    punctuate_in_parts,
)
from serve_app.batch.records import BatchItem, PackIdentity
from serve_app.core.records import PackRole, RequestContext, Stage, Token, Utterance
from serve_app.scheduling.batch_budget import BatchLimits
from serve_app.transcript.itn import TextRules
from serve_app.transcript.punctuation import PunctuationState
from serve_app.transcript.sentences import PunctuationResult, PunctuationTask, punctuate_tasks


class EveryFifth:
    """Puts a full stop after each word that ends in 5, a comma after those in 3."""

    max_in_flight = 1
    is_reentrant = False

    def label(self, batch: Sequence[Sequence[str]]) -> list[list[str]]:
        marks = {"5": "。", "3": "，"}
        return [[marks.get(word[-1], "") for word in words] for words in batch]


def task(num_words: int, *, final: bool) -> PunctuationTask:
    words = tuple(str(i) for i in range(num_words))
    return PunctuationTask(RequestContext("1"), PunctuationState(), words, final)


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


def heard(error: str | None = None, said: str = "好的吗") -> RecognizedRecording:
    tokens = tuple(Token(text, i * 100, i * 100 + 90, 0.9) for i, text in enumerate(said))
    utterance = Utterance(0, 0, 1000, "done", tokens, error)
    return RecognizedRecording(4, (utterance,), 0.25, AudioEnd(1, 2000, 0.5, 100.0))


@pytest.mark.parametrize("stages", [{"asr", "punctuation"}, {"asr"}])
async def test_transcript_is_written_with_its_times(tmp_path: Path, stages: set[str]) -> None:
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


def written(store: OutputStore, name: str) -> str:
    (path,) = (path for path in store.files.list_files("transcripts") if path.endswith(f"/{name}"))
    return (store.files.read(path) or b"").decode()


@pytest.mark.parametrize(("itn", "text"), [(False, "一百二十块"), (True, "120块")])
async def test_numbers_are_in_digits_if_asked_for_and_times_those_of_the_words(
    tmp_path: Path, itn: bool, text: str
) -> None:
    store = OutputStore(str(tmp_path), ("srt",))
    writer = TranscriptWriter(None, None, {}, store, rules=TextRules(itn=itn))
    stages: frozenset[Stage] = frozenset({"asr"})
    task = FinishTask(BatchItem("a", "/a.wav"), "f" * 32, stages, heard(said="一百二十块"))
    await writer.finish(task)
    document = json.loads(written(store, "a.json"))
    assert document["text"] == text
    words = document["words"]
    assert (words[0]["start"], words[-1]["end"]) == (0.0, 0.49)
    assert text in written(store, "a.srt")


async def test_document_names_the_models_that_ran_the_drafter_included(tmp_path: Path) -> None:
    models: dict[PackRole, PackIdentity] = {
        "vad": PackIdentity("fsmn-vad", "a"),
        "asr": PackIdentity("paraformer-demo", "b"),
        "draft": PackIdentity("whisper-base", "c"),
    }
    store = OutputStore(str(tmp_path))
    writer = TranscriptWriter(None, None, models, store)
    stages: frozenset[Stage] = frozenset({"asr"})
    await writer.finish(FinishTask(BatchItem("a", "/a.wav"), "f" * 32, stages, heard()))
    document = json.loads(written(store, "a.json"))
    assert sorted(document["models"]) == ["asr", "draft"]
    assert document["stages"] == ["asr"]
