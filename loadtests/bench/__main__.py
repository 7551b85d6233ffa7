"""`python -m loadtests bench COMMAND`: compares Paraserve with FunASR's runtimes."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from loadtests.bench.options import DEMO_AUDIO, Options, pack_name
from loadtests.harness.report import Report, parse, parser

COMMANDS = {
    "engine": "the recognizer alone against AutoModel and funasr-onnx",
    "voices": "the speaker model alone against FunASR's CAMPPlus",
    "labels": "the whole pipeline with and without speaker labels",
    "stages": "from bytes to text on one core against AutoModel, and where the time goes",
    "loading": "time and memory of imports and loading, cost of a second replica",
    "growth": "recognizers side by side, and recordings at a time in one process",
    "length": "time and peak memory as recordings grow",
    "overhead": "the Serve graph against the same stages in one process",
}


def main(given: Sequence[str] | None = None) -> int:
    listed = "\n".join(f"  {name:8} {what}" for name, what in COMMANDS.items())
    made = parser("bench", f"Compares Paraserve with FunASR's runtimes.\n\n{listed}")
    add = made.add_argument
    add("command", choices=COMMANDS, metavar="COMMAND")
    add("--pack", default="paraformer-demo", help="recognizer: a name or a directory")
    add("--punctuation-pack", default="ct-punc-demo", help="likewise")
    add("--vad-pack", default="fsmn-vad", help="likewise")
    add("--speaker-pack", default="campplus-zh-en", help="likewise")
    add("--audio", default=DEMO_AUDIO, help="demo, real, or a file of 16 kHz mono")
    add("--seconds", type=float, default=180.0, help="audio, repeated until that long")
    add("--repeats", type=int, default=5, help="runs of each peer")
    add("--max-minutes", type=float, default=60.0, help="longest recording of `length`")
    add("--batch-size", type=int, default=4, help="AutoModel's where it batches")
    given_options = parse(made, given)
    options = Options(
        pack=pack_name(given_options.pack),
        punctuation_pack=pack_name(given_options.punctuation_pack),
        vad_pack=pack_name(given_options.vad_pack),
        speaker_pack=pack_name(given_options.speaker_pack),
        audio=given_options.audio,
        seconds=given_options.seconds,
        repeats=given_options.repeats,
        max_minutes=given_options.max_minutes,
        batch_size=given_options.batch_size,
        scratch=str(Path(tempfile.gettempdir()) / "paraserve-bench"),
    )
    with Report(given_options.command, given_options) as report:
        importlib.import_module(f"loadtests.bench.{given_options.command}").compare(options, report)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
