"""The cases of `loadtests.uploads`, without a service."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from loadtests.harness.report import Report
from loadtests.uploads.__main__ import Process, Run, judge
from loadtests.uploads.bodies import BODIES, RawRequest, fields, form, in_chunks
from loadtests.uploads.cases import Answer, Outcome, fits, is_complete, joined
from loadtests.uploads.files import CONTAINERS, FILES, bomb, valid_file
from serve_app.audio import AudioDecoder, AudioLimits
from tests.loadtests.conftest import kept


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
    assert joined(in_chunks(body, random.Random(1))) == body


def test_answer_is_complete_once_all_declared_bytes_arrived() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    assert not is_complete(head + b"a")
    assert is_complete(head + b"ab")
    assert not is_complete(head[:-3])


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


ALIVE = {1: Process("ray::ServeReplica:app:Segmenter", 10**6, 10**8, 0)}
OUTCOME = Outcome("bombs", 1, 413, "413", True, "", 0.1)
GOOD = Run([OUTCOME], ALIVE, ALIVE, ALIVE, [], True, {"bombs, seed 1": 0.5}, 0.01)


def test_run_without_deaths_hangs_and_large_processes_is_right(report: Report) -> None:
    judge(report, GOOD, 1)
    assert all(kept(report))


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, ended={2: ALIVE[1]}),
        replace(GOOD, ended={1: replace(ALIVE[1], peak_bytes=2 * 10**9)}),
        replace(GOOD, ended={1: replace(ALIVE[1], own_bytes=10**8)}),
        replace(GOOD, ended={1: replace(ALIVE[1], num_spooled=1)}),
        replace(GOOD, left_files=["a"]),
        replace(GOOD, healthy=False),
        replace(GOOD, cpu_s={"bombs, seed 1": 5.1}),
        replace(GOOD, idle_cpu_share=1.0),
        replace(GOOD, outcomes=[]),
        replace(GOOD, outcomes=[replace(OUTCOME, right=False)]),
    ],
)
def test_each_of_them_breaks_a_promise(bad: Run, report: Report) -> None:
    judge(report, bad, 1)
    assert kept(report).count(False) == 1


def test_server_error_is_no_right_answer(report: Report) -> None:
    judge(report, replace(GOOD, outcomes=[replace(OUTCOME, status=500, right=False)]), 1)
    assert kept(report).count(False) == 2
