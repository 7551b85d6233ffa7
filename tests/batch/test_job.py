"""Whole jobs on a small cluster of one machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from loadtests.serving import environment_without_cluster
from serve_app.batch.job import BatchJob, JobOrder, job_settings
from serve_app.batch.pending import Work
from serve_app.batch.progress import Snapshot
from serve_app.batch.punctuate_stage import Failed, Finished
from serve_app.batch.ray_data import OwnActors
from serve_app.batch.recognize_stage import RecognizeChunks
from serve_app.batch.records import BatchItem
from serve_app.cli.serve import demo_recording
from serve_app.core.errors import ConfigurationError
from serve_app.core.ports import Recognizer
from serve_app.core.records import Pcm
from serve_app.inference.loading import load_recognizer
from serve_app.inference.local import LocalTranscriber
from serve_app.settings import Settings
from serve_app.transcript.fanout import POISON
from serve_app.transcript.transcript import collect
from tests.fakes.faulty_recognizer import DEADLY, FaultyEngine, marked
from tests.waiting import LIMIT_S, wait_until

# Ray Data 2.60 sets options of its own that it has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`use_\\w+` is deprecated:DeprecationWarning")

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def speech() -> Pcm:
    samples, _ = soundfile.read(demo_recording().path, dtype="int16")
    return np.asarray(samples, np.int16)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, speech: Pcm) -> Path:
    directory = tmp_path_factory.mktemp("source")
    for i, length_s in enumerate((3, 5, 8, 20)):
        soundfile.write(directory / f"{i}.flac", speech[: length_s * RATE_HZ], RATE_HZ)
    soundfile.write(directory / "silence.flac", np.zeros(RATE_HZ * 3, np.int16), RATE_HZ)
    (directory / "bad.flac").write_bytes(b"this is no recording")
    return directory


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="module")
def done(cluster: None, settings: Settings, source: Path, output: Path) -> Any:
    order = JobOrder(str(source), str(output), formats=("srt", "txt"))
    return BatchJob(settings, order, lambda line: None).run()


def documents(output: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in output.glob("transcripts/*.json")]
    return {document["id"]: document for document in found}


@pytest.mark.ray
async def test_texts_are_those_of_the_pipeline_without_ray(
    done: Any, settings: Settings, source: Path, output: Path
) -> None:
    found = documents(output)
    assert sorted(found) == ["0.flac", "1.flac", "2.flac", "3.flac", "silence.flac"]
    async with LocalTranscriber(settings) as transcriber:
        for name, document in found.items():
            audio = np.fromfile(source / name, np.uint8)
            stages = frozenset(settings.stages)
            transcript = await collect(transcriber.transcribe(audio, stages, name))
            assert document["text"] == transcript.text
            assert len(document["words"]) == len(list(transcript.words()))


@pytest.mark.ray
def test_other_formats_are_beside_the_documents(done: Any, output: Path) -> None:
    for suffix in ("srt", "txt"):
        assert len(list(output.glob(f"transcripts/*.{suffix}"))) == 5


@pytest.mark.ray
def test_bad_file_has_its_line_and_the_rest_is_done(done: Any, output: Path) -> None:
    (line,) = (output / "failures.jsonl").read_text().splitlines()
    failure = json.loads(line)
    assert (failure["id"], failure["kind"]) == ("bad.flac", "unknown_audio_format")
    assert (done.totals.num_finished, done.totals.num_failed) == (5, 1)


@pytest.mark.ray
def test_same_command_again_does_nothing_again(
    done: Any, settings: Settings, source: Path, output: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in output.glob("transcripts/*")}
    leftover = output / "transcripts" / ".part-of-one-that-died"
    leftover.write_bytes(b"{")
    os.utime(leftover, (0, time.time() - 60))
    shown: list[Snapshot] = []
    order = JobOrder(str(source), str(output), formats=("srt", "txt"))
    report = BatchJob(settings, order, shown.append).run()
    assert {path: path.stat().st_mtime_ns for path in output.glob("transcripts/*")} == before
    assert (report.totals.num_finished, report.totals.num_failed) == (5, 1)
    last = shown[-1]
    assert (last.state, last.done, last.failed) == ("done", 5, 1)
    assert last.computed_audio_h == 0
    assert not leftover.exists()


class DeadlyRecognizer(RecognizeChunks):
    """Ends its process over a marked chunk."""

    @staticmethod
    def load(settings: Settings) -> Recognizer:
        trace = Path(os.environ.get("TMPDIR", "/tmp")) / "paraserve-batch.trace"
        return FaultyEngine(load_recognizer(settings).engine, trace)


def works(directory: Path, names: Sequence[str]) -> list[Work]:
    return [
        Work(BatchItem(name, str(directory / name)), name, frozenset({"asr", "vad"}), 1000)
        for name in names
    ]


@pytest.mark.ray
def test_recording_with_a_chunk_that_kills_fails_alone(
    cluster: None, settings: Settings, speech: Pcm, tmp_path: Path
) -> None:
    names = [f"{i}.flac" for i in range(6)]
    for name in names:
        soundfile.write(tmp_path / name, speech[: 10 * RATE_HZ], RATE_HZ)
    deadly = marked(speech[: 10 * RATE_HZ], DEADLY, 3.0, 1.0)
    soundfile.write(tmp_path / names[2], deadly, RATE_HZ)
    actors = OwnActors(
        job_settings(settings, ("vad", "asr")), str(tmp_path / "out"), (), {}, DeadlyRecognizer
    )
    outcomes = list(actors.outcomes(works(tmp_path, names)))
    failed = [one for one in outcomes if isinstance(one, Failed)]
    finished = [one for one in outcomes if isinstance(one, Finished)]
    assert [(one.number, one.kind) for one in failed] == [(2, POISON)]
    assert sorted(one.number for one in finished) == [0, 1, 3, 4, 5]


def test_stages_that_are_not_deployed_are_refused(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="they must include asr"):
        job_settings(settings, ("vad",))


@pytest.mark.parametrize(("order", "itn"), [(None, True), (False, False), (True, True)])
def test_numbers_are_as_the_order_says_or_else_the_settings(
    settings: Settings, order: bool | None, itn: bool
) -> None:
    batch = settings.batch.model_copy(update={"itn": True})
    found = job_settings(settings.model_copy(update={"batch": batch}), settings.stages, order)
    assert found.batch.itn is itn


def test_gpu_without_a_reservation_is_refused(settings: Settings) -> None:
    recognizer = settings.recognizer.model_copy(update={"device": "cuda"})
    on_gpu = settings.model_copy(update={"recognizer": recognizer})
    with pytest.raises(ConfigurationError, match=r"batch\.recognizers\.num_gpus is 0"):
        job_settings(on_gpu, on_gpu.stages)


@pytest.mark.ray
def test_sigterm_ends_a_job_with_its_state_written(
    tmp_path: Path, speech: Pcm, settings: Settings
) -> None:
    source, output = tmp_path / "source", tmp_path / "output"
    source.mkdir()
    soundfile.write(source / "0.flac", speech[: 20 * RATE_HZ], RATE_HZ)
    for i in range(1, 200):
        os.link(source / "0.flac", source / f"{i}.flac")
    command = [sys.executable, "-m", "serve_app.batch", str(source), str(output)]
    options = ["--set", f"pack_dir={settings.pack_dir}", "--set", "cluster.num_cpus=4"]
    job = subprocess.Popen(
        [*command, *options], env=environment_without_cluster(), stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: bool(documents(output)), "a result", lambda: still_runs(job))
        job.send_signal(signal.SIGTERM)
        wait_until(lambda: progress(output).get("state") == "stopped", lambda: progress(output))
        assert job.wait(LIMIT_S) == 1
    finally:
        job.kill()
        job.wait()
    (attempt,) = [json.loads(each.read_text()) for each in output.glob("_run/attempts/*.json")]
    assert attempt["end"] == "cancelled"
    # What is counted is there, and is not done again.
    assert attempt["num_finished"] <= len(documents(output)) < 200


def still_runs(job: subprocess.Popen[bytes]) -> None:
    assert job.poll() is None, "the job has ended"


def progress(output: Path) -> dict[str, Any]:
    path = output / "_run" / "progress.json"
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content
