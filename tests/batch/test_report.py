from __future__ import annotations

import builtins
import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from serve_app.batch.attempts import Attempt
from serve_app.batch.outputs import OutputStore
from serve_app.batch.report import describe_report, read_report, report_of, write_report
from serve_app.batch.report_data import BatchReport, build_report
from serve_app.core.errors import ConfigurationError
from tests.batch.recordings import failure, recording

ATTEMPTS = (
    Attempt(1, "c", 0.0, wall_s=6.0, num_finished=1, recognized_s=6.0),
    Attempt(
        2, "c", 9.0, wall_s=2.0, end="completed", num_finished=1, num_failed=1,
        recognized_s=4.0, useful_frames=90, computed_frames=100,
    ),
)  # fmt: skip
EVIL = "<script>alert('x')</script>&\"'.wav"


@pytest.fixture
def store(tmp_path: Path) -> OutputStore:
    store = OutputStore(str(tmp_path))
    store.write(recording("a.wav", reference="你好世界"))
    store.write(recording(EVIL, reference="你好世纪", failed=True))
    store.write(recording("stale.wav", fingerprint="old"))
    store.write(recording("other-job.wav"))
    store.write_failure(failure("bad.wav", reason="<img src=x onerror=alert(1)>"))
    return store


@pytest.fixture
def report(store: OutputStore) -> BatchReport:
    ids = ["a.wav", EVIL, "stale.wav", "bad.wav"]
    return report_of(store, ids, ATTEMPTS, dict.fromkeys(ids, "f1"))


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_recording_of_the_job_is_counted_once(report: BatchReport) -> None:
    totals = report.totals
    assert (totals.num_recordings, totals.num_finished, totals.num_partial) == (4, 2, 1)
    assert (totals.num_failed, totals.num_missing) == (1, 1)
    assert (totals.audio_s, totals.wall_s, totals.rtfx) == (16.0, 8.0, 2.0)


def test_shares_and_ratios_are_of_what_was_measured(report: BatchReport) -> None:
    assert report.stages.shares() == pytest.approx(
        {"segment": 0.5 / 2.25, "recognize": 1.5 / 2.25, "punctuate": 0.25 / 2.25}
    )
    assert report.padding_ratio == pytest.approx(0.1)
    assert report.wasted.wasted_s == pytest.approx(2.0)


def test_cer_is_of_all_references_together(report: BatchReport) -> None:
    assert report.accuracy is not None
    assert report.accuracy.cer == pytest.approx(1 / 8)
    assert [each.id for each in report.accuracy.worst] == [EVIL]


def test_empty_job_has_a_report(tmp_path: Path) -> None:
    store = OutputStore(str(tmp_path))
    empty = build_report([], [], [], [])
    write_report(empty, store)
    assert empty.accuracy is None
    assert "0 of 0 recordings finished" in describe_report(read_report(str(tmp_path)))


def test_page_runs_and_loads_nothing(store: OutputStore, report: BatchReport) -> None:
    write_report(report, store)
    page = Elements()
    page.feed((store.files.read("report.html") or b"").decode())
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.found}
    images = [attributes for tag, attributes in page.found if tag == "img"]
    assert len(images) == 1
    assert str(images[0]["src"]).startswith("data:image/png;base64,")
    assert not any(name.startswith("on") for _, names in page.found for name in names)
    assert EVIL in page.text
    assert "corrupt_audio" in page.text


def test_picture_is_a_png(store: OutputStore, report: BatchReport) -> None:
    write_report(report, store)
    assert (store.files.read("report.png") or b"").startswith(b"\x89PNG")


def test_report_without_matplotlib_is_refused_with_the_reason(
    store: OutputStore, report: BatchReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def importing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", importing)
    write_report(report, store)
    assert store.files.read("report.png") is None
    assert b"Matplotlib is not installed" in (store.files.read("report.html") or b"")


def test_json_has_the_figures_with_units_in_their_names(
    store: OutputStore, report: BatchReport, tmp_path: Path
) -> None:
    write_report(report, store)
    content: Mapping[str, Any] = read_report(str(tmp_path))
    assert content["totals"]["audio_s"] == 16.0
    assert content["wasted_work"]["wasted_s"] == pytest.approx(2.0)
    assert content["accuracy"]["cer"] == pytest.approx(0.125)
    assert content["failures_by_kind"] == {"corrupt_audio": 1}
    assert [each["end"] for each in content["attempts"]] == ["running", "completed"]
    assert "pw@" not in json.dumps(content)


def test_description_tells_the_outcome_in_a_few_lines(
    store: OutputStore, report: BatchReport, tmp_path: Path
) -> None:
    write_report(report, store)
    lines = describe_report(read_report(str(tmp_path))).splitlines()
    assert lines[0] == "2 of 4 recordings finished (1 partial), 1 failed, 1 not done yet"
    assert "CER: 12.50% over 2 references" in lines
    assert "failed, corrupt_audio: 1" in lines


def test_missing_report_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"has no report\.json"):
        read_report(str(tmp_path))


def test_page_shows_failures_first_and_links_to_transcripts(
    store: OutputStore, report: BatchReport
) -> None:
    write_report(report, store)
    content = (store.files.read("report.html") or b"").decode()
    assert content.index("Failures") < content.index("Slowest") < content.index("Attempts")
    page = Elements()
    page.feed(content)
    links = [str(attributes["href"]) for tag, attributes in page.found if tag == "a"]
    assert "transcripts/a.wav.json" in links
    assert all(store.files.read(unquote(link), 1) is not None for link in links)


def test_folders_have_their_own_totals(tmp_path: Path) -> None:
    store = OutputStore(str(tmp_path))
    for name in ("north/a/1.wav", "north/a/2.wav", "south/3.wav"):
        store.write(recording(name, reference="你好世界"))
    store.write_failure(failure("south/4.wav"))
    ids = ["north/a/1.wav", "north/a/2.wav", "south/3.wav", "south/4.wav"]
    north, south = report_of(store, ids, ATTEMPTS).folders
    assert (north.folder, north.num_recordings, north.num_failed) == ("north/a", 2, 0)
    assert (south.folder, south.num_recordings, south.num_failed) == ("south", 2, 1)
    assert (north.audio_s, south.audio_s, south.cer) == (16.0, 8.0, 0.0)
