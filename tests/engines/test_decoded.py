from __future__ import annotations

import numpy as np

from serve_app.core.chunks import ChunkFailure, Recognition
from serve_app.engines.decoded import Decoded, overflow, recognition_of, shown_ids

NAMES = ("<blank>", "<s>", "</s>", "一", "丁", "<unk>")
PCM = np.ones(32_000, np.int16)


def decoded(*ids: int, fine: list[float] | None = None) -> Decoded:
    return Decoded(
        np.array(ids, np.int32),
        np.full(len(ids), 0.5, np.float32),
        np.arange(len(ids), dtype=np.float64) * 8,
        None if fine is None else np.array(fine, np.float32),
    )


def test_blank_and_the_ends_are_never_shown() -> None:
    result = recognition_of(PCM, decoded(0, 3, 1, 4, 2), NAMES)
    assert isinstance(result, Recognition)
    assert [token.text for token in result.tokens] == ["一", "丁"]
    assert shown_ids(decoded(0, 3, 1, 4, 2)) == [3, 4]


def test_times_are_those_of_the_head_or_else_of_the_centres() -> None:
    fires = [0.0] * 99
    fires[10] = fires[30] = fires[50] = 1.0
    by_head = decoded(3, 4, fine=fires)
    # FunASR's rule: 20 ms a frame, a fire counts one and a half frames earlier.
    assert by_head.spans(2000)[0] == (170, 410)
    assert decoded(3, 4).spans(2000)[0][0] == 0
    assert decoded(3, 4, fine=[0.0] * 99).spans(2000) == decoded(3, 4).spans(2000)


def test_nothing_heard_and_failures_have_no_words() -> None:
    assert recognition_of(PCM, None, NAMES) == Recognition(())
    assert recognition_of(PCM, decoded(), NAMES) == Recognition(())
    failure = overflow()
    assert isinstance(failure, ChunkFailure)
    assert recognition_of(PCM, failure, NAMES) is failure
    assert shown_ids(None) == shown_ids(failure) == []
