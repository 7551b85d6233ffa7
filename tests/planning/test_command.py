"""`paraserve plan`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serve_app.cli.main import app
from serve_app.core.errors import TraceError
from serve_app.planning.report import check_plotting

RUNNER = CliRunner()


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_plan_answers_for_a_trace(tmp_path: Path) -> None:
    trace = write(
        tmp_path / "trace.csv", "\n".join(f"{second},60,team{second % 3}" for second in range(120))
    )
    arguments = ["plan", str(trace), "--p95-s", "5", "--out", str(tmp_path), "--price", "2"]
    result = RUNNER.invoke(app, [*arguments, "--no-plots"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "assumed, not measured" in result.output
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["fixed"]["met"]
    assert plan["fixed"]["gpus_at_peak"] == 1
    assert plan["fixed"]["cost"] == pytest.approx(plan["fixed"]["gpu_hours"] * 2)
    assert plan["fixed"]["num_answered"] == 120
    assert plan["costs"]["assumed"]


def test_pictures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    arguments = ["plan", "--generate", "poisson:2h/0.1h", "--no-autoscale", "-o", str(tmp_path)]
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "plan-fixed.png").stat().st_size > 10_000


def test_a_generated_trace_can_be_kept(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    made = RUNNER.invoke(app, ["plan", "--generate", "day:20h", "--save-trace", str(path)])
    assert made.exit_code == 0
    assert path.read_text().startswith("arrival_s,audio_s,key,weight\n")


def test_a_bad_trace_names_its_line(tmp_path: Path) -> None:
    trace = write(tmp_path / "trace.csv", "0,5\n1,long\n")
    result = RUNNER.invoke(app, ["plan", str(trace)])
    assert isinstance(result.exception, TraceError)
    assert "trace.csv line 2" in str(result.exception)


def test_neither_trace_nor_generation_is_an_error() -> None:
    result = RUNNER.invoke(app, ["plan"])
    assert "either a trace file or --generate" in str(result.exception)


def test_missing_matplotlib_is_reported_before_the_simulation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(Exception, match="Matplotlib"):
        check_plotting()
