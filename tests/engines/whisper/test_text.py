from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.engines.whisper.text import WhisperToken, spread_apart, tokens_of


def pieces(*texts: bytes, step_ms: float = 200.0) -> list[WhisperToken]:
    return [
        WhisperToken(text, 0.9, -0.1, 100 + number * step_ms) for number, text in enumerate(texts)
    ]


def words(*texts: bytes) -> list[str]:
    return [token.text for token in tokens_of(pieces(*texts), 10_000)]


def test_character_split_over_tokens_is_joined() -> None:
    assert words(b"\xe4\xba\xa4", b"\xe5\x87", b"\xa0", b"\xe4\xb9", b"\x8e") == ["交", "几", "乎"]


def test_incomplete_character_is_dropped() -> None:
    assert words(b"\xe4\xba\xa4", b"\xe5\x87") == ["交"]


def test_invalid_utf8_is_dropped() -> None:
    assert words(b"\xff", "好".encode()) == ["好"]


def test_token_of_two_characters_gives_two_words_that_share_its_time() -> None:
    first, second = tokens_of(pieces("情况".encode()), 1000)
    assert (first.text, second.text) == ("情", "况")
    assert first.end_ms == second.start_ms
    assert first.end_ms - first.start_ms == second.end_ms - second.start_ms


@pytest.mark.parametrize(
    ("decoded", "shown"),
    [
        ((b" hel", b"lo", b" world"), ["hello", "world"]),
        ("好，好。".encode(), ["好", "好"]),
        ("我用iPhone打".encode(), ["我", "用", "iPhone", "打"]),
        (b"it's 3.5% of 1,000.", ["it's", "3.5%", "of", "1,000"]),
        ("2013年".encode(), ["2013", "年"]),
        (b"...", []),
    ],
)
def test_words_come_without_punctuation(
    decoded: bytes | tuple[bytes, ...], shown: list[str]
) -> None:
    parts = decoded if isinstance(decoded, tuple) else (decoded,)
    assert words(*parts) == shown


def test_confidence_of_a_word_is_the_lowest_of_its_tokens() -> None:
    parts = [WhisperToken(b"hel", 0.9, -0.1, 100), WhisperToken(b"lo", 0.4, -0.9, 200)]
    (word,) = tokens_of(parts, 1000)
    assert word.confidence == 0.4


def test_script_is_converted_character_by_character_if_phrases_change_the_length() -> None:
    def script(text: str) -> str:
        return {"說": "说", "說話": "讲"}.get(text, text)

    shown = tokens_of(pieces("說".encode(), "話".encode()), 1000, script)
    assert [token.text for token in shown] == ["说", "話"]


TIMES = st.lists(st.floats(0, 30_000, allow_nan=False), max_size=40)


@given(TIMES, st.integers(0, 30_000))
def test_words_are_in_order_without_overlap_and_inside_the_chunk(
    centers_ms: list[float], duration_ms: int
) -> None:
    parts = [WhisperToken("字".encode(), 0.5, -0.7, center_ms) for center_ms in centers_ms]
    shown = tokens_of(parts, duration_ms)
    assert len(shown) == len(parts)
    assert all(0 <= word.start_ms <= word.end_ms <= duration_ms for word in shown)
    assert all(before.end_ms <= after.start_ms for before, after in pairwise(shown))


@given(TIMES)
def test_coinciding_times_are_moved_apart(centers_ms: list[float]) -> None:
    moved = spread_apart(centers_ms, 50.0)
    assert all(after - before >= 50.0 - 1e-6 for before, after in pairwise(moved))


def test_times_that_are_far_enough_apart_stay() -> None:
    assert spread_apart([0.0, 50.0, 400.0], 50.0) == [0.0, 50.0, 400.0]


def test_times_move_apart_around_their_middle() -> None:
    assert spread_apart([1000.0, 1000.0, 1000.0], 50.0) == [950.0, 1000.0, 1050.0]
