"""What no decoder can know of a damaged file, from what was done to it."""

from __future__ import annotations

import functools

from loadtests.damage.files import DamagedFile, sound_file
from loadtests.damage.matching import Piece
from serve_app.audio.bytesource import ByteSource
from serve_app.audio.frame_sync import stream_frames

_WITHOUT_TIMES = {"wav", "mp3", "aac", "amr"}
_SECONDS = 8.0
# Bit rates vary within a file.
_RATE_SLACK = 1.5
_FRAME_S = {"aac": 1024 / 16_000, "amr": 0.02}
_WAV_HEADER_BYTES = 44
_WAV_BYTES_PER_SAMPLE = 2


def unknowable_s(case: DamagedFile) -> float:
    """Returns by how much times may be off since nobody could know better.

    In a stream without times nobody can tell whether foreign bytes stand in place of others,
    nor how many are gone. Where the bit rate varies, the number of frames that a stretch of
    damaged bytes held can only be reckoned from the mean of the file.
    """
    if case.name not in _WITHOUT_TIMES:
        return 0.0
    num_clean_bytes = len(sound_file(case.name))
    if case.kind in {"insert", "delete"}:
        num_bytes = abs(len(case.content) - num_clean_bytes)
        return _RATE_SLACK * _SECONDS * num_bytes / num_clean_bytes
    if case.name not in _FRAME_S:
        return 0.0
    lengths = _frame_lengths(case.name)
    mean_bytes = sum(lengths) / len(lengths)
    slack_s = 0.0
    for hit in map(functools.partial(_hit_lengths, lengths), case.ranges):
        # One more for rounding.
        num_unknowable = abs(len(hit) - sum(hit) / mean_bytes) + 1 if hit else 0
        slack_s += num_unknowable * _FRAME_S[case.name]
    return slack_s


def is_plain_silence(case: DamagedFile, piece: Piece) -> bool:
    """True if zeros stand for the samples of a piece: that is what silence is in a WAV file."""
    if case.name != "wav" or case.kind != "zero":
        return False
    first, last = (
        _WAV_HEADER_BYTES + _WAV_BYTES_PER_SAMPLE * sample for sample in (piece.start, piece.end)
    )
    return any(start < last and end > first for start, end in case.ranges)


@functools.cache
def _frame_lengths(name: str) -> tuple[int, ...]:
    frames = stream_frames(ByteSource(sound_file(name)), name)
    return tuple(len(frame.content) for frame in frames if frame is not None)


def _hit_lengths(lengths: tuple[int, ...], hit: tuple[int, int]) -> list[int]:
    """Returns the lengths of the frames that a range of bytes touches."""
    offset, found = 0, []
    for num_bytes in lengths:
        if offset < hit[1] and offset + num_bytes > hit[0]:
            found.append(num_bytes)
        offset += num_bytes
    return found
