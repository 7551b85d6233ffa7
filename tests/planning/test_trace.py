"""Reading, writing and making traces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.core.errors import TraceError
from serve_app.planning.generation import DAY_S, generate, parse_generation
from serve_app.planning.trace import Trace, make_trace, read_trace, write_trace

MILLISECONDS = st.integers(0, 10**8)


def read(text: str, folder: Path) -> Trace:
    path = folder / "trace.csv"
    path.write_text(text, encoding="utf-8")
    return read_trace(path)


@given(rows=st.lists(st.tuples(MILLISECONDS, MILLISECONDS, st.sampled_from("abc")), min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_written_value_is_read_back(rows: list[tuple[int, int, str]], tmp_path: Path) -> None:
    rows.sort(key=lambda row: row[0])
    keys = sorted({key for _, _, key in rows})
    trace = Trace(
        np.array([arrival / 1000 for arrival, _, _ in rows]),
        np.array([(audio + 1) / 1000 for _, audio, _ in rows]),
        np.array([keys.index(key) for _, _, key in rows], np.int32),
        tuple(keys),
        tuple(float(index + 1) for index in range(len(keys))),
    )
    path = tmp_path / "trace.csv"
    write_trace(trace, path)
    back = read_trace(path)
    assert back.arrival_s.tolist() == trace.arrival_s.tolist()
    assert back.audio_s.tolist() == trace.audio_s.tolist()
    named = [(back.keys[index], back.weights[index]) for index in back.key_index]
    assert named == [(keys[index], trace.weights[index]) for index in trace.key_index]


@given(text=st.text(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_is_a_trace_or_one_clear_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(text.encode("utf-8", "replace"))
    try:
        trace = read_trace(path)
    except TraceError as error:
        message = str(error)
    else:
        message = "trace.csv"
        assert (trace.audio_s > 0).all()
        assert (np.diff(trace.arrival_s) >= 0).all()
    assert "trace.csv" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,1\n2,x\n", "line 2: audio_s is not a number: 'x'"),
        ("0,1\n\n# note\n-1,3\n", "line 4: arrival_s must not be negative, got -1"),
        ("0,0\n", "line 1: audio_s must be positive, got 0"),
        ("0,nan\n", "line 1: audio_s is not finite: 'nan'"),
        ("0\n", "line 1: 1 columns; expected arrival_s,audio_s,key,weight"),
        ("0,1,a,0\n", "line 1: weight must be positive, got 0"),
        ("arrival_s,length\n", "line 1: unknown column 'length'"),
        ("arrival_s,key\n0,a\n", "line 1: needs the columns arrival_s and audio_s"),
        ("arrival_s,audio_s\n", "no requests in it"),
        ("", "no requests in it"),
    ],
)
def test_a_bad_line_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(TraceError) as caught:
        read(text, tmp_path)
    assert message in str(caught.value)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"none\.csv"):
        read_trace(tmp_path / "none.csv")


def test_columns_may_come_in_any_order(tmp_path: Path) -> None:
    trace = read("key,audio_s,arrival_s\nx,5,7\n", tmp_path)
    assert (trace.arrival_s[0], trace.audio_s[0], trace.keys) == (7.0, 5.0, ("x",))


def test_lines_need_not_be_sorted(tmp_path: Path) -> None:
    assert read("9,1\n3,2\n", tmp_path).audio_s.tolist() == [2.0, 1.0]


def test_the_busiest_stretch_is_the_one_with_most_audio() -> None:
    trace = make_trace([0.0, 10.0, 50.0, 55.0, 100.0], [9.0, 1.0, 6.0, 6.0, 1.0])
    assert trace.busiest(10.0) == (50.0, 60.0)
    assert trace.between(50.0, 60.0).arrival_s.tolist() == [0.0, 5.0]


@given(seed=st.integers(0, 50), hours=st.floats(1.0, 2000.0))
@settings(max_examples=20, deadline=None)
def test_a_generated_day_has_the_requested_audio(seed: int, hours: float) -> None:
    trace = generate(parse_generation(f"day:{hours:.2f}h"), seed)
    assert hours - 0.01 <= trace.audio_hours <= hours + 3.01
    assert 0 <= trace.arrival_s[0] <= trace.arrival_s[-1] <= DAY_S
    assert trace.audio_s.min() >= 3.0


def test_a_generated_day_is_busier_in_the_afternoon_than_at_night() -> None:
    trace = generate(parse_generation("day:5000h"), 1)
    hours = (trace.arrival_s / 3600).astype(int)
    assert (hours == 14).sum() > 3 * (hours == 2).sum()


def test_the_same_seed_generates_the_same_trace() -> None:
    wanted = parse_generation("day:50h")
    assert generate(wanted, 3).audio_s.tolist() == generate(wanted, 3).audio_s.tolist()
    assert generate(wanted, 3).audio_s.tolist() != generate(wanted, 4).audio_s.tolist()


@pytest.mark.parametrize("text", ["day", "day:0h", "night:3h", "day:3h/2h", "poisson:2h/0h"])
def test_load_that_cannot_be_generated_is_refused(text: str) -> None:
    with pytest.raises(TraceError):
        parse_generation(text)
