"""Where segments begin and end, and which audio is theirs."""

from __future__ import annotations

import numpy as np
import pytest

from serve_app.core.ports import VoiceActivityDetector
from serve_app.core.records import AS_DEPLOYED, SpeechDetection
from serve_app.live.segmenting import Boundary, Closed, Opened, Segmenter
from tests.fakes.engines import FakeVad
from tests.live.models import PCM_16K


def audio(*parts: tuple[int, int]) -> bytes:
    """Levels, each for so many ms."""
    return b"".join(np.full(ms * 16, level, np.int16).tobytes() for level, ms in parts)


def segmenter(
    detection: SpeechDetection | None = AS_DEPLOYED,
    max_segment_s: float = 20,
    vad: VoiceActivityDetector | None = None,
) -> Segmenter:
    return Segmenter(PCM_16K, vad or FakeVad(), detection, max_segment_s)


def spans(found: list[Boundary]) -> list[tuple[int, int]]:
    return [(one.start_ms, one.end_ms) for one in found if isinstance(one, Closed)]


def pushed(one: Segmenter, data: bytes, step_ms: int = 100) -> list[Boundary]:
    found: list[Boundary] = []
    for start in range(0, len(data), step_ms * 32):
        found += one.push(data[start : start + step_ms * 32])
    return found


def test_a_segment_is_announced_as_soon_as_speech_is_detected() -> None:
    one = segmenter()
    assert one.push(audio((0, 500))) == []
    assert one.push(audio((7, 100))) == [Opened(500)]
    assert one.open_since_ms == 500
    (closed,) = one.push(audio((7, 300), (0, 100)))
    assert isinstance(closed, Closed)
    assert (closed.start_ms, closed.end_ms) == (500, 900)
    assert closed.pcm.tolist() == [7] * 400 * 16
    assert one.open_since_ms is None


def test_only_the_audio_of_the_open_segment_is_kept() -> None:
    one = segmenter()
    for _ in range(100):
        pushed(one, audio((0, 1000), (5, 1000)))
        assert one.num_kept_samples <= 2200 * 16


def test_speech_without_a_pause_is_cut_at_a_quiet_place() -> None:
    one = segmenter(max_segment_s=2)
    found = pushed(one, audio((900, 1500), (1, 100), (900, 1500), (0, 500)))
    first, second = spans(found)
    assert first[0] == 0
    assert 1500 <= first[1] <= 1600
    assert second == (first[1], 3100)
    assert [type(event) for event in found] == [Opened, Closed, Opened, Closed]


def test_a_cut_into_the_final_silence_leaves_no_empty_segment() -> None:
    one = segmenter(max_segment_s=2)
    # The detector ends the segment a while after its end.
    found = pushed(one, audio((900, 1950), (1, 100), (0, 500)))
    assert len(spans(found)) == len([event for event in found if isinstance(event, Opened)])
    assert spans(found)[-1][1] == 2050


def test_a_commit_ends_the_open_segment_at_the_last_sample() -> None:
    one = segmenter()
    pushed(one, audio((0, 200), (4, 333)))
    assert spans(one.commit()) == [(200, 533)]
    # What follows is a segment of its own.
    assert one.push(audio((4, 100))) == []
    assert spans(one.finish()) == [(533, 633)]


def test_without_detection_segments_end_only_by_commit() -> None:
    one = segmenter(None)
    assert pushed(one, audio((0, 500), (4, 500), (0, 1000))) == [Opened(0)]
    assert spans(one.commit()) == [(0, 2000)]
    assert pushed(one, audio((0, 300))) == [Opened(2000)]
    assert spans(one.finish()) == [(2000, 2300)]


def test_without_detection_long_audio_is_cut() -> None:
    one = segmenter(None, max_segment_s=2)
    found = pushed(one, audio((4, 7000))) + one.commit()
    assert [start for start, _ in spans(found)] == [0, *[end for _, end in spans(found)[:-1]]]
    assert spans(found)[-1][1] == 7000
    assert all(end - start <= 2000 for start, end in spans(found))


def test_too_little_audio_is_not_committed() -> None:
    one = segmenter()
    one.push(audio((0, 50)))
    assert one.commit() == []
    one.push(audio((0, 50)))
    assert spans(one.commit()) == [(0, 100)]


def test_a_clear_forgets_the_open_segment() -> None:
    one = segmenter()
    pushed(one, audio((4, 300)))
    (cleared,) = one.clear()
    assert isinstance(cleared, Closed)
    assert (cleared.start_ms, cleared.end_ms, cleared.cleared) == (0, 300, True)
    assert len(cleared.pcm) == 0
    assert spans(pushed(one, audio((4, 200), (0, 100)))) == [(300, 500)]
    assert one.clear() == []


@pytest.mark.parametrize("speaking", [False, True])
def test_another_detection_holds_from_the_next_segment_on(speaking: bool) -> None:
    vad = FakeVad()
    one = segmenter(vad=vad)
    pushed(one, audio((0, 200), (4 if speaking else 0, 200)))
    slower = SpeechDetection(silence_duration_ms=2000)
    assert one.configure(slower) == []
    assert vad.detections[-1] == (AS_DEPLOYED if speaking else slower)
    pushed(one, audio((0, 200)))
    assert vad.detections[-1] == slower
    assert spans(pushed(one, audio((4, 200), (0, 100)))) == [(600, 800)]


def test_with_detection_from_now_on_uncommitted_audio_is_a_segment() -> None:
    one = segmenter(None)
    pushed(one, audio((4, 500)))
    assert spans(one.configure(AS_DEPLOYED)) == [(0, 500)]
    assert spans(pushed(one, audio((0, 100), (4, 200), (0, 100)))) == [(600, 800)]


def test_without_detection_from_now_on_the_open_segment_still_ends() -> None:
    one = segmenter()
    pushed(one, audio((4, 500)))
    assert one.configure(None) == []
    assert spans(pushed(one, audio((4, 100), (0, 100)))) == [(0, 600)]
    pushed(one, audio((0, 200)))
    # From the end of the segment on, everything counts.
    assert spans(one.commit()) == [(600, 900)]
