"""Whisper base itself on two real recordings; one draft takes seconds of a core."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from serve_app.core.errors import ConfigurationError, PackCorrupt
from serve_app.core.records import (
    NO_OPTIONS,
    SAMPLES_PER_MS,
    ChunkFailure,
    Recognition,
    RecognitionOptions,
)
from serve_app.engines.hybrid import HybridOptions, HybridRecognizer, reason_to_refine
from serve_app.engines.paraformer.cpu import ParaformerEngine
from serve_app.engines.whisper.engine import Draft, WhisperCppEngine, WhisperOptions, quality_of
from serve_app.engines.whisper.text import WhisperToken
from serve_app.packs import PackContents, PackStore, resolve
from serve_app.packs.pack import open_pack
from serve_app.transcript.cer import character_error_rate
from tests.fakes.ggml_file import WhisperShape, write_ggml
from tests.fakes.recorded_drafts import ASR_EXAMPLE_TEXT, RecordedDrafts, chunks_of
from tests.fakes.sentence_edges import sound_edges

# Thirteen drafts, the first time: 45 s of a core that may be shared.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

CHOSEN_KEYWORD = "高手"
LOADS_AND_ENDS = """
import sys
from pathlib import Path
from serve_app.engines.whisper.engine import WhisperCppEngine
from serve_app.packs.pack import open_pack
WhisperCppEngine(open_pack(Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def engine(whisper_pack: PackContents) -> WhisperCppEngine:
    return WhisperCppEngine(whisper_pack)


@pytest.fixture(scope="module")
def recorded(engine: WhisperCppEngine, asr_example: Path, vad_example: Path) -> RecordedDrafts:
    chunks = chunks_of(asr_example, vad_example)
    return RecordedDrafts(chunks, engine.draft(chunks))


def words(draft: Draft | ChunkFailure | Recognition) -> str:
    assert not isinstance(draft, ChunkFailure)
    recognition = draft.recognition if isinstance(draft, Draft) else draft
    return "".join(token.text for token in recognition.tokens)


def test_draft_of_a_real_recording_has_a_low_error_rate(recorded: RecordedDrafts) -> None:
    drafted = words(recorded.drafts[0])
    rate = character_error_rate(ASR_EXAMPLE_TEXT, drafted)
    print(f"draft of asr_example.wav: {drafted}; CER {rate:.1%}")
    assert rate <= 0.1


def test_every_chunk_has_simplified_words_in_order_inside_of_it(recorded: RecordedDrafts) -> None:
    for pcm, draft in zip(recorded.chunks, recorded.drafts, strict=True):
        assert isinstance(draft, Draft)
        tokens = draft.recognition.tokens
        assert tokens
        assert tokens[-1].end_ms <= len(pcm) // SAMPLES_PER_MS
        assert all(before.end_ms <= after.start_ms for before, after in pairwise(tokens))
        assert all(0 < token.confidence <= 1 for token in tokens)
        assert not set(words(draft)) & set("這個說們為會來對時關於動過學")


def test_times_follow_the_voice(recorded: RecordedDrafts) -> None:
    """Speech begins 0.5 s into this recording and ends 0.6 s before its end.

    Between these and the ends of the recording are a click each.
    """
    draft = recorded.drafts[0]
    assert isinstance(draft, Draft)
    tokens = draft.recognition.tokens
    start_ms, end_ms = sound_edges(recorded.chunks[0][400 * SAMPLES_PER_MS : -300 * SAMPLES_PER_MS])
    assert tokens[0].start_ms == pytest.approx(400 + start_ms, abs=50)
    assert tokens[-1].end_ms == pytest.approx(400 + end_ms, abs=50)


def test_draft_does_not_depend_on_what_was_drafted_before(
    engine: WhisperCppEngine, recorded: RecordedDrafts
) -> None:
    assert engine.draft(recorded.chunks[:1]) == list(recorded.drafts[:1])


def test_share_that_thresholds_refine(recorded: RecordedDrafts) -> None:
    seconds = [len(pcm) / 16_000 for pcm in recorded.chunks]
    shares = []
    for options in (
        HybridOptions(min_mean_log_probability=-0.5),
        HybridOptions(),
        HybridOptions(min_mean_log_probability=-0.3),
        HybridOptions(min_mean_log_probability=-0.2),
        HybridOptions(min_word_confidence=0.3),
    ):
        refined_s = sum(
            second
            for second, draft in zip(seconds, recorded.drafts, strict=True)
            if reason_to_refine(draft, NO_OPTIONS, options)
        )
        shares.append(refined_s / sum(seconds))
        limits = (options.min_mean_log_probability, options.min_word_confidence)
        print(f"mean log-probability {limits[0]}, word {limits[1]}: {shares[-1]:.0%} refined")
    assert shares[:4] == sorted(shares[:4])
    assert 0 < shares[1] < 0.2


def test_refining_a_chosen_segment_replaces_just_it(
    recorded: RecordedDrafts, pack_store: PackStore
) -> None:
    refiner = ParaformerEngine(resolve("paraformer-demo", pack_store))
    recognizer = HybridRecognizer(
        recorded,
        refiner,
        ("whisper-base", "paraformer-demo"),
        HybridOptions(min_mean_log_probability=-100.0),
    )
    drafts = recognizer.transcribe(recorded.chunks)
    recognition_options = [RecognitionOptions(keywords=(CHOSEN_KEYWORD,))] * len(recorded.chunks)
    refined = recognizer.transcribe(recorded.chunks, recognition_options)
    chosen = [index for index, draft in enumerate(drafts) if CHOSEN_KEYWORD in words(draft)]
    assert len(chosen) == 1
    for index, (before, after) in enumerate(zip(drafts, refined, strict=True)):
        assert isinstance(after, Recognition)
        if index not in chosen:
            assert repr(after) == repr(before)
            assert after.model == "whisper-base"
            continue
        (alone,) = refiner.transcribe([recorded.chunks[index]])
        assert isinstance(alone, Recognition)
        assert after.tokens == alone.tokens
        assert after.model == "paraformer-demo"


@pytest.mark.parametrize("pcm", [np.zeros(16_000, np.int16), np.ones(200, np.int16)])
def test_silence_and_very_short_audio_have_no_words(
    engine: WhisperCppEngine, pcm: np.ndarray
) -> None:
    (draft,) = engine.draft([pcm])
    assert isinstance(draft, Draft)
    assert draft.quality is None
    assert words(draft) == ""


def test_chunk_costs_whole_windows(engine: WhisperCppEngine) -> None:
    assert [engine.cost(seconds * 16_000) for seconds in (1, 30, 31)] == [500, 500, 1000]


def test_text_that_repeats_itself_compresses_well() -> None:
    said = [WhisperToken("你们可以".encode(), 0.9, -0.1, 0.0)]
    assert quality_of(said).compression_ratio < 1.5
    assert quality_of(said * 40).compression_ratio > 2.4


def test_unknown_language_is_a_configuration_error(whisper_pack: PackContents) -> None:
    with pytest.raises(ConfigurationError, match="klingon"):
        WhisperCppEngine(whisper_pack, WhisperOptions(language="klingon"))


def test_each_item_of_a_batch_is_decoded_in_its_own_language(
    engine: WhisperCppEngine, recorded: RecordedDrafts
) -> None:
    chunk = recorded.chunks[0]
    recognition_options = [
        RecognitionOptions(language="en"),
        NO_OPTIONS,
        RecognitionOptions(language="tlh"),
    ]
    english, chinese, klingon = engine.draft([chunk] * 3, recognition_options)
    assert chinese == recorded.drafts[0]
    print(f"asr_example.wav taken for English: {words(english)}")
    letters = [letter for letter in words(english) if letter.isalpha()]
    assert sum(letter.isascii() for letter in letters) > len(letters) / 2
    assert isinstance(klingon, ChunkFailure)
    assert klingon.code == "unsupported_language"


def test_language_is_detected_and_reported(
    whisper_pack: PackContents, recorded: RecordedDrafts
) -> None:
    """After another one was named: what whisper.cpp last knew is not what it says now."""
    guessing = WhisperCppEngine(whisper_pack, WhisperOptions(language="auto"))
    named, guessed = guessing.draft(
        [recorded.chunks[0]] * 2, [RecognitionOptions(language="ja"), NO_OPTIONS]
    )
    assert isinstance(named, Draft)
    assert named.recognition.language == "ja"
    assert guessed == recorded.drafts[0]
    assert isinstance(guessed, Draft)
    assert guessed.recognition.language == "zh"


def test_language_that_the_model_lacks_is_refused_at_load(
    whisper_pack: PackContents,
) -> None:
    # Cantonese came with large-v3.
    with pytest.raises(ConfigurationError, match="yue"):
        WhisperCppEngine(whisper_pack, WhisperOptions(languages=("zh", "yue")))


def test_pack_of_another_class_is_refused(vad_pack: PackContents) -> None:
    with pytest.raises(PackCorrupt, match="no Whisper model"):
        WhisperCppEngine(vad_pack)


def test_file_without_all_tensors_is_refused(tmp_path: Path) -> None:
    shape = WhisperShape(51_865, 1500, 64, 1, 4, 448, 64, 1, 4)
    tensors = {"encoder.conv1.bias": np.zeros(64, np.float16)}
    write_ggml(tmp_path / "ggml-tiny.bin", shape, [b"a"], tensors)
    with pytest.raises(PackCorrupt, match="cannot load"):
        WhisperCppEngine(open_pack(tmp_path))


def test_process_exits_normally_after_using_the_engine(whisper_pack: PackContents) -> None:
    command = [sys.executable, "-c", LOADS_AND_ENDS, str(whisper_pack.directory)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "whisper" not in ended.stderr
