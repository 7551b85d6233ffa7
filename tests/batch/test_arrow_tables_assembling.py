from __future__ import annotations

import random

from serve_app.batch.arrow_tables import Assembler, AudioEnd, RecognizedWords
from serve_app.core.records import Utterance, UtteranceStatus


def utterance(index: int, error: str | None = None) -> Utterance:
    status: UtteranceStatus = "failed" if error else "empty"
    return Utterance(index, index * 1000, index * 1000 + 500, status, error=error)


def rows_of(number: int, num_chunks: int) -> list[RecognizedWords]:
    rows = [RecognizedWords(number, utterance(i), 0.25, None) for i in range(num_chunks)]
    return [*rows, RecognizedWords(number, None, 0.0, AudioEnd(num_chunks, 9000, 0.0, 0.0))]


def test_recording_is_complete_in_any_order_of_its_rows() -> None:
    dice = random.Random(1)
    rows = [row for number in range(5) for row in rows_of(number, 4 + number)]
    dice.shuffle(rows)
    assembler = Assembler()
    complete = [heard for row in rows for heard in assembler.add([row])]
    assert sorted(heard.number for heard in complete) == [0, 1, 2, 3, 4]
    for heard in complete:
        assert [one.index for one in heard.utterances] == list(range(4 + heard.number))
        assert heard.recognize_s == 0.25 * len(heard.utterances)
    assert assembler.num_open == 0


def test_nothing_is_kept_of_a_recording_that_is_complete() -> None:
    assembler = Assembler()
    for number in range(1000):
        assert len(assembler.add(rows_of(number, 2))) == 1
        assert assembler.num_open == 0


def test_recording_without_speech_is_complete_with_its_end() -> None:
    (heard,) = Assembler().add(rows_of(3, 0))
    assert (heard.utterances, heard.error) == ((), None)


def test_recording_whose_chunk_failed_has_an_error_that_names_the_place() -> None:
    assembler = Assembler()
    rows = rows_of(1, 3)
    rows[1] = RecognizedWords(
        1, utterance(1, "poison: 2 recognizers died while they had it"), 0.0, None
    )
    (heard,) = assembler.add(rows)
    assert heard.error is not None
    kind, reason = heard.error
    assert kind == "poison"
    assert "1.0-1.5 s" in reason
    assert "2 recognizers died" in reason


def test_error_of_the_file_comes_before_those_of_chunks() -> None:
    assembler = Assembler()
    rows = rows_of(1, 1)
    rows[-1] = RecognizedWords(
        1, None, 0.0, AudioEnd(1, 0, 0.0, 0.0, ("truncated_audio", "cut off"), True)
    )
    (heard,) = assembler.add(rows)
    assert heard.error == ("truncated_audio", "cut off")


def test_audio_is_counted_as_it_comes() -> None:
    assembler = Assembler()
    assembler.add(rows_of(1, 3)[:2])
    assert assembler.audio_ms == 1000
    assert assembler.open_numbers == [1]
