"""Does memory stay flat and the text whole when a recording is long?

    python -m loadtests long-audio [--short-min 5] [--long-min 60]

Starts the demo profile on this machine, transcribes a short and a long recording
made of repetitions of the bundled one, and compares the peak resident memory of
every process of the cluster after each: all of it, as the kernel keeps it, and the
part that is the process' own (sampled), without the pages of Ray's shared memory
that every process maps. Exit code 0 if the long transcript is the repetition of the
short one's and no process grew by more than 64 MiB plus the upload.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from loadtests.harness.clips import ClipLibrary
from loadtests.harness.report import Report, mib, parse, parser
from loadtests.harness.watch import Watch, forget_peak, own_processes
from loadtests.serving import add_service_options, own_settings, service
from serve_app.client import Paraserve

_ALLOWED_GROWTH_BYTES = 64 * 2**20
_SAMPLE_S = 0.1


def main(given: Sequence[str] | None = None) -> int:
    made = parser("long-audio", __doc__)
    add_service_options(made)
    made.add_argument("--short-min", type=float, default=5.0)
    made.add_argument("--long-min", type=float, default=60.0)
    options = parse(made, given)
    with (
        tempfile.TemporaryDirectory() as directory,
        service(options.url, own_settings(options.set)) as url,
        Paraserve(url, "", max_retries=0) as client,
        Report("long-audio", options) as report,
    ):
        library = ClipLibrary(Path(directory), dropped_bits=0)
        num_short = max(1, round(options.short_min * 60 / library.part_s))
        num_long = max(num_short + 1, round(options.long_min * 60 / library.part_s))
        report.table("Recordings", ("recording", "minutes", "upload MiB", "wall s", "RTFx"))
        one, _, _ = _measure(client, library, 1, report)
        _measure(client, library, num_short, report)  # warms up
        short, before, _ = _measure(client, library, num_short, report)
        long, after, upload_bytes = _measure(client, library, num_long, report)
        growth = _show_growth(report, before, after)
        report.promise(
            "the text is the concatenation of its parts",
            f"{len(short)} and {len(long)} characters",
            short == one * num_short and long == one * num_long,
        )
        allowed = _ALLOWED_GROWTH_BYTES + upload_bytes
        found = f"{mib(growth)} MiB"
        report.promise(
            f"growth at most 64 MiB and the upload: {mib(allowed)} MiB", found, growth <= allowed
        )
    return report.exit_code


def _measure(
    client: Paraserve, library: ClipLibrary, repetitions: int, report: Report
) -> tuple[str, Watch, int]:
    """Returns the text, what processes held meanwhile, and the size of the upload."""
    clip = library.clip(repetitions * library.part_s)
    content = library.path(clip).read_bytes()
    for process in own_processes():
        forget_peak(process.pid)
    with Watch(_SAMPLE_S) as watch:
        began_s = time.monotonic()
        text = client.transcribe(content).text
        took_s = time.monotonic() - began_s
    minutes = f"{clip.audio_s / 60:.1f}"
    speed = clip.audio_s / took_s
    report.row(f"{repetitions} parts", minutes, mib(len(content)), took_s, speed)
    return text, watch, len(content)


def _show_growth(report: Report, before: Watch, after: Watch) -> int:
    """Adds a table of all processes; returns the largest growth."""
    report.table(
        "Peak memory of each process, MiB",
        ("process", *(f"{kind} {when}" for kind in ("resident", "own") for when in _WHEN)),
    )
    worst = 0
    by_size = sorted(after.histories.items(), key=lambda item: -item[1].peak_bytes)
    for pid, long in by_size:
        if (short := before.histories.get(pid)) is None:
            continue
        worst = max(worst, long.peak_bytes - short.peak_bytes)
        pairs = (
            (short.peak_bytes, long.peak_bytes),
            (short.most_own_bytes() or 0, long.most_own_bytes() or 0),
        )
        report.row(long.name, *(mib(n) for old, new in pairs for n in (old, new, new - old)))
    return worst


_WHEN = ("short", "long", "growth")


if __name__ == "__main__":
    sys.exit(main())
