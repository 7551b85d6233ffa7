"""The cases of `loadtests.uploads`, without a service."""

from __future__ import annotations

import random

import pytest

from loadtests.uploads.bodies import BODIES, form, in_chunks
from loadtests.uploads.files import CONTAINERS, FILES, bomb, valid_file
from loadtests.uploads.sending import _is_complete, _joined
from serve_app.audio import AudioDecoder, AudioLimits


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_file_that_is_mutated_was_good(container: str) -> None:
    with AudioDecoder(valid_file(container), AudioLimits()) as decoder:
        assert sum(map(len, decoder.windows())) == pytest.approx(16_000, rel=0.15)


@pytest.mark.parametrize("kind", [*FILES, *BODIES])
def test_case_is_a_function_of_its_seed(kind: str) -> None:
    make = {**FILES, **BODIES}[kind]
    assert make(random.Random(7)) == make(random.Random(7))


def test_bombs_are_small() -> None:
    assert max(len(bomb(random.Random(seed))) for seed in range(12)) < 4_000_000


def test_chunks_add_up_to_the_body() -> None:
    body = form(valid_file("flac"))
    assert _joined(in_chunks(body, random.Random(1))) == body


def test_answer_is_complete_when_its_length_is_there() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    assert not _is_complete(head + b"a")
    assert _is_complete(head + b"ab")
    assert not _is_complete(head[:-3])
