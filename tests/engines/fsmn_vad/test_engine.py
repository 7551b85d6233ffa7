from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from serve_app.core.errors import PackCorrupt
from serve_app.core.records import AS_DEPLOYED, Pcm, SpeechDetection, SpeechSegment
from serve_app.engines.fsmn_vad.endpointing import VadOptions
from serve_app.engines.fsmn_vad.engine import FsmnVad, FsmnVadStream
from serve_app.packs import PackContents

# What FunASR 1.4.16 finds in vad_example.wav with dynamic_silence=False.
EXAMPLE_MS = [
    (70, 2340), (2620, 6200), (6480, 23670), (23950, 26250), (26780, 28990), (29950, 31430),
    (31750, 37600), (38210, 46900), (47310, 49630), (49910, 56460), (56740, 59540), (59820, 70450),
]  # fmt: skip


@pytest.fixture(scope="module")
def vad(vad_pack: PackContents) -> FsmnVad:
    return FsmnVad(vad_pack)


@pytest.fixture(scope="module")
def example(vad_example: Path) -> Pcm:
    pcm: Pcm = soundfile.read(vad_example, dtype="int16")[0]
    pcm.flags.writeable = False  # as Ray hands arrays over
    return pcm


def run(stream: FsmnVadStream, pcm: Pcm, step: int = 1 << 30) -> list[SpeechSegment]:
    found: list[SpeechSegment] = []
    for first in range(0, len(pcm), step):
        found += stream.push(pcm[first : first + step])
    return found + stream.finish()


def times_ms(segments: list[SpeechSegment]) -> list[tuple[int, int]]:
    return [(segment.start_ms, segment.end_ms) for segment in segments]


@pytest.mark.parametrize("step", [1 << 30, 960_000, 40_960, 16_000, 1601, 160])
def test_the_example_gives_funasrs_segments_in_pushes_of_any_size(
    vad: FsmnVad, example: Pcm, step: int
) -> None:
    assert times_ms(run(vad.open(), example, step)) == EXAMPLE_MS


def test_single_samples_may_be_pushed(vad: FsmnVad, example: Pcm) -> None:
    part = example[:45_000]
    assert run(vad.open(), part, step=1) == run(vad.open(), part)


@pytest.mark.parametrize("num_samples", [0, 1, 399, 400, 401, 559, 560, 719, 720, 800])
def test_recordings_of_few_frames_have_no_segment(
    vad: FsmnVad, example: Pcm, num_samples: int
) -> None:
    assert run(vad.open(), example[16_000 : 16_000 + num_samples]) == []


def test_empty_pushes_change_nothing(vad: FsmnVad, example: Pcm) -> None:
    stream = vad.open()
    assert stream.push(example[:0]) == []
    found = stream.push(example)
    assert stream.push(example[:0]) == []
    assert times_ms(found + stream.finish()) == EXAMPLE_MS


def test_digital_silence_has_no_segment(vad: FsmnVad) -> None:
    stream = vad.open()
    assert run(stream, np.zeros(16_000 * 120, np.int16), step=160_000) == []
    # Only the look-back (200 ms window, 200 ms margin) and the open block are kept.
    assert 120_000 - stream.keep_from_ms <= 400 + 25


def test_finish_twice_gives_nothing_new(vad: FsmnVad, example: Pcm) -> None:
    stream = vad.open()
    stream.push(example)
    stream.finish()
    assert stream.finish() == []


def test_streams_do_not_share_state(vad: FsmnVad, example: Pcm) -> None:
    first, second = vad.open(), vad.open()
    found_first, found_second = [], []
    for start in range(0, len(example), 48_000):
        found_first += first.push(example[start : start + 48_000])
        found_second += second.push(np.zeros(48_000, np.int16))
    assert times_ms(found_first + first.finish()) == EXAMPLE_MS
    assert found_second + second.finish() == []


def test_an_open_segment_shows_before_it_ends(vad: FsmnVad, example: Pcm) -> None:
    stream = vad.open()
    stream.push(example[: 16_000 * 15])
    assert stream.open_since_ms == stream.keep_from_ms == 6480
    run(stream, example[16_000 * 15 :])
    assert stream.open_since_ms is None


def test_no_segment_begins_before_audio_that_may_be_dropped(vad: FsmnVad, example: Pcm) -> None:
    stream = vad.open()
    for first in range(0, len(example), 12_345):
        keep_from_ms = stream.keep_from_ms
        for segment in stream.push(example[first : first + 12_345]):
            assert segment.start_ms >= keep_from_ms


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(vad: FsmnVad, example: Pcm) -> None:
    stream = vad.open()
    for _ in range(2):
        stream.push(example)
    tracemalloc.start()
    for _ in range(4):
        stream.push(example)
    grown_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown_bytes < 100_000


def test_options_change_where_segments_end(vad_pack: PackContents, example: Pcm) -> None:
    patient = FsmnVad(vad_pack, VadOptions(max_end_silence_ms=3000))
    assert times_ms(run(patient.open(), example)) == [(70, 60_080), (60_080, 70_450)]
    short = FsmnVad(vad_pack, VadOptions(max_single_segment_ms=5000))
    found = run(short.open(), example)
    assert max(segment.end_ms - segment.start_ms for segment in found) <= 5010


def test_a_pack_without_the_network_is_refused(vad_pack: PackContents) -> None:
    with pytest.raises(PackCorrupt, match="FSMN"):
        FsmnVad(replace(vad_pack, config={**vad_pack.config, "encoder": "SANMEncoder"}))


def test_a_pack_without_statistics_is_refused(vad_pack: PackContents) -> None:
    with pytest.raises(PackCorrupt, match="front end"):
        FsmnVad(replace(vad_pack, cmvn=None))


def harmonics(num_samples: int) -> Pcm:
    time = np.arange(num_samples)
    tones = [
        np.sin(2 * np.pi * hertz * time / 16_000) * (1 + np.sin(time / (3000 + hertz)))
        for hertz in (220, 277, 330, 440)
    ]
    pcm: Pcm = (2000 * np.sum(tones, axis=0)).astype(np.int16)
    return pcm


@pytest.mark.slow
@pytest.mark.reference
def test_other_recordings_give_funasrs_segments(
    vad: FsmnVad, vad_pack: PackContents, example: Pcm
) -> None:
    from funasr import AutoModel

    reference = AutoModel(
        model=str(vad_pack.directory), disable_update=True, disable_pbar=True, ncpu=1
    )
    rng = np.random.default_rng(0)
    recordings: dict[str, npt.NDArray[np.number]] = {
        "backwards": example[::-1].copy(),
        "twice": np.concatenate((example, example)),
        "a multiple of FunASR's block": np.tile(example, 2)[: 16_000 * 120],
        "after a long silence": np.concatenate((np.zeros(16_000 * 70 + 77, np.int16), example)),
        "in noise": np.clip(example + rng.normal(0, 1000, len(example)), -32768, 32767),
        "quiet": example * 0.02,
        "noise": rng.normal(0, 1500, 16_000 * 65),
        "tones": harmonics(16_000 * 65),
    }
    for name, recording in recordings.items():
        pcm = recording.astype(np.int16)
        found = reference.generate(
            input=pcm.astype(np.float32) / 32768, fs=16_000, dynamic_silence=False
        )
        expected = [(start, end) for start, end in found[0]["value"]]
        assert times_ms(run(vad.open(), pcm, step=50_000)) == expected, name


def test_options_of_one_recording_do_not_affect_others(vad: FsmnVad, example: Pcm) -> None:
    detection = SpeechDetection(silence_duration_ms=200, prefix_padding_ms=0, threshold=0.9)
    other, plain = vad.open(detection), vad.open()
    found: list[SpeechSegment] = []
    for first in range(0, len(example), 100_000):
        part = example[first : first + 100_000]
        other.push(part)
        found += plain.push(part)
    assert times_ms(found + plain.finish()) == EXAMPLE_MS
    assert times_ms(run(vad.open(), example)) == EXAMPLE_MS


def test_request_options_split_and_shorten_the_segments(vad: FsmnVad, example: Pcm) -> None:
    def heard_ms(detection: SpeechDetection) -> tuple[int, int]:
        found = run(vad.open(detection), example)
        return len(found), sum(segment.end_ms - segment.start_ms for segment in found)

    num_segments, speech_ms = heard_ms(AS_DEPLOYED)
    assert heard_ms(SpeechDetection(silence_duration_ms=200))[0] > num_segments
    assert heard_ms(SpeechDetection(silence_duration_ms=6000))[0] < num_segments
    assert heard_ms(SpeechDetection(prefix_padding_ms=0))[1] < speech_ms
    assert heard_ms(SpeechDetection(threshold=0.95))[1] < speech_ms
    assert heard_ms(SpeechDetection(threshold=0.1))[1] > speech_ms
