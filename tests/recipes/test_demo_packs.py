"""The recipe of the demo packs: its text, its voice and its features."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from recipes.demo_packs.examples import make_example
from recipes.demo_packs.features import (
    WIDTH,
    log_mel,
    read_cmvn,
    row_centers_s,
    stack_frames,
    write_cmvn,
)
from recipes.demo_packs.numerals import spell_integer
from recipes.demo_packs.sentences import (
    all_characters,
    draw_sentence,
    draw_training_sentence,
    held_out_sentences,
    is_held_out,
    strip_marks,
)
from recipes.demo_packs.synthesizer import (
    SAMPLE_RATE_HZ,
    VOICES,
    Speech,
    Synthesizer,
    SynthesizerMissing,
    Voice,
    shared_synthesizer,
)
from recipes.demo_packs.vocabulary import punctuation_tokens, speech_tokens, token_ids

BUILTIN = Path(__file__).resolve().parents[2] / "serve_app" / "packs" / "builtin"


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    try:
        return shared_synthesizer()
    except SynthesizerMissing as missing:
        pytest.skip(f"NOT TESTED: espeak-ng is not installed ({missing})")


def test_sentences_are_the_same_for_a_seed() -> None:
    first, second = random.Random(3), random.Random(3)
    assert [draw_sentence(first) for _ in range(50)] == [draw_sentence(second) for _ in range(50)]


def test_thousands_of_sentences_differ() -> None:
    rng = random.Random(4)
    assert len({draw_sentence(rng) for _ in range(4_000)}) > 3_000


def test_training_sentences_are_never_held_out() -> None:
    rng = random.Random(5)
    trained = {draw_training_sentence(rng) for _ in range(3_000)}
    held_out = set(itertools.islice(held_out_sentences(5), 300))
    assert len(held_out) == 300
    assert not trained & held_out
    assert all(is_held_out(sentence) for sentence in held_out)


def test_punctuation_does_not_decide_the_split() -> None:
    for sentence in itertools.islice(held_out_sentences(6), 20):
        assert is_held_out(strip_marks(sentence))


def test_vocabulary_covers_every_sentence() -> None:
    rng = random.Random(7)
    known = set(all_characters())
    for _ in range(2_000):
        assert set(strip_marks(draw_sentence(rng))) <= known


def test_token_lists_have_the_entries_that_funasr_expects() -> None:
    for tokens in (speech_tokens(), punctuation_tokens()):
        assert tokens[:3] == ["<blank>", "<s>", "</s>"]
        assert "<unk>" in tokens
        assert len(set(tokens)) == len(tokens)
    assert set(speech_tokens()) <= set(punctuation_tokens())


@pytest.mark.parametrize(
    ("value", "spelt"),
    [
        (0, "零"),
        (10, "十"),
        (23, "二十三"),
        (110, "一百一十"),
        (205, "二百零五"),
        (1_010, "一千零一十"),
        (20_000, "二万"),
        (10_012, "一万零一十二"),
    ],
)
def test_integers_are_spelt_as_they_are_read(value: int, spelt: str) -> None:
    assert spell_integer(value) == spelt


def test_every_character_has_its_own_span(synthesizer: Synthesizer) -> None:
    sentence = "苹果、香蕉和牛奶，一共是三十二元，请问怎么支付？"
    speech = synthesizer.speak(sentence, Voice("m3"))
    starts_s, ends_s = speech.spans.T
    assert speech.characters == strip_marks(sentence)
    assert len(speech.spans) == len(speech.characters)
    assert np.all(starts_s[1:] >= ends_s[:-1] - 1e-9)
    assert np.all(ends_s - starts_s > 0.05)
    assert ends_s[-1] <= len(speech.samples) / SAMPLE_RATE_HZ + 0.05


def test_speech_lies_inside_the_spans(synthesizer: Synthesizer) -> None:
    speech = synthesizer.speak("第一个是系统测试，第二个是用户体验。", Voice("f2"))
    spoken = np.zeros(len(speech.samples), bool)
    for start_s, end_s in speech.spans:
        spoken[int(start_s * SAMPLE_RATE_HZ) : int(end_s * SAMPLE_RATE_HZ)] = True
    energy = np.square(speech.samples)
    assert not spoken.all()
    assert energy[~spoken].sum() < 0.01 * energy.sum()


def test_faster_speech_is_shorter(synthesizer: Synthesizer) -> None:
    plain = synthesizer.speak("今天天气怎么样？", Voice("m1"))
    fast = synthesizer.speak("今天天气怎么样？", Voice("m1", speed=1.1))
    assert len(fast.samples) == pytest.approx(len(plain.samples) / 1.1, rel=0.02)
    assert fast.spans == pytest.approx(plain.spans / 1.1, abs=0.02)


def test_every_voice_says_every_character(synthesizer: Synthesizer) -> None:
    for variant in VOICES:
        speech = synthesizer.speak("现在几点了？", Voice(variant))
        for start_s, end_s in speech.spans:
            said = speech.samples[int(start_s * SAMPLE_RATE_HZ) : int(end_s * SAMPLE_RATE_HZ)]
            assert np.sqrt(np.mean(np.square(said))) > 0.01


def test_running_sum_fires_every_character_near_its_start(synthesizer: Synthesizer) -> None:
    speech = synthesizer.speak("大家好，我们开始开会。", Voice("m2"))
    example = make_example(speech, token_ids(speech_tokens()))
    fires = [int(np.searchsorted(example.weights, k + 1.0)) for k in range(len(example.tokens))]
    fires_s = row_centers_s(len(example.rows))[fires]
    delays_s = fires_s - speech.spans[:, 0]
    assert np.all(np.diff(example.weights) >= 0)
    assert example.weights[-1] == pytest.approx(len(example.tokens) + 1.05)
    assert np.all(delays_s > 0.0)
    assert np.all(delays_s < 0.15)


def test_silence_yields_nothing_but_the_end() -> None:
    silence = Speech(np.zeros(SAMPLE_RATE_HZ, np.float32), "", np.zeros((0, 2)))
    example = make_example(silence, token_ids(speech_tokens()))
    assert not example.tokens.size
    assert not example.frame_tokens.any()
    assert example.weights[-1] == pytest.approx(1.05)


def test_features_equal_the_reference_fbank() -> None:
    knf = pytest.importorskip("kaldi_native_fbank")
    rng = np.random.default_rng(1)
    samples = (0.1 * rng.standard_normal(SAMPLE_RATE_HZ)).astype(np.float32)
    options = knf.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hamming"
    options.mel_opts.num_bins = 80
    fbank = knf.OnlineFbank(options)
    fbank.accept_waveform(SAMPLE_RATE_HZ, (samples * 32768.0).tolist())
    fbank.input_finished()
    reference = np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])
    assert log_mel(samples) == pytest.approx(reference, abs=2e-3)


def test_stacked_rows_cover_every_frame() -> None:
    frames = np.arange(20, dtype=np.float32)[:, None].repeat(80, axis=1)
    rows = stack_frames(frames)
    assert rows.shape == (4, WIDTH)
    assert rows[0, ::80].tolist() == [0, 0, 0, 0, 1, 2, 3]
    assert rows[3, ::80].tolist() == [15, 16, 17, 18, 19, 19, 19]


def test_normalization_survives_its_file(tmp_path: Path) -> None:
    cmvn = np.random.default_rng(2).standard_normal((2, WIDTH)).astype(np.float32)
    write_cmvn(tmp_path / "am.mvn", cmvn)
    assert read_cmvn(tmp_path / "am.mvn") == pytest.approx(cmvn, rel=1e-4)


def test_built_in_normalization_has_a_shift_and_a_scale_for_every_feature() -> None:
    cmvn = read_cmvn(BUILTIN / "paraformer-demo" / "am.mvn")
    assert cmvn.shape == (2, WIDTH)
    assert np.all(cmvn[1] > 0)
