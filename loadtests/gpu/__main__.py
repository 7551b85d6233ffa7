"""`python -m loadtests gpu compare`: compares Paraserve with FunASR's AutoModel on one GPU."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import torch

from loadtests.bench.options import open_named, pack_name
from loadtests.gpu.engines import find_speech
from loadtests.gpu.options import Trial
from loadtests.gpu.pipeline import compare_pipelines
from loadtests.gpu.recognizer import compare_recognizers
from loadtests.gpu.sharing import compare_sharing
from loadtests.harness.report import Report, parse, parser
from serve_app.core.records import SAMPLE_RATE_HZ
from serve_app.engines.fsmn_vad.engine import FsmnVad

NO_DEVICE = 2


def main(given: Sequence[str] | None = None) -> int:
    options = parse(_parser(), given)
    if options.device != "cpu" and not torch.cuda.is_available():
        print(
            "no CUDA device: PyTorch "
            f"{torch.__version__} finds none on this machine. Run this where there is one, or "
            "try the command itself with --device cpu, which measures nothing of interest.",
            file=sys.stderr,
        )
        return NO_DEVICE
    with Report("gpu", options) as report:
        compare(_trial(options), report)
    return report.exit_code


def compare(options: Trial, report: Report) -> None:
    """Runs everything; each table grows as its results come."""
    report.machine = f"{options.device_name}; {report.machine}"
    recordings = options.recordings()
    vad = FsmnVad(open_named(options.vad_pack))
    # The audio repeats, so that one stretch of it is searched for speech.
    stretch = recordings[: max(1, min(len(recordings), 4))]
    found = [pcm[start:end] for pcm in stretch for start, end in find_speech(vad, pcm)]
    times = max(1, len(recordings) // len(stretch))
    # Sharing comes first, while this process holds nothing on the device.
    compare_sharing(options, sum(map(len, recordings)) / SAMPLE_RATE_HZ, report)
    compare_recognizers(options, found * times, report)
    compare_pipelines(options, recordings, report)
    report.bars(
        *(
            (title, [row[0] for row in table.rows], [row[3] for row in table.rows])
            for title, table in zip(
                ("seconds of speech a second", "seconds of audio a second"),
                report.tables[1:],
                strict=True,
            )
        )
    )


def _trial(options: argparse.Namespace) -> Trial:
    return Trial(
        pack=pack_name(options.pack),
        punctuation_pack=pack_name(options.punctuation_pack),
        vad_pack=pack_name(options.vad_pack),
        audio=options.audio,
        seconds=options.seconds,
        recording_s=options.recording_seconds,
        repeats=options.repeats,
        device=options.device,
        max_batch_frames=options.max_batch_frames,
        max_batch_words=options.max_batch_words,
        vad_processes=options.vad_processes or max(1, len(os.sched_getaffinity(0)) - 1),
        batch_sizes=tuple(options.batch_sizes),
        batch_sizes_s=tuple(options.batch_sizes_s),
        peers=not options.no_peers,
    )


def _parser() -> argparse.ArgumentParser:
    made = parser("gpu", __doc__)
    standard, add = Trial(), made.add_argument
    add("command", choices=("compare",), help="runs all of it")
    add("--pack", default=standard.pack, help="recognizer: a name or a directory")
    add("--punctuation-pack", default=standard.punctuation_pack, help="likewise")
    add("--vad-pack", default=standard.vad_pack, help="likewise")
    add("--audio", default=standard.audio, help="demo, real, or a file of 16 kHz mono")
    add("--seconds", type=float, default=standard.seconds, help="audio, repeated until that long")
    add("--recording-seconds", type=float, default=300.0, help="length of one recording")
    add("--repeats", type=int, default=standard.repeats, help="runs of each peer")
    add("--device", default=standard.device, help="cuda, cuda:N, or cpu for a trial")
    add("--max-batch-frames", type=int, default=20_000, help="budget of our batches")
    add("--max-batch-words", type=int, default=20_000, help="likewise, of punctuation")
    add("--vad-processes", type=int, default=0, help="0: one a core, but one")
    sizes = ("--batch-sizes", standard.batch_sizes), ("--batch-sizes-s", standard.batch_sizes_s)
    for name, default in sizes:
        add(name, type=int, nargs="+", default=default, help="AutoModel's, which are tried")
    add("--no-peers", action="store_true", help="leave AutoModel out")
    return made


if __name__ == "__main__":
    sys.exit(main())
