from __future__ import annotations

import numpy as np
import pyarrow as pa

from serve_app.batch.arrow_tables import (
    AudioEnd,
    AudioRows,
    Planned,
    plan_table,
    read_audio,
    read_plan,
    read_words,
    words_table,
)
from serve_app.core.records import (
    NO_OPTIONS,
    ChunkFailure,
    Pcm,
    Recognition,
    RecognitionOptions,
    Token,
)
from serve_app.transcript.chunking import ChunkAudio

END = AudioEnd(2, 4000, 0.1, 123.0)


def pcm(num_samples: int, value: int) -> Pcm:
    return np.full(num_samples, value, np.int16)


def rows() -> AudioRows:
    rows = AudioRows()
    rows.add_chunk(7, 0, ChunkAudio(0, 100, pcm(1600, 1)))
    rows.add_chunk(7, 1, ChunkAudio(2000, 2200, pcm(3200, 2), 1, 1900))
    rows.add_end(7, END)
    return rows


def test_plan_comes_back_as_it_was() -> None:
    planned = [Planned(0, "a/b", "/x/a b.wav", True), Planned(1, "c", "s3://b/c", False, "en")]
    assert read_plan(plan_table(planned)) == planned


def test_audio_comes_back_as_it_was() -> None:
    chunks, ends = read_audio(rows().take())
    assert [(number, chunk.index, chunk.start_ms) for number, chunk in chunks] == [
        (7, 0, 0),
        (7, 1, 2000),
    ]
    assert [set(chunk.pcm.tolist()) for _, chunk in chunks] == [{1}, {2}]
    assert [chunk.num_samples for _, chunk in chunks] == [1600, 3200]
    assert [(chunk.channel, chunk.settled_ms) for _, chunk in chunks] == [(None, 0), (1, 1900)]
    assert ends == [(7, END)]


def test_audio_survives_being_sliced_and_put_together() -> None:
    table = rows().take()
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1, 2), rows().take().slice(1)])
    chunks, ends = read_audio(pieces)
    assert [chunk.pcm[0] for _, chunk in chunks] == [1, 2, 2]
    assert len(ends) == 2


def test_chunks_are_hinted_the_language_of_their_recording() -> None:
    some = AudioRows()
    for number, language in enumerate(("en", None, "zh")):
        some.add_chunk(number, 0, ChunkAudio(0, 100, pcm(1600, 1)), language)
    chunks, _ = read_audio(some.take())
    assert [chunk.recognition_options for _, chunk in chunks] == [
        RecognitionOptions(language="en"),
        NO_OPTIONS,
        RecognitionOptions(language="zh"),
    ]


def test_samples_are_the_tables_own() -> None:
    table = rows().take()
    chunks, _ = read_audio(table)
    first = table.column("pcm").chunk(0).buffers()[2]
    assert chunks[0][1].pcm.ctypes.data == first.address


def test_rows_are_removed_once_taken() -> None:
    some = rows()
    assert some.num_bytes == 2 * 4800
    some.take()
    assert (some.num_bytes, some.take().num_rows) == (0, 0)


def test_words_have_their_place_in_the_recording() -> None:
    chunks, ends = read_audio(rows().take())
    heard = Recognition((Token("好", 100, 300, 0.9),))
    failure = ChunkFailure("poison", "it kills")
    table = words_table(
        [(7, chunks[0][1], heard, 0.5), (7, chunks[1][1], failure, 0.0)],
        ends,
    )
    first, second, end = read_words(table)
    assert first.utterance is not None
    assert first.utterance.tokens[0].text == "好"
    assert first.recognize_s == 0.5
    assert second.utterance is not None
    assert (second.utterance.status, second.utterance.start_ms) == ("failed", 2000)
    assert (end.utterance, end.end) == (None, END)


def test_table_of_ends_alone_can_be_read() -> None:
    (only,) = read_words(words_table([], [(3, END)]))
    assert (only.number, only.end) == (3, END)
