"""Log lines of replicas."""

from __future__ import annotations

import json

import pytest

from serve_app.ops.dashboard import Dashboard
from serve_app.ops.json_view import JsonView
from serve_app.ops.logs import LogFile, matches, new_lines, read_logs, replica_logs
from tests.fakes.recorded_kube import CORE, RecordedKube

APPLICATIONS = {
    "paraserve": {
        "deployments": {
            "Recognizer": {
                "replicas": [
                    {"replica_id": "r1", "node_id": "n1", "log_file_path": "/serve/r1.log"},
                    {"replica_id": "r2", "node_id": "n2", "log_file_path": None},
                ],
                "recent_dead_replicas": [
                    {"replica_id": "r0", "node_id": "n1", "log_file_path": "/serve/r0.log"}
                ],
            },
            "Ingress": {
                "replicas": [
                    {"replica_id": "i1", "node_id": "n1", "log_file_path": "/serve/i1.log"}
                ]
            },
        }
    }
}


def test_files_of_a_stage_include_the_dead() -> None:
    files = replica_logs(JsonView(APPLICATIONS), "Recognizer")
    assert [file.source for file in files] == ["Recognizer/r1", "Recognizer/r0"]


def test_files_of_all_stages() -> None:
    assert len(replica_logs(JsonView(APPLICATIONS), None)) == 3


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (json.dumps({"paraserve_request_id": "abc"}), True),
        (json.dumps({"request_id": "abc"}), True),
        (json.dumps({"request_id": "abcd"}), False),
        (json.dumps({"request_id": "x", "message": "after abc"}), False),
        (json.dumps({"message": "abc was retried"}), True),
        ("Traceback of abc", True),
        ("something else", False),
    ],
)
def test_lines_are_chosen_by_request(line: str, expected: bool) -> None:
    assert matches(line, "abc") is expected


def test_every_line_matches_no_request() -> None:
    assert matches("anything", None)


@pytest.mark.parametrize(
    ("seen", "tail", "expected"),
    [
        ([], ["a", "b"], ["a", "b"]),
        (["a", "b"], ["a", "b"], []),
        (["a", "b"], ["b", "c"], ["c"]),
        (["a", "b"], ["x", "y"], ["x", "y"]),
        (["a", "a"], ["a", "a", "a"], ["a"]),
    ],
)
def test_only_new_lines_are_shown(seen: list[str], tail: list[str], expected: list[str]) -> None:
    assert list(new_lines(seen, tail)) == expected


def test_following_logs_continues_and_includes_new_replicas() -> None:
    base = f"{CORE}/services/http:head:8265/proxy/api/v0/logs/file"
    first = "node_id=n1&filename=serve%2Fr1.log&lines=10&filter_ansi_code=true"
    second = "node_id=n2&filename=serve%2Fr2.log&lines=10&filter_ansi_code=true"
    kube = RecordedKube({f"{base}?{first}": "a\nb\n", f"{base}?{second}": "z\n"})
    files = [LogFile("r1", "n1", "/serve/r1.log")]

    def more(duration_s: float) -> None:
        kube.answers[f"{base}?{first}"] = "a\nb\nc\n"
        files.append(LogFile("r2", "n2", "/serve/r2.log"))

    dashboard = Dashboard(kube, "head", None, "")
    entries = read_logs(dashboard, lambda: files, 10, follow=True, pause=more)
    found = [next(entries) for _ in range(4)]
    assert found == [("r1", "a"), ("r1", "b"), ("r1", "c"), ("r2", "z")]
