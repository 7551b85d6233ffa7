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

import argparse
import io
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import soundfile

from loadtests.ports import free_port
from serve_app.cli.serve import demo_recording
from serve_app.client import Paraserve
from serve_app.launch import prepare_environment, running
from serve_app.settings import Settings

_RATE_HZ = 16_000
# The VAD decides in blocks of this length; repetitions that are whole blocks apart
# meet the same arithmetic.
_VAD_BLOCK_SAMPLES = 40_960
_PAUSE_S = 5.0
_ALLOWED_GROWTH_BYTES = 64 * 2**20
_SAMPLE_S = 0.1


@dataclass(slots=True)
class Peak:
    """The most that a process held during one recording.

    Attributes:
        name: of the process.
        resident_bytes: all of it.
        own_bytes: anonymous memory, which no other process shares.
    """

    name: str
    resident_bytes: int = 0
    own_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """One recording through the service."""

    text: str
    upload_bytes: int
    duration_s: float
    elapsed_s: float
    peaks: dict[int, Peak]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests long-audio", description=__doc__)
    parser.add_argument("--short-min", type=float, default=5.0)
    parser.add_argument("--long-min", type=float, default=60.0)
    arguments = parser.parse_args()
    settings = Settings.model_validate(
        {
            "profile": "demo",
            "http": {"port": free_port()},
            "audio": {"max_upload_bytes": 2**28},
        }
    )
    prepare_environment(settings)
    part = _part(demo_recording().path)
    part_s = len(part) / _RATE_HZ
    num_short = max(1, round(arguments.short_min * 60 / part_s))
    num_long = max(num_short + 1, round(arguments.long_min * 60 / part_s))
    with (
        running(settings, lambda message: print(message, flush=True)) as application,
        Paraserve(application.url, "", max_retries=0) as client,
    ):
        one = _measure(client, part, 1)
        _measure(client, part, num_short)
        short = _measure(client, part, num_short)
        long = _measure(client, part, num_long)
    return _report(one, short, long, num_short, num_long)


def _part(path: Path) -> npt.NDArray[np.int16]:
    samples, _ = soundfile.read(path, dtype="int16")
    wanted = len(samples) + int(_PAUSE_S * _RATE_HZ)
    padded = -(-wanted // _VAD_BLOCK_SAMPLES) * _VAD_BLOCK_SAMPLES
    return np.pad(np.asarray(samples, np.int16), (0, padded - len(samples)))


def _measure(client: Paraserve, part: npt.NDArray[np.int16], repetitions: int) -> Measurement:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", _RATE_HZ, 1, "PCM_16", format="FLAC") as flac:
        for _ in range(repetitions):
            flac.write(part)
    content = file.getvalue()
    _reset_peaks()
    with _Sampler() as sampler:
        started = time.monotonic()
        text = client.transcribe(content).text
        elapsed_s = time.monotonic() - started
    duration_s = repetitions * len(part) / _RATE_HZ
    return Measurement(text, len(content), duration_s, elapsed_s, sampler.peaks)


def _cluster_processes() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _reset_peaks() -> None:
    """Starts the kernel's count of peak resident memory anew (proc(5), clear_refs 5)."""
    for process in _cluster_processes():
        try:
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")
        except OSError:
            continue


class _Sampler:
    """Watches the memory of all processes of the cluster while a block runs."""

    def __init__(self) -> None:
        self.peaks: dict[int, Peak] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> _Sampler:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        for process in _cluster_processes():
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                name = " ".join(process.cmdline()[:1])[-44:] or process.name()
            except (OSError, psutil.Error):
                continue
            fields = dict(line.split(":", 1) for line in status.splitlines())
            if "VmHWM" in fields:
                peak = self.peaks.setdefault(process.pid, Peak(name))
                peak.resident_bytes = int(fields["VmHWM"].split()[0]) * 1024
                own_bytes = int(fields["RssAnon"].split()[0]) * 1024
                peak.own_bytes = max(peak.own_bytes, own_bytes)


def _report(
    one: Measurement, short: Measurement, long: Measurement, num_short: int, num_long: int
) -> int:
    print(f"\n{'':<52}{'resident MiB':>24}{'own MiB':>24}")
    print(f"{'process':<52}" + f"{'short':>8}{'long':>8}{'growth':>8}" * 2)
    allowed = _ALLOWED_GROWTH_BYTES + long.upload_bytes
    worst = 0
    for pid, peak in sorted(long.peaks.items(), key=lambda item: -item[1].resident_bytes):
        before = short.peaks.get(pid)
        if before is None:
            continue
        worst = max(worst, peak.resident_bytes - before.resident_bytes)
        pairs = (
            (before.resident_bytes, peak.resident_bytes),
            (before.own_bytes, peak.own_bytes),
        )
        cells = (
            f"{old / 2**20:>8.1f}{new / 2**20:>8.1f}{(new - old) / 2**20:>8.1f}"
            for old, new in pairs
        )
        print(f"{peak.name:<52}" + "".join(cells))
    right = short.text == one.text * num_short and long.text == one.text * num_long
    print(
        f"\nshort: {short.duration_s / 60:.1f} min in {short.elapsed_s:.1f} s; "
        f"long: {long.duration_s / 60:.1f} min in {long.elapsed_s:.1f} s "
        f"(RTFx {long.duration_s / long.elapsed_s:.0f})"
    )
    print(f"text is the concatenation of its parts: {'yes' if right else 'NO'}")
    print(
        f"largest growth {worst / 2**20:.1f} MiB; allowed {allowed / 2**20:.1f} MiB "
        f"(64 MiB + upload of {long.upload_bytes / 2**20:.1f} MiB)"
    )
    return 0 if right and worst <= allowed else 1


if __name__ == "__main__":
    sys.exit(main())
