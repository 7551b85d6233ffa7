"""Memory of this process, as Linux counts it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Resident:
    """Memory in bytes.

    Attributes:
        rss_bytes: pages in memory, those shared with other processes included.
        pss_bytes: likewise, a shared page divided by the number of its owners.
        peak_bytes: the most `rss_bytes` has been since the process began, or since
            `forget_peak`.
    """

    rss_bytes: int
    pss_bytes: int
    peak_bytes: int


def resident() -> Resident:
    """Reads this process' memory.

    Raises:
        OSError: this is not Linux, or /proc is not mounted.
    """
    status = Path("/proc/self/status")
    return Resident(
        _bytes_of(status, "VmRSS"),
        _bytes_of(Path("/proc/self/smaps_rollup"), "Pss"),
        _bytes_of(status, "VmHWM"),
    )


def forget_peak() -> None:
    """Lets the peak begin anew at what is resident; does nothing where that is forbidden."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _bytes_of(path: Path, key: str) -> int:
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise OSError(f"{path} has no {key}")
