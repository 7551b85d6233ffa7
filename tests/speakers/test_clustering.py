import tracemalloc

import numpy as np
import pytest
from scipy.linalg import eigh

from serve_app.core.speakers import SpeakerTurn
from serve_app.speakers.clustering import MAX_ROWS, cluster, numbered
from tests.fakes.voices import made_up_voices, made_up_windows, talk


def agreement(labels: np.ndarray, turns: tuple[SpeakerTurn, ...], centers_ms: np.ndarray) -> float:
    """Returns the share of windows whose cluster is that of most windows of their speaker."""
    ends_ms = np.array([turn.end_ms for turn in turns])
    speakers = np.array([turn.speaker for turn in turns])
    truth = speakers[np.minimum(np.searchsorted(ends_ms, centers_ms), len(turns) - 1)]
    table = np.zeros((truth.max() + 1, labels.max() + 1))
    np.add.at(table, (truth, labels), 1)
    return float(table.max(axis=1).sum() / len(labels))


@pytest.mark.parametrize("num_speakers", range(1, 9))
@pytest.mark.parametrize("likeness", [0.3, 0.5])
def test_every_speaker_is_found_unaided(num_speakers: int, likeness: float) -> None:
    turns = talk(num_speakers, duration_s=240, seed=num_speakers)
    windows = made_up_windows(turns, made_up_voices(num_speakers, likeness=likeness))
    labels = cluster(windows.embeddings)
    assert labels.max() + 1 == num_speakers
    centers_ms = (windows.start_ms + windows.end_ms) / 2
    assert agreement(labels, turns, centers_ms) > 0.9


@pytest.mark.parametrize("duration_s", [3, 10, 30, 600])
def test_one_speaker_is_one(duration_s: int) -> None:
    for seed in range(5):
        windows = made_up_windows(talk(1, duration_s, seed), made_up_voices(1, seed), seed)
        assert cluster(windows.embeddings).max() == 0


def test_clip_of_12_seconds_can_have_two_speakers() -> None:
    turns = (SpeakerTurn(0, 6_500, 0), SpeakerTurn(6_700, 12_000, 1))
    windows = made_up_windows(turns, made_up_voices(2))
    assert len(windows) < 20
    labels = cluster(windows.embeddings)
    assert labels[0] == 0
    assert labels[-1] == 1
    assert labels.max() == 1


def with_intruder(duration_s: float, length_ms: int = 2_000) -> tuple[SpeakerTurn, ...]:
    """Returns turns of one speaker, one of them a short one of somebody else."""
    turns = list(talk(1, duration_s))
    middle = len(turns) // 2
    start_ms = turns[middle].start_ms
    turns[middle] = SpeakerTurn(start_ms, start_ms + length_ms, 1)
    return tuple(turns)


@pytest.mark.parametrize("duration_s", [60, 600, 3_600])
def test_two_seconds_of_another_voice_are_no_speaker(duration_s: int) -> None:
    windows = made_up_windows(with_intruder(duration_s), made_up_voices(2))
    assert cluster(windows.embeddings).max() == 0


@pytest.mark.parametrize("bounds", [{"num_speakers": 2}, {"min_speakers": 2}])
def test_two_seconds_of_another_voice_are_a_speaker_if_asked_for(bounds: dict[str, int]) -> None:
    windows = made_up_windows(with_intruder(60), made_up_voices(2))
    labels = cluster(windows.embeddings, **bounds)
    middle_ms = with_intruder(60)[len(with_intruder(60)) // 2].start_ms + 1_000
    inside = (windows.start_ms <= middle_ms) & (windows.end_ms >= middle_ms)
    assert labels.max() == 1
    assert set(labels[inside]) == {1}


@pytest.mark.parametrize("asked", [1, 2, 3, 5, 20])
def test_asked_number_of_speakers_is_returned(asked: int) -> None:
    windows = made_up_windows(talk(3, 120), made_up_voices(3))
    assert cluster(windows.embeddings, num_speakers=asked).max() + 1 == asked


def test_bounds_hold() -> None:
    windows = made_up_windows(talk(4, 240), made_up_voices(4))
    assert cluster(windows.embeddings, max_speakers=3).max() + 1 == 3
    assert cluster(windows.embeddings, max_speakers=8).max() + 1 == 4
    assert cluster(windows.embeddings, min_speakers=6).max() + 1 >= 6
    assert cluster(windows.embeddings, min_speakers=2).max() + 1 == 4


def test_there_are_no_more_speakers_than_windows() -> None:
    windows = made_up_windows([SpeakerTurn(0, 3_000, 0)], made_up_voices(1))
    assert cluster(windows.embeddings, num_speakers=8).max() + 1 <= len(windows)
    assert cluster(windows.embeddings[:1], num_speakers=8).tolist() == [0]
    assert cluster(windows.embeddings[:0]).tolist() == []


def test_labels_are_numbered_by_first_appearance() -> None:
    assert numbered(np.array([7, 7, 2, 9, 2])).tolist() == [0, 0, 1, 2, 1]
    windows = made_up_windows(talk(5, 240), made_up_voices(5))
    firsts = [int(np.argmax(cluster(windows.embeddings) == speaker)) for speaker in range(5)]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize("duration_s", [60, 2_400])
def test_same_windows_have_the_same_speakers(duration_s: int) -> None:
    windows = made_up_windows(talk(4, duration_s), made_up_voices(4))
    np.random.seed(1)
    first = cluster(windows.embeddings)
    np.random.seed(2)
    assert np.array_equal(first, cluster(windows.embeddings))


def test_same_embedding_everywhere_is_one_speaker() -> None:
    one = made_up_voices(1).astype(np.float32)
    assert cluster(np.repeat(one, 50, axis=0)).max() == 0


@pytest.mark.parametrize("num_windows", [2, 7, 50])
def test_asked_number_is_returned_even_of_equal_embeddings(num_windows: int) -> None:
    one = made_up_voices(1).astype(np.float32)
    assert cluster(np.repeat(one, num_windows, axis=0), num_speakers=2).max() == 1


def test_eigenproblem_is_bounded_whatever_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def noted(matrix: np.ndarray, **options: object) -> object:
        seen.append(len(matrix))
        return eigh(matrix, **options)

    monkeypatch.setattr("serve_app.speakers.clustering.eigh", noted)
    turns = talk(4, 3 * 3_600)
    windows = made_up_windows(turns, made_up_voices(4))
    assert len(windows) > 7 * MAX_ROWS
    labels = cluster(windows.embeddings)
    assert max(seen) <= MAX_ROWS
    assert labels.max() + 1 == 4
    assert agreement(labels, turns, (windows.start_ms + windows.end_ms) / 2) > 0.9


def test_memory_does_not_grow_with_the_square_of_the_length() -> None:
    windows = made_up_windows(talk(3, 2 * 3_600), made_up_voices(3))
    tracemalloc.start()
    try:
        cluster(windows.embeddings)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    square_bytes = 4 * len(windows) ** 2
    assert peak_bytes < 150 * 2**20 < square_bytes


def test_few_micro_clusters_are_condensed_again() -> None:
    rng = np.random.default_rng(0)
    voices = made_up_voices(2).astype(np.float32)
    many = np.repeat(voices, 30_000, axis=0)
    many += rng.normal(scale=0.05, size=many.shape).astype(np.float32)
    many /= np.linalg.norm(many, axis=1, keepdims=True)
    assert cluster(many).tolist() == [0] * 30_000 + [1] * 30_000
