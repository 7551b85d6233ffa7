"""Damages recordings at random and compares what is decoded with what FFmpeg recovers.

    python -m loadtests damage --cases 2000

Needs no service and no model. Ends with 1 if less than 99 % of the speech that FFmpeg
recovers is decoded, anything is lost without a word, a time is off by more than 100 ms, or
a file is refused from which FFmpeg gets speech.

"Silent" counts blocks of a quarter of a second of which next to nothing is left though no
range or warning covers them. What a file of plain samples or a stream without times cannot
tell counts as neither silent nor shifted; it is worked out from what was done to the file.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np

from loadtests.damage.files import FORMATS, DamagedFile, damaged_file, sound_file
from loadtests.damage.matching import Piece, Samples, find_pieces, is_quiet
from loadtests.damage.reference import decode_leniently
from loadtests.damage.unknowable import is_plain_silence, unknowable_s
from serve_app.audio import AudioDecoder, AudioLimits
from serve_app.core.errors import AudioError
from serve_app.core.records import DamagedRange

_LEAST_SHARE = 0.99
_MAX_SHIFT_S = 0.1
# Half a block of speech, and what a decoder needs to find its feet.
_NEAR_MS = 500
_NO_AUDIO = re.compile(r"has no audio from ([\d.]+) to ([\d.]+) s")


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
    blocks = [np.zeros(0, np.int16)]
    error: str | None = None
    damage: tuple[DamagedRange, ...] = ()
    notices: tuple[str, ...] = ()
    try:
        with AudioDecoder(file, AudioLimits()) as decoder:
            blocks += list(decoder.blocks())
            damage, notices = decoder.damage, decoder.notices
    except AudioError as refused:
        blocks, error = blocks[:1], refused.code
    samples = np.concatenate(blocks).astype(np.float32) / np.float32(32768)
    return Decoded(samples, damage, notices, error)


@functools.cache
def original(name: str) -> Samples:
    return decode(sound_file(name)).samples


def judge(case: DamagedFile) -> Verdict:
    """Compares both decodings of a damaged file with that of the sound one."""
    ours = decode(case.content)
    sound = original(case.name)
    reference = find_pieces(sound, decode_leniently(case.content))
    pieces = find_pieces(sound, ours.samples)
    recovered = [piece for piece in reference if piece.found is not None]
    by_start = {piece.start: piece for piece in pieces}
    num_both = sum(by_start[piece.start].found is not None for piece in recovered)
    slack_s = unknowable_s(case)
    num_shifted = sum(
        is_shifted(by_start[piece.start], piece, slack_s)
        for piece in reference
        if ours.error is None
    )
    # Of a stream that ends early nobody can tell how much there was.
    num_silent = 0 if ours.error or case.kind == "cut" else count_silent(case, ours, pieces)
    return Verdict(len(recovered), num_both, num_silent, num_shifted, ours.error)


def is_shifted(piece: Piece, reference: Piece, slack_s: float) -> bool:
    """True if a piece is neither where it was nor where FFmpeg has it."""
    if piece.found is None or abs(piece.shift_s) <= _MAX_SHIFT_S + slack_s:
        return False
    return reference.found is None or abs(piece.shift_s - reference.shift_s) > _MAX_SHIFT_S


def count_silent(case: DamagedFile, ours: Decoded, pieces: list[Piece]) -> int:
    """Counts the pieces of which nothing is left and nothing is said."""
    shift_s, num_silent = 0.0, 0
    for piece in pieces:
        if piece.found is not None:
            shift_s = piece.shift_s
        elif is_quiet(original(case.name), ours.samples, piece.start, round(shift_s * 16_000)):
            told = is_told(ours, (piece.start_s + shift_s) * 1000)
            # What was cut out has no place in the file; that something is gone is said.
            told |= case.kind == "delete" and bool(ours.damage)
            num_silent += not (told or is_plain_silence(case, piece))
    return num_silent


def is_told(ours: Decoded, start_ms: float) -> bool:
    end_ms = len(ours.samples) / 16
    said_of_end = any("cut off" in notice for notice in ours.notices)
    said_of_end |= bool(ours.damage) and ours.damage[-1].end_ms >= end_ms
    if said_of_end and start_ms >= end_ms - _NEAR_MS:
        return True
    ranges = [(one.start_ms, one.end_ms) for one in ours.damage]
    for start_s, end_s in _NO_AUDIO.findall(" ".join(ours.notices)):
        ranges.append((round(1000 * float(start_s)), round(1000 * float(end_s))))
    return any(
        first_ms - _NEAR_MS <= start_ms + 250 and start_ms <= last_ms + _NEAR_MS
        for first_ms, last_ms in ranges
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests damage", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--cases", type=int, default=2000, help="number of damaged files")
    parser.add_argument("--seed", type=int, default=0, help="of the first one")
    parser.add_argument("--verbose", action="store_true", help="print each case that is not well")
    options = parser.parse_args()
    totals: dict[str, Counter[str]] = {name: Counter() for name in FORMATS}
    for seed in range(options.seed, options.seed + options.cases):
        case = damaged_file(seed)
        verdict = judge(case)
        totals[case.name].update(
            files=1,
            reference=verdict.num_reference,
            both=verdict.num_both,
            silent=verdict.num_silent,
            shifted=verdict.num_shifted,
            refused=verdict.error is not None and verdict.num_reference > 0,
            hopeless=verdict.error is not None and not verdict.num_reference,
        )
        is_well = verdict.num_both == verdict.num_reference
        if options.verbose and not (is_well and not verdict.num_silent + verdict.num_shifted):
            print(seed, case.name, case.kind, verdict, flush=True)
    return report(totals)


def report(totals: dict[str, Counter[str]]) -> int:
    """Prints a row a format; returns the exit code.

    "Hopeless" are files from which neither we nor FFmpeg get speech.
    """
    columns = ("files", "hopeless", "refused", "reference", "both", "silent", "shifted")
    everything: Counter[str] = Counter()
    print(f"{'format':10}" + "".join(f"{column:>11}" for column in columns) + f"{'share':>9}")
    for name, counts in [*totals.items(), ("all", everything)]:
        if name != "all":
            everything.update(counts)
        share = counts["both"] / counts["reference"] if counts["reference"] else 1.0
        cells = "".join(f"{counts[column]:11}" for column in columns)
        print(f"{name:10}{cells}{share:9.4f}")
    share = everything["both"] / max(everything["reference"], 1)
    num_faults = sum(everything[column] for column in ("refused", "silent", "shifted"))
    return 0 if share >= _LEAST_SHARE and not num_faults else 1


if __name__ == "__main__":
    sys.exit(main())
