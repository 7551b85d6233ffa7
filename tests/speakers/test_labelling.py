import pytest

from serve_app.core.records import Token
from serve_app.core.speakers import Diarization, SpeakerTurn
from serve_app.speakers.labelling import label_sentences
from serve_app.transcript.transcript import MarkedToken, Sentence

TWO = Diarization(
    (SpeakerTurn(0, 3_000, 0), SpeakerTurn(3_000, 6_000, 1), SpeakerTurn(8_000, 9_000, 0)),
    ("A", "Bo"),
)


def sentence(text: str, start_ms: int = 0, word_ms: int = 300) -> Sentence:
    """Returns a sentence of one character per word; a mark belongs to the word before it."""
    tokens: list[MarkedToken] = []
    for character in text:
        if character in "，。":
            tokens[-1] = MarkedToken(tokens[-1].token, character)
            continue
        at_ms = start_ms + word_ms * len(tokens)
        tokens.append(MarkedToken(Token(character, at_ms, at_ms + word_ms, 1.0)))
    return Sentence(tuple(tokens))


def labeled(*sentences: Sentence, diarization: Diarization = TWO) -> list[tuple[str, str | None]]:
    return [(one.text, one.speaker) for one in label_sentences(sentences, diarization)]


def test_without_turns_nothing_is_labeled() -> None:
    given = (sentence("今天天气好。"),)
    assert label_sentences(given, Diarization()) == given


def test_sentence_of_one_speaker_stays_whole() -> None:
    assert labeled(sentence("今天，天气好。"), sentence("是的是的。", 3_300)) == [
        ("今天，天气好。", "A"),
        ("是的是的。", "Bo"),
    ]


def test_sentence_is_divided_at_the_word_where_the_speaker_changes() -> None:
    assert labeled(sentence("我们走吧，好的好的。", 1_500)) == [
        ("我们走吧，好", "A"),
        ("的好的。", "Bo"),
    ]


def test_word_in_two_turns_belongs_to_where_most_of_it_is() -> None:
    assert labeled(sentence("一二三四五六", 1_900)) == [("一二三四", "A"), ("五六", "Bo")]


@pytest.mark.parametrize(
    ("start_ms", "speaker"), [(6_100, "Bo"), (7_600, "A"), (6_900, "Bo"), (9_500, "A")]
)
def test_word_outside_of_all_turns_has_the_nearest(start_ms: int, speaker: str) -> None:
    assert labeled(sentence("好。", start_ms, 100)) == [("好。", speaker)]


def test_word_before_all_turns_has_the_first() -> None:
    late = Diarization((SpeakerTurn(5_000, 6_000, 0),), ("A",))
    assert labeled(sentence("好。"), diarization=late) == [("好。", "A")]


def test_single_word_does_not_flip_alone_inside_of_a_sentence() -> None:
    turns = (SpeakerTurn(0, 900, 0), SpeakerTurn(900, 1_200, 1), SpeakerTurn(1_200, 3_000, 0))
    one = Diarization(turns, ("A", "B"))
    assert labeled(sentence("一二三四五六。"), diarization=one) == [("一二三四五六。", "A")]


@pytest.mark.parametrize(("start_ms", "speaker"), [(2_700, "Bo"), (1_500, "A")])
def test_single_word_at_an_edge_does_not_flip_alone(start_ms: int, speaker: str) -> None:
    assert labeled(sentence("一二三四五六。", start_ms)) == [("一二三四五六。", speaker)]


def test_words_of_less_than_half_a_second_do_not_flip() -> None:
    turns = (SpeakerTurn(0, 900, 0), SpeakerTurn(900, 1_300, 1), SpeakerTurn(1_300, 3_000, 0))
    one = Diarization(turns, ("A", "B"))
    assert labeled(sentence("一二三四五六七八九。", word_ms=200), diarization=one) == [
        ("一二三四五六七八九。", "A")
    ]


def test_sentence_of_one_word_keeps_its_speaker() -> None:
    assert labeled(sentence("一二三。"), sentence("好。", 3_100), sentence("四五六。", 8_000)) == [
        ("一二三。", "A"),
        ("好。", "Bo"),
        ("四五六。", "A"),
    ]


def test_words_between_two_short_runs_are_smoothed_into_one_sentence() -> None:
    turns = tuple(SpeakerTurn(at, at + 300, at // 300 % 2) for at in range(0, 1_800, 300))
    flicker = Diarization(turns, ("A", "B"))
    assert len(labeled(sentence("一二三四五六。"), diarization=flicker)) == 1


def test_words_and_marks_are_kept_in_order() -> None:
    given = sentence("我们走吧，好的好的。那就这样，再见。")
    found = label_sentences((given,), TWO)
    assert tuple(marked for one in found for marked in one.tokens) == given.tokens
