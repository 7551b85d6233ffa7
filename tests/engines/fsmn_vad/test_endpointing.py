from __future__ import annotations

import numpy as np
import pytest

from serve_app.core.records import AS_DEPLOYED, SpeechDetection, SpeechSegment
from serve_app.engines.fsmn_vad.endpointing import Endpointer, FrameClassifier, Scores, VadOptions

NUM_REFERENCE_SEQUENCES = 300


def random_scores(rng: np.random.Generator) -> Scores:
    """Silence probabilities in runs of random length, some of them undecided."""
    parts = [np.empty(0)]
    for _ in range(int(rng.integers(1, 40))):
        length = int(rng.choice([3, 12, 20, 60, 150, 400]) * rng.uniform(0.5, 1.5)) + 1
        center = float(rng.choice([0.02, 0.1, 0.2, 0.5, 0.9, 0.98]))
        parts.append(np.clip(rng.normal(center, 0.12, length), 1e-4, 1 - 1e-4))
    return np.concatenate(parts)


def random_options(rng: np.random.Generator) -> VadOptions:
    return VadOptions(
        max_end_silence_ms=int(rng.choice([0, 100, 155, 200, 265, 300, 500, 800, 805, 2000])),
        max_single_segment_ms=int(rng.choice([400, 995, 1500, 5000, 60_000])),
        speech_noise_threshold=float(rng.choice([0.5, 0.6, 0.8])),
        window_ms=int(rng.choice([100, 200, 300])),
        silence_to_speech_ms=int(rng.choice([60, 100, 150])),
        speech_to_silence_ms=int(rng.choice([50, 100, 150])),
        lookback_ms=int(rng.choice([0, 100, 200])),
        lookahead_ms=int(rng.choice([0, 50, 100, 200])),
        speech_to_noise_ratio=float(rng.choice([1.0, 0.7])),
        min_level_db=float(rng.choice([-100.0, -50.0])),
        min_snr_db=float(rng.choice([-100.0, -5.0, 3.0])),
        num_noise_frames=int(rng.choice([5, 100])),
    )


def segments(
    options: VadOptions, silence: Scores, levels_db: Scores | None = None, step: int = 1 << 30
) -> list[SpeechSegment]:
    classifier, endpointer = FrameClassifier(options), Endpointer(options)
    found: list[SpeechSegment] = []
    for first in range(0, len(silence), step):
        piece = slice(first, first + step)
        levels = None if levels_db is None else levels_db[piece]
        found += endpointer.push(classifier.classify(silence[piece], levels))
    return found + endpointer.finish()


def frames(*runs: tuple[int, bool]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.concatenate([np.full(length, speech) for length, speech in runs])


def test_a_burst_is_padded_by_lookback_and_lookahead() -> None:
    endpointer = Endpointer(VadOptions())
    closed = endpointer.push(frames((100, False), (100, True), (100, False)))
    # The window turns up at the 15th speech frame and down at the 5th silent one.
    assert closed == [SpeechSegment((100 + 14 - 40) * 10, (200 + 4 + 12) * 10)]


def test_silence_gives_nothing() -> None:
    endpointer = Endpointer(VadOptions())
    assert endpointer.push(np.zeros(10_000, np.bool_)) == []
    assert endpointer.finish() == []


def test_no_frames_give_nothing() -> None:
    endpointer = Endpointer(VadOptions())
    assert endpointer.push(np.zeros(0, np.bool_)) == []
    assert endpointer.finish() == []


def test_speech_at_the_end_is_closed_by_finish_once() -> None:
    endpointer = Endpointer(VadOptions())
    assert endpointer.push(frames((50, False), (50, True))) == []
    assert endpointer.finish() == [SpeechSegment(240, 1000)]
    assert endpointer.finish() == []


def test_endless_speech_is_cut_at_the_limit_without_a_gap() -> None:
    closed = Endpointer(VadOptions(max_single_segment_ms=5000)).push(np.ones(2000, np.bool_))
    assert closed[0] == SpeechSegment(0, 5010)
    assert [segment.start_ms for segment in closed[1:]] == [
        segment.end_ms for segment in closed[:-1]
    ]


def test_an_open_segment_is_visible_and_its_audio_is_kept() -> None:
    endpointer = Endpointer(VadOptions())
    assert endpointer.open_since_ms is None
    endpointer.push(frames((100, False), (30, True)))
    assert endpointer.open_since_ms == 740
    endpointer.push(np.ones(500, np.bool_))
    assert endpointer.open_since_ms == endpointer.keep_from_ms == 740
    endpointer.push(np.zeros(100, np.bool_))
    assert endpointer.open_since_ms is None


@pytest.mark.parametrize("seed", range(20))
def test_no_segment_starts_before_keep_from(seed: int) -> None:
    rng = np.random.default_rng(seed)
    options = random_options(rng)
    classifier, endpointer = FrameClassifier(options), Endpointer(options)
    silence = random_scores(rng)
    for first in range(0, len(silence), 7):
        keep_from_ms = endpointer.keep_from_ms
        speech = classifier.classify(silence[first : first + 7], None)
        for segment in endpointer.push(speech):
            assert segment.start_ms >= keep_from_ms
        assert endpointer.keep_from_ms >= keep_from_ms


@pytest.mark.parametrize("seed", range(30))
def test_steps_of_any_size_give_the_same_segments(seed: int) -> None:
    rng = np.random.default_rng(seed)
    options, silence = random_options(rng), random_scores(rng)
    levels_db = rng.uniform(-60, 20, len(silence))
    whole = segments(options, silence, levels_db)
    for step in (1, 2, 19, 20, 21, 256):
        assert segments(options, silence, levels_db, step) == whole


def test_options_are_read_from_the_pack_by_funasrs_names() -> None:
    options = VadOptions.from_config(
        {"max_end_silence_time": 500, "speech_noise_thres": 0.7, "sil_pdf_ids": [0, 2]}
    )
    assert options == VadOptions(
        max_end_silence_ms=500, speech_noise_threshold=0.7, silence_ids=(0, 2)
    )


class Reference:
    """FunASR's decision machine, fed with scores instead of audio."""

    def __init__(self) -> None:
        from funasr.models.fsmn_vad_streaming import encoder, model

        assert encoder is not None  # imported for its entry in FunASR's registry
        self._model_class = model.FsmnVADStreaming

    def segments(
        self, options: VadOptions, silence: Scores, levels_db: Scores, block: int
    ) -> list[SpeechSegment]:
        import torch

        vad = self._model_class(
            encoder="FSMN",
            encoder_conf={
                "input_dim": 1, "input_affine_dim": 1, "fsmn_layers": 1, "linear_dim": 1,
                "proj_dim": 1, "lorder": 1, "rorder": 0, "lstride": 1, "rstride": 0,
                "output_affine_dim": 1, "output_dim": 1,
            },
            max_end_silence_time=options.max_end_silence_ms,
            max_single_segment_time=options.max_single_segment_ms,
            speech_noise_thres=options.speech_noise_threshold,
            window_size_ms=options.window_ms,
            sil_to_speech_time_thres=options.silence_to_speech_ms,
            speech_to_sil_time_thres=options.speech_to_silence_ms,
            lookback_time_start_point=options.lookback_ms,
            lookahead_time_end_point=options.lookahead_ms,
            speech_2_noise_ratio=options.speech_to_noise_ratio,
            decibel_thres=options.min_level_db,
            snr_thres=options.min_snr_db,
            noise_frame_num_used_for_snr=options.num_noise_frames,
        )  # fmt: skip
        cache = vad.init_cache({})
        stats = cache["stats"]
        stats.data_buf_all = stats.data_buf = torch.zeros(len(silence) * 160 + 240)
        scores = torch.from_numpy(silence).reshape(1, -1, 1)
        found: list[SpeechSegment] = []
        for first in range(0, len(silence), block):
            last = min(first + block, len(silence))

            def score(
                _: object, cache: object = None, first: int = first, last: int = last
            ) -> None:
                piece = scores[:, first:last]
                past = stats.scores
                stats.scores = piece if past is None else torch.cat((past, piece), dim=1)
                stats.frm_cnt += last - first
                stats.decibel.extend(levels_db[first:last].tolist())
                vad.vad_opts.nn_eval_block_size = last - first

            vad.ComputeScores = score
            vad.ComputeDecibel = lambda **_: None
            for batch in vad.forward(
                scores[:, first:last],
                torch.zeros(1, 1),
                cache,
                is_final=last == len(silence),
                is_streaming_input=False,
            ):
                found += [SpeechSegment(start, end) for start, end in batch]
        return found


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


@pytest.mark.reference
def test_random_scores_give_the_segments_of_funasr(reference: Reference) -> None:
    rng = np.random.default_rng(7)
    num_found = 0
    for _ in range(NUM_REFERENCE_SEQUENCES):
        options, silence = random_options(rng), random_scores(rng)
        levels_db = rng.uniform(-60, 20, len(silence))
        expected = reference.segments(options, silence, levels_db, int(rng.integers(50, 6000)))
        assert segments(options, silence, levels_db, step=256) == expected, options
        num_found += len(expected)
    assert num_found > NUM_REFERENCE_SEQUENCES


@pytest.mark.parametrize(
    ("threshold", "speech_probability"),
    [(0.0, 0.0), (0.25, 0.4), (0.5, 0.8), (0.75, 0.8995), (1.0, 0.999)],
)
def test_threshold_of_a_request_moves_the_probability_from_which_on_a_frame_is_speech(
    threshold: float, speech_probability: float
) -> None:
    options = VadOptions().adapted(SpeechDetection(threshold=threshold))
    silence = 1 - speech_probability
    found = FrameClassifier(options).classify(np.array([silence - 1e-6, silence + 1e-6]), None)
    assert found.tolist() == [True, False]


def test_request_without_vad_fields_changes_no_option() -> None:
    options = VadOptions(max_end_silence_ms=640, speech_noise_threshold=0.7)
    assert options.adapted(AS_DEPLOYED) == options
    assert options.adapted(SpeechDetection(threshold=0.5)).speech_noise_threshold == pytest.approx(
        0.7
    )


def test_silence_and_padding_of_a_request_move_the_ends_of_segments() -> None:
    speech = frames((100, False), (100, True), (50, False), (100, True), (100, False))
    detection = SpeechDetection(silence_duration_ms=300, prefix_padding_ms=400)
    joined = Endpointer(VadOptions()).push(speech)
    divided = Endpointer(VadOptions().adapted(detection)).push(speech)
    assert (len(joined), len(divided)) == (1, 2)
    assert divided[0].start_ms == joined[0].start_ms - 200
    # What the first segment has is not in the second one as well.
    assert divided[1].start_ms >= divided[0].end_ms
