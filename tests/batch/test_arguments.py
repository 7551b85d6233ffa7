from __future__ import annotations

import pytest

from serve_app.batch.arguments import JobPaths, find_job_paths


@pytest.mark.parametrize(
    "command",
    [
        "python -m serve_app.batch s3://b/in /out",
        "/opt/venv/bin/python3 -u -m serve_app.batch --profile paraformer-large s3://b/in /out",
        "cd /app && HF_HUB_OFFLINE=1 python -m serve_app.batch s3://b/in --itn /out && echo done",
        "python -m serve_app.batch s3://b/in /out --set batch.itn=true 2>&1 | tee log",
        "python -m serve_app.batch s3://b/in --option-of-tomorrow /out; exit 0",
        "python -m serve_app.batch 's3://b/in' \"/out\" --no-accept-failures",
    ],
)
def test_places_are_found_in_a_command(command: str) -> None:
    assert find_job_paths(command) == JobPaths("s3://b/in", "/out")


def test_places_with_spaces_and_signs_are_whole() -> None:
    command = "python -m serve_app.batch '/in put/a#1.jsonl' 's3://b/o;ut'"
    assert find_job_paths(command) == JobPaths("/in put/a#1.jsonl", "s3://b/o;ut")


@pytest.mark.parametrize(
    "command",
    [
        "python train.py",
        "python -m serve_app.batch --help",
        "python -m serve_app.batch only-a-source",
        "python -m serve_app.batch in out --stages sing",
        "python -m serve_app.batch 'in out",
        "echo serve_app.batch in out",
        "",
    ],
)
def test_other_commands_have_none(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert find_job_paths(command) is None
    assert capsys.readouterr() == ("", "")
