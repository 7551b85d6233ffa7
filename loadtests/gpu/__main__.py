"""`python -m loadtests gpu compare`: runs the GPU comparison and writes its tables."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from loadtests.bench.options import DEMO_AUDIO, open_named, pack_name
from loadtests.bench.tables import Comparison
from loadtests.gpu.options import Trial
from loadtests.gpu.pipeline import compare_pipelines
from loadtests.gpu.recognizer import compare_recognizers
from loadtests.gpu.sharing import audio_seconds, compare_sharing
from loadtests.gpu.speech import find_speech
from serve_app.engines.fsmn_vad.engine import FsmnVad

NO_DEVICE = 2


def main(given: list[str] | None = None) -> int:
    arguments = _parser().parse_args(given)
    on_gpu = arguments.device != "cpu"
    if on_gpu and not torch.cuda.is_available():
        print(
            "no CUDA device: PyTorch "
            f"{torch.__version__} finds none on this machine. Run this where there is one, or "
            "try the command itself with --device cpu, which measures nothing of interest.",
            file=sys.stderr,
        )
        return NO_DEVICE
    options = _options(arguments)
    command = "python -m loadtests gpu " + " ".join(sys.argv[1:] if given is None else given)
    for path in compare(options, command).write(arguments.out):
        print(f"wrote {path}")
    return 0


def compare(options: Trial, command: str) -> Comparison:
    """Runs everything; prints each table as soon as it is there."""
    where = options.where()
    recordings = options.recordings()
    vad = FsmnVad(open_named(options.vad_pack))
    # The audio repeats, so that one stretch of it is searched for speech.
    stretch = recordings[: max(1, min(len(recordings), 4))]
    found = [pcm[start:end] for pcm in stretch for start, end in find_speech(vad, pcm)]
    times = max(1, len(recordings) // len(stretch))
    # Sharing comes first, while this process holds nothing on the device.
    shared = compare_sharing(options, audio_seconds(recordings))
    print(shared.text(), end="\n\n", flush=True)
    alone, alone_chart = compare_recognizers(options, found * times)
    print(alone.text(), end="\n\n", flush=True)
    whole, whole_chart = compare_pipelines(options, recordings)
    print(whole.text(), end="\n\n", flush=True)
    tables = (alone, whole, shared)
    return Comparison("gpu", command, where, tables, (alone_chart, whole_chart))


def _options(arguments: argparse.Namespace) -> Trial:
    cores = len(os.sched_getaffinity(0))
    return Trial(
        pack=pack_name(arguments.pack),
        punctuation_pack=pack_name(arguments.punctuation_pack),
        vad_pack=pack_name(arguments.vad_pack),
        audio=arguments.audio,
        seconds=arguments.seconds,
        recording_s=arguments.recording_seconds,
        repeats=arguments.repeats,
        device=arguments.device,
        max_batch_frames=arguments.max_batch_frames,
        max_batch_words=arguments.max_batch_words,
        vad_processes=arguments.vad_processes or max(1, cores - 1),
        batch_sizes=tuple(arguments.batch_sizes),
        batch_sizes_s=tuple(arguments.batch_sizes_s),
        peers=not arguments.no_peers,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests gpu",
        description="Compares Paraserve with FunASR's AutoModel on one GPU.",
    )
    add = parser.add_argument
    add("command", choices=("compare",), help="runs all of it")
    add("--pack", default="paraformer-demo", help="recognizer: a name or a directory")
    add("--punctuation-pack", default="ct-punc-demo", help="likewise")
    add("--vad-pack", default="fsmn-vad", help="likewise")
    add("--audio", default=DEMO_AUDIO, help="demo, real, or a file of 16 kHz mono")
    add("--seconds", type=float, default=3600.0, help="audio, repeated until that long")
    add("--recording-seconds", type=float, default=300.0, help="length of one recording")
    add("--repeats", type=int, default=5, help="runs of each peer")
    add("--device", default="cuda", help="cuda, cuda:N, or cpu for a trial")
    add("--max-batch-frames", type=int, default=20_000, help="budget of our batches")
    add("--max-batch-words", type=int, default=20_000, help="likewise, of punctuation")
    add("--vad-processes", type=int, default=0, help="0: one a core, but one")
    add("--batch-sizes", type=int, nargs="+", default=[1, 8, 32, 64, 128], help="AutoModel's")
    add("--batch-sizes-s", type=int, nargs="+", default=[60, 300, 1000, 3000], help="AutoModel's")
    add("--no-peers", action="store_true", help="leave AutoModel out")
    add("--out", type=Path, default=Path("bench-results"), help="directory for the tables")
    return parser


if __name__ == "__main__":
    sys.exit(main())
