"""Segmentation on real files with an artificial VAD."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from serve_app.audio import AudioDecoder, AudioLimits
from serve_app.core.errors import AudioTooLong
from serve_app.core.records import AS_DEPLOYED, Chunk, FileBytes, RequestContext, SpeechDetection
from serve_app.transcript.segmentation import Segmentation, SegmentationOptions, grouped
from tests.fakes.engines import FakeVad

OPTIONS = SegmentationOptions(AudioLimits(block_s=1.0), max_segment_s=2.0, max_group_s=3.0)


def wav(*stretches: tuple[float, int]) -> FileBytes:
    """A file of stretches of (seconds, constant sample value)."""
    samples = np.concatenate(
        [np.full(int(seconds * 16_000), value, np.int16) for seconds, value in stretches]
    )
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="PCM_16")
    return np.frombuffer(file.getvalue(), np.uint8)


def chunks_of(audio: FileBytes, *, vad: bool) -> list[Chunk]:
    segmentation = Segmentation(audio, FakeVad() if vad else None, OPTIONS)
    return [chunk for group in segmentation.groups(RequestContext("request")) for chunk in group]


def test_chunks_are_the_vad_segments() -> None:
    chunks = chunks_of(wav((1, 0), (1.5, 500), (1, 0), (0.5, 500)), vad=True)
    assert [(c.start_ms, c.num_samples) for c in chunks] == [(1000, 24_000), (3500, 8_000)]
    assert [c.index for c in chunks] == [0, 1]
    assert all((c.pcm == 500).all() for c in chunks)


def test_without_vad_everything_is_cut_in_pieces_within_the_limit() -> None:
    chunks = chunks_of(wav((3, 0), (4.5, 500)), vad=False)
    assert sum(c.num_samples for c in chunks) == int(7.5 * 16_000)
    assert all(c.duration_s <= 2.0 for c in chunks)


def test_silence_has_no_chunks_but_a_duration() -> None:
    segmentation = Segmentation(wav((4, 0)), FakeVad(), OPTIONS)
    assert [group for group in segmentation.groups(RequestContext("request")) if group] == []
    assert segmentation.duration_ms == 4000


def test_groups_hold_at_most_their_share_of_audio() -> None:
    chunks = [
        Chunk(RequestContext("r"), i, 0, np.zeros(int(seconds * 16_000), np.int16))
        for i, seconds in enumerate([1, 1.5, 1, 5, 0.5, 0.5])
    ]
    sizes = [[c.index for c in group] for group in grouped(chunks, 3.0)]
    assert sizes == [[0, 1], [2], [3], [4, 5]]


def test_error_is_raised_after_the_chunks_before_it() -> None:
    samples = np.zeros(12 * 16_000, np.float32)
    samples[:16_000] = 0.1
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="MP3")
    options = replace(OPTIONS, limits=replace(OPTIONS.limits, max_duration_s=11.0))
    groups = Segmentation(np.frombuffer(file.getvalue(), np.uint8), FakeVad(), options).groups(
        RequestContext("request")
    )
    seen: list[Chunk] = []
    with pytest.raises(AudioTooLong):
        seen.extend(chunk for group in groups for chunk in group)
    assert len(seen) == 1


def test_damage_and_notices_are_known_at_the_end() -> None:
    samples = np.full(4 * 16_000, 0.1, np.float32)
    samples[16_000] = np.nan
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="FLOAT")
    content = file.getvalue() + np.random.default_rng(0).bytes(4000)
    segmentation = Segmentation(np.frombuffer(content, np.uint8), FakeVad(), OPTIONS)
    list(segmentation.steps())
    assert [(one.start_ms, one.end_ms) for one in segmentation.damage] == [(1000, 1001)]
    assert len(segmentation.notices) == 1


def test_first_chunks_go_at_once_and_later_ones_are_gathered() -> None:
    options = replace(OPTIONS, gather_s=6.0, max_group_s=60.0)
    samples = np.full(20 * 16_000, 0.1, np.float32)
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV")
    whole = np.frombuffer(file.getvalue(), np.uint8)
    gathered = [g for g in Segmentation(whole, None, options).groups(RequestContext("r")) if g]
    at_once = [g for g in Segmentation(whole, None, OPTIONS).groups(RequestContext("r")) if g]
    flat = [chunk.start_ms for group in gathered for chunk in group]
    assert flat == [chunk.start_ms for group in at_once for chunk in group]
    assert len(gathered[0]) == 1
    assert len(gathered) < len(at_once) / 2


def test_only_the_beginning_of_a_recording_is_urgent() -> None:
    options = replace(OPTIONS, urgent_s=2.5)
    segmentation = Segmentation(wav((5, 500)), None, options)
    groups = segmentation.groups(RequestContext("r"))
    urgent = [segmentation.is_urgent]
    urgent += [segmentation.is_urgent for _ in groups]
    # Before the first window of 1 s, after one, and after two; not after three.
    assert urgent[:3] == [True, True, True]
    assert not any(urgent[4:])
    assert not Segmentation(wav((5, 500)), None, OPTIONS).is_urgent


def test_recording_with_unusual_work_is_urgent_only_after_enough_audio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = iter([True, False, False, True, True, True, True])
    monkeypatch.setattr(AudioDecoder, "work_is_usual", property(lambda _: next(usual)))
    segmentation = Segmentation(wav((3, 500)), None, replace(OPTIONS, urgent_s=15.0))

    assert [segmentation.is_urgent for _ in segmentation.groups(RequestContext("r"))] == [
        True,
        False,
        False,
        True,
    ]


def test_speech_detection_of_a_request_reaches_its_vad() -> None:
    vad = FakeVad()
    asked = SpeechDetection(silence_duration_ms=300)
    list(Segmentation(wav((1, 500)), vad, OPTIONS, detection=asked).steps())
    list(Segmentation(wav((1, 500)), vad, OPTIONS).steps())
    assert vad.detections == [asked, AS_DEPLOYED]
