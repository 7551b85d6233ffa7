"""Diarization error rates by pyannote.metrics: no collar, overlapping speech counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench.peers import PeerMissing
from serve_app.core.speakers import SpeakerTurn


@dataclass(frozen=True, slots=True)
class Score:
    """Shares of the speech in the reference, overlapping speech counted for each speaker.

    Attributes:
        error_rate: all of it.
        confusion: given to another speaker.
        missed: given to nobody, or to one of two.
        false_alarm: given to somebody where nobody speaks.
    """

    error_rate: float
    confusion: float
    missed: float
    false_alarm: float


def score(
    reference: Iterable[SpeakerTurn], found: Iterable[SpeakerTurn], duration_s: float
) -> Score:
    """Compares turns with those of the reference, the speakers mapped as fits best.

    Raises:
        PeerMissing: pyannote.metrics is not installed.
    """
    try:
        from pyannote.core import Annotation, Segment, Timeline
        from pyannote.metrics.diarization import DiarizationErrorRate
    except ImportError as error:
        raise PeerMissing(f"{error}; pip install 'paraserve[bench]'") from error

    def annotation(turns: Iterable[SpeakerTurn]) -> Annotation:
        made = Annotation()
        for number, turn in enumerate(turns):
            made[Segment(turn.start_ms / 1000, turn.end_ms / 1000), number] = str(turn.speaker)
        return made

    whole = Timeline([Segment(0, duration_s)])
    parts = DiarizationErrorRate()(
        annotation(reference), annotation(found), uem=whole, detailed=True
    )
    total = parts["total"]
    return Score(
        parts["diarization error rate"],
        parts["confusion"] / total,
        parts["missed detection"] / total,
        parts["false alarm"] / total,
    )


def turns_in(rttm: Path) -> tuple[SpeakerTurn, ...]:
    """Returns the turns of an RTTM file; speakers are numbered by appearance."""
    numbers: dict[str, int] = {}
    turns = []
    for line in rttm.read_text("utf-8").splitlines():
        _, _, _, start_s, length_s, _, _, name, *_ = line.split()
        start_ms = round(float(start_s) * 1000)
        end_ms = start_ms + round(float(length_s) * 1000)
        turns.append(SpeakerTurn(start_ms, end_ms, numbers.setdefault(name, len(numbers))))
    return tuple(turns)
