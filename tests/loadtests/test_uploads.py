"""The cases of `loadtests.uploads`, without a service."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from loadtests.uploads.bodies import BODIES, RawRequest, fields, form, in_chunks
from loadtests.uploads.files import CONTAINERS, FILES, bomb, valid_file
from loadtests.uploads.reports import Repetition, Run, report
from loadtests.uploads.sending import Answer, Outcome, _is_complete, _joined, fits
from loadtests.uploads.watching import Process
from serve_app.audio import AudioDecoder, AudioLimits


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_file_that_is_mutated_was_good(container: str) -> None:
    with AudioDecoder(valid_file(container), AudioLimits()) as decoder:
        assert sum(map(len, decoder.blocks())) == pytest.approx(16_000, rel=0.15)


@pytest.mark.parametrize("kind", [*FILES, *BODIES])
def test_case_is_a_function_of_its_seed(kind: str) -> None:
    make = {**FILES, **BODIES}[kind]
    assert make(random.Random(7)) == make(random.Random(7))


def test_bombs_are_small() -> None:
    assert max(len(bomb(random.Random(seed))) for seed in range(12)) < 4_000_000


def test_chunks_add_up_to_the_body() -> None:
    body = form(valid_file("flac"))
    assert _joined(in_chunks(body, random.Random(1))) == body


def test_answer_is_complete_once_all_declared_bytes_arrived() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    assert not _is_complete(head + b"a")
    assert _is_complete(head + b"ab")
    assert not _is_complete(head[:-3])


def test_unknown_fields_are_to_be_answered_and_named() -> None:
    cases = [fields(random.Random(seed)) for seed in range(60)]
    unknown = [case for case in cases if b'name="other"' in case.content]
    misspelled = [case for case in cases if b'name="langauge"' in case.content]
    assert {(case.expected, case.header) for case in unknown} == {
        ("200", "X-Paraserve-Ignored-Fields")
    }
    assert {case.expected for case in misspelled} == {"4xx"}


def test_answer_must_have_the_header_that_is_promised() -> None:
    raw = RawRequest(b"", "200", header="X-Named")
    assert fits(Answer(200, "http/1.1 200 ok\r\nx-named: other"), raw)
    assert not fits(Answer(200, "http/1.1 200 ok"), raw)
    assert not fits(Answer(400, "http/1.1 400 bad\r\nx-named: other"), raw)


def test_refusal_needs_the_error_body_of_openai() -> None:
    body = '{"error": {"message": "m", "type": "t", "param": null, "code": "c"}}'
    raw = RawRequest(b"", "4xx")
    assert fits(Answer(400, text=body), raw)
    assert not fits(Answer(400, text="<html>"), raw)
    assert not fits(Answer(500, text=body), raw)


def test_run_is_right_only_without_deaths_hangs_and_large_processes() -> None:
    alive = {1: Process("ray::ServeReplica:app:Segmenter", 10**6, 10**8, 0)}
    outcome = Outcome("bombs", 1, 413, "413", True, "", 0.1)
    good = Run([outcome], alive, alive, alive, [], True, 1.0, [Repetition("bombs", 1, 0.5)], 0.01)
    assert report(good, 1)[1]
    large = {1: replace(alive[1], peak_bytes=2 * 10**9)}
    for bad in (
        replace(good, ended={2: alive[1]}),
        replace(good, ended=large),
        replace(good, left_files=["a"]),
        replace(good, healthy=False),
        replace(good, slowest=[Repetition("bombs", 1, 5.1)]),
        replace(good, idle_cpu_share=1.0),
        replace(good, outcomes=[replace(outcome, status=500, right=False)]),
    ):
        assert not report(bad, 1)[1]
