"""`python -m loadtests bench COMMAND`: runs a comparison and writes its tables."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

from loadtests.bench.options import DEMO_AUDIO, Options, pack_name
from loadtests.bench.tables import Comparison

COMMANDS = {
    "engine": "the recognizer alone against AutoModel and funasr-onnx",
    "stages": "from bytes to text on one core against AutoModel, and where the time goes",
    "loading": "time and memory of imports and loading, cost of a second replica",
    "growth": "recognizers side by side, and recordings at a time in one process",
    "length": "time and peak memory as recordings grow",
    "overhead": "the Serve graph against the same stages in one process",
}


def main() -> int:
    arguments = _parser().parse_args()
    options = Options(
        pack=pack_name(arguments.pack),
        punctuation_pack=pack_name(arguments.punctuation_pack),
        vad_pack=pack_name(arguments.vad_pack),
        audio=arguments.audio,
        seconds=arguments.seconds,
        repeats=arguments.repeats,
        max_minutes=arguments.max_minutes,
        batch_size=arguments.batch_size,
        scratch=str(Path(tempfile.gettempdir()) / "paraserve-bench"),
    )
    command = "python -m loadtests bench " + " ".join(sys.argv[1:])
    module = importlib.import_module(f"loadtests.bench.{arguments.command}")
    comparison: Comparison = module.compare(options, command)
    print(comparison.text())
    for path in comparison.write(arguments.out):
        print(f"wrote {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:8} {what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m loadtests bench",
        description=f"Compares Paraserve with FunASR's runtimes.\n\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("command", choices=COMMANDS, metavar="COMMAND")
    add("--pack", default="paraformer-demo", help="recognizer: a name or a directory")
    add("--punctuation-pack", default="ct-punc-demo", help="likewise")
    add("--vad-pack", default="fsmn-vad", help="likewise")
    add("--audio", default=DEMO_AUDIO, help="demo, real, or a file of 16 kHz mono")
    add("--seconds", type=float, default=180.0, help="audio, repeated until that long")
    add("--repeats", type=int, default=5, help="runs of each peer")
    add("--max-minutes", type=float, default=60.0, help="longest recording of `length`")
    add("--batch-size", type=int, default=4, help="AutoModel's where it batches")
    add("--out", type=Path, default=Path("bench-results"), help="directory for the tables")
    return parser


if __name__ == "__main__":
    sys.exit(main())
