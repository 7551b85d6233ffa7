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

import functools
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.damage.files import FORMATS, DamagedFile, damaged_file, sound_file
from loadtests.damage.matching import Piece, Samples, find_pieces, is_quiet
from loadtests.damage.reference import decode_leniently
from loadtests.damage.unknowable import is_plain_silence, unknowable_s
from loadtests.harness.report import Report, parse, parser
from serve_app.audio import AudioDecoder, AudioLimits
from serve_app.core.errors import AudioError
from serve_app.core.records import DamagedRange

_LEAST_SHARE = 0.99
_MAX_SHIFT_S = 0.1
# Half a block of speech, and what a decoder needs to find its feet.
_NEAR_MS = 500
_EVERY = 50
_COLUMNS = ("files", "hopeless", "refused", "reference", "both", "silent", "shifted")
_NO_AUDIO = re.compile(r"has no audio from ([\d.]+) to ([\d.]+) s")


@dataclass(frozen=True, slots=True)
class Decoded:
    """What our decoder makes of a file."""

    samples: Samples
    damage: tuple[DamagedRange, ...]
    notices: tuple[str, ...]
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


def judge(case: DamagedFile) -> Counter[str]:
    """Compares both decodings of a damaged file with that of the sound one; counts `_COLUMNS`."""
    ours = decode(case.content)
    sound = original(case.name)
    reference = find_pieces(sound, decode_leniently(case.content))
    pieces = find_pieces(sound, ours.samples)
    recovered = [piece for piece in reference if piece.found is not None]
    by_start = {piece.start: piece for piece in pieces}
    slack_s = unknowable_s(case)
    shifted = (is_shifted(by_start[piece.start], piece, slack_s) for piece in reference)
    return Counter(
        files=1,
        hopeless=ours.error is not None and not recovered,
        refused=ours.error is not None and bool(recovered),
        reference=len(recovered),
        both=sum(by_start[piece.start].found is not None for piece in recovered),
        # Of a stream that ends early nobody can tell how much there was.
        silent=0 if ours.error or case.kind == "cut" else count_silent(case, ours, pieces),
        shifted=0 if ours.error else sum(shifted),
    )


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


def main(given: Sequence[str] | None = None) -> int:
    made = parser("damage", __doc__)
    made.add_argument("--cases", type=int, default=2000, help="number of damaged files")
    made.add_argument("--seed", type=int, default=0, help="of the first one")
    made.add_argument("--verbose", action="store_true", help="print each case that is not well")
    options = parse(made, given)
    totals: dict[str, Counter[str]] = {name: Counter() for name in FORMATS}
    with Report("damage", options) as report:
        report.table(
            "Blocks of speech, a quarter of a second each, by format",
            ("format", *_COLUMNS, "share"),
            ("hopeless: files from which neither we nor FFmpeg get speech",),
        )
        for seed in range(options.seed, options.seed + options.cases):
            case = damaged_file(seed)
            verdict = judge(case)
            totals[case.name].update(verdict)
            if seed % _EVERY == 0:
                _show(report, totals)
            faults = ("refused", "silent", "shifted")
            is_well = verdict["both"] == verdict["reference"] and not any(map(verdict.get, faults))
            if options.verbose and not is_well:
                report.say(f"{seed} {case.name} {case.kind} {dict(verdict)}")
        _promise(report, _show(report, totals))
    return report.exit_code


def _show(report: Report, totals: dict[str, Counter[str]]) -> Counter[str]:
    """Fills the table, a row a format; returns the sums."""
    everything = sum(totals.values(), Counter())
    rows = [*totals.items(), ("all", everything)]
    report.rows((name, *(row[kind] for kind in _COLUMNS), _share(row)) for name, row in rows)
    return everything


def _share(counts: Counter[str]) -> str:
    return f"{counts['both'] / counts['reference'] if counts['reference'] else 1.0:.4f}"


def _promise(report: Report, counts: Counter[str]) -> None:
    share = float(_share(counts))
    told = f"{counts['both']} of {counts['reference']}"
    wanted = f"{_LEAST_SHARE:.0%} of the speech that FFmpeg recovers is decoded"
    report.promise(wanted, told, share >= _LEAST_SHARE)
    for promise, kind in (
        ("no file is refused from which FFmpeg gets speech", "refused"),
        ("nothing is lost without a word", "silent"),
        (f"no time is off by more than {_MAX_SHIFT_S:.1f} s", "shifted"),
    ):
        report.promise(promise, str(counts[kind]), counts[kind] == 0)


if __name__ == "__main__":
    sys.exit(main())
