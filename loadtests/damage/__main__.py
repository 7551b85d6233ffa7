"""Damages recordings at random and compares what is decoded with what FFmpeg recovers.

    python -m loadtests.damage --cases 2000

Needs no service and no model. Ends with 1 if less than 99 % of the speech that FFmpeg
recovers is decoded, anything is lost without a word, or a time is off by more than 100 ms.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np

from loadtests.damage.files import FORMATS, damaged_file, sound_file
from loadtests.damage.matching import Piece, Samples, find_pieces, is_quiet
from loadtests.damage.reference import decode_leniently
from serve_app.audio import AudioDecoder, AudioLimits
from serve_app.core.chunks import DamagedRange
from serve_app.core.errors import AudioError

_LEAST_SHARE = 0.99
_MAX_SHIFT_S = 0.1
# Half a block of speech, and what a decoder needs to find its feet.
_NEAR_MS = 500
_WITHOUT_TIMES = {"wav", "mp3", "aac", "amr"}
# Bit rates vary within a file.
_RATE_SLACK = 1.5


@dataclass(frozen=True, slots=True)
class Decoded:
    """What our decoder makes of a file."""

    samples: Samples
    damage: tuple[DamagedRange, ...]
    notices: tuple[str, ...]
    error: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one case went; counts are blocks of speech."""

    num_reference: int
    num_both: int
    num_silent: int
    num_shifted: int
    error: str | None


def decode(file: bytes) -> Decoded:
    windows = [np.zeros(0, np.int16)]
    error: str | None = None
    damage: tuple[DamagedRange, ...] = ()
    notices: tuple[str, ...] = ()
    try:
        with AudioDecoder(file, AudioLimits()) as decoder:
            windows += list(decoder.windows())
            damage, notices = decoder.damage, decoder.notices
    except AudioError as refused:
        windows, error = windows[:1], refused.code
    samples = np.concatenate(windows).astype(np.float32) / np.float32(32768)
    return Decoded(samples, damage, notices, error)


@functools.cache
def original(name: str) -> Samples:
    return decode(sound_file(name)).samples


def judge(name: str, kind: str, file: bytes) -> Verdict:
    """Compares both decodings of a damaged file with that of the sound one."""
    ours = decode(file)
    reference = find_pieces(original(name), decode_leniently(file))
    pieces = find_pieces(original(name), ours.samples)
    recovered = [piece for piece in reference if piece.found is not None]
    by_start = {piece.start: piece for piece in pieces}
    num_both = sum(by_start[piece.start].found is not None for piece in recovered)
    slack_s = unknowable_s(name, kind, file)
    num_shifted = sum(
        is_shifted(by_start[piece.start], piece, slack_s)
        for piece in reference
        if ours.error is None
    )
    # Of a stream that ends early nobody can tell how much there was.
    num_silent = 0 if ours.error or kind == "cut" else count_silent(name, kind, ours, pieces)
    return Verdict(len(recovered), num_both, num_silent, num_shifted, ours.error)


def unknowable_s(name: str, kind: str, file: bytes) -> float:
    """Returns by how much times may be off since nobody could know better.

    In a stream without times nobody can tell whether foreign bytes stand in place of others,
    nor how many are gone.
    """
    if name not in _WITHOUT_TIMES or kind not in {"insert", "delete"}:
        return 0.0
    clean = sound_file(name)
    return _RATE_SLACK * len(original(name)) / 16_000 * abs(len(file) - len(clean)) / len(clean)


def is_shifted(piece: Piece, reference: Piece, slack_s: float) -> bool:
    """True if a piece is neither where it was nor where FFmpeg has it."""
    if piece.found is None or abs(piece.shift_s) <= _MAX_SHIFT_S + slack_s:
        return False
    return reference.found is None or abs(piece.shift_s - reference.shift_s) > _MAX_SHIFT_S


def count_silent(name: str, kind: str, ours: Decoded, pieces: list[Piece]) -> int:
    """Counts the pieces of which nothing is left and nothing is said."""
    shift_s, num_silent = 0.0, 0
    for piece in pieces:
        if piece.found is not None:
            shift_s = piece.shift_s
        elif is_quiet(original(name), ours.samples, piece.start, round(shift_s * 16_000)):
            told = is_told(ours, (piece.start_s + shift_s) * 1000)
            # What was cut out has no place in the file; that something is gone is said.
            num_silent += not (told or (kind == "delete" and ours.damage))
    return num_silent


def is_told(ours: Decoded, start_ms: float) -> bool:
    end_ms = len(ours.samples) / 16
    if ours.damage and ours.damage[-1].end_ms >= end_ms and start_ms >= end_ms - _NEAR_MS:
        return True
    near = any(
        one.start_ms - _NEAR_MS <= start_ms + 250 and start_ms <= one.end_ms + _NEAR_MS
        for one in ours.damage
    )
    return near or bool(ours.notices)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000, help="number of damaged files")
    parser.add_argument("--seed", type=int, default=0, help="of the first one")
    parser.add_argument("--verbose", action="store_true", help="print each case that is not well")
    options = parser.parse_args()
    totals: dict[str, Counter[str]] = {name: Counter() for name in FORMATS}
    for seed in range(options.seed, options.seed + options.cases):
        name, kind, file = damaged_file(seed)
        verdict = judge(name, kind, file)
        totals[name].update(
            files=1,
            reference=verdict.num_reference,
            both=verdict.num_both,
            silent=verdict.num_silent,
            shifted=verdict.num_shifted,
            refused=verdict.error is not None,
        )
        is_well = verdict.num_both == verdict.num_reference
        if options.verbose and (verdict.error or not (is_well and not verdict.num_silent + verdict.num_shifted)):
            print(seed, name, kind, verdict, flush=True)
    return report(totals)


def report(totals: dict[str, Counter[str]]) -> int:
    """Prints a row a format; returns the exit code."""
    columns = ("files", "refused", "reference", "both", "silent", "shifted")
    everything: Counter[str] = Counter()
    print(f"{'format':10}" + "".join(f"{column:>11}" for column in columns) + f"{'share':>9}")
    for name, counts in [*totals.items(), ("all", everything)]:
        if name != "all":
            everything.update(counts)
        share = counts["both"] / counts["reference"] if counts["reference"] else 1.0
        cells = "".join(f"{counts[column]:11}" for column in columns)
        print(f"{name:10}{cells}{share:9.4f}")
    share = everything["both"] / max(everything["reference"], 1)
    well = share >= _LEAST_SHARE and not everything["silent"] and not everything["shifted"]
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
