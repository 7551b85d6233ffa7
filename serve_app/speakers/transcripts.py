"""From the windows of a recording's utterances to a transcript with speaker labels.

Where channels are recognized separately, their windows are compared together, as if one channel
followed the other: a voice on two channels is one speaker, and turns of different channels may
overlap in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from serve_app.core.records import Utterance
from serve_app.core.speakers import Diarization, SpeakerTurn, SpeakerWindows, join_windows
from serve_app.speakers.labelling import label_sentences
from serve_app.transcript.transcript import Sentence, Transcript

NO_LABELS = "There are no speaker labels: the speaker stage failed."
"""Notice of a transcript whose speakers could not be told apart."""

_GAP_MS = 60_000


def missing_labels(ranges_ms: Sequence[tuple[int, int]]) -> tuple[str, ...]:
    """Returns the notice that says where voices were not embedded; none without a range."""
    if not ranges_ms:
        return ()
    start_ms, end_ms = min(ranges_ms)
    more = f" and in {len(ranges_ms) - 1} more ranges" if len(ranges_ms) > 1 else ""
    return (
        f"Speaker labels may be missing or wrong from {start_ms / 1000:.3f} s to "
        f"{end_ms / 1000:.3f} s{more}: the speaker stage failed there.",
    )


class RecordingVoices:
    """Collects the windows of a recording's utterances, in their order."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, SpeakerWindows]] = []
        self._has_channels = False

    def __bool__(self) -> bool:
        return any(len(windows) for _, windows in self._parts)

    def add(self, utterance: Utterance) -> None:
        if utterance.voices is not None:
            self._has_channels |= utterance.channel is not None
            self._parts.append((utterance.channel or 0, utterance.voices))

    def windows(self) -> SpeakerWindows:
        """Returns all windows in order; those of each channel after those of the one before."""
        span_ms = self._span_ms
        parts = sorted(self._parts, key=lambda part: part[0])
        return join_windows(
            [
                replace(
                    windows,
                    start_ms=windows.start_ms + channel * span_ms,
                    end_ms=windows.end_ms + channel * span_ms,
                    pauses_ms=windows.pauses_ms + channel * span_ms,
                )
                for channel, windows in parts
            ]
        )

    def in_recording_time(self, diarization: Diarization) -> Diarization:
        """Returns who spoke when on which channel, from what was found for `windows`."""
        if not self._has_channels:
            return diarization
        span_ms = self._span_ms
        turns = [
            SpeakerTurn(
                turn.start_ms % span_ms,
                turn.start_ms % span_ms + turn.end_ms - turn.start_ms,
                turn.speaker,
                turn.start_ms // span_ms,
            )
            for turn in diarization.turns
        ]
        return replace(diarization, turns=tuple(sorted(turns, key=lambda turn: turn.start_ms)))

    @property
    def _span_ms(self) -> int:
        return max(int(part.end_ms.max(initial=0)) for _, part in self._parts) + _GAP_MS


def labelled(transcript: Transcript) -> Transcript:
    """Returns the transcript with sentences of one speaker each, if it was told who spoke when."""
    if transcript.diarization is None:
        return transcript
    sentences = labelled_sentences(transcript.sentences, transcript.diarization)
    return replace(transcript, sentences=sentences)


def labelled_sentences(
    sentences: Sequence[Sentence], diarization: Diarization
) -> tuple[Sentence, ...]:
    """Returns the sentences with their speakers, each channel by its own turns."""
    if all(turn.channel is None for turn in diarization.turns):
        return label_sentences(sentences, diarization)
    found: list[Sentence] = []
    by_channel = sorted(sentences, key=lambda sentence: sentence.channel or 0)
    for channel, own in groupby(by_channel, key=lambda sentence: sentence.channel or 0):
        turns = tuple(turn for turn in diarization.turns if turn.channel == channel)
        found += label_sentences(own, replace(diarization, turns=turns))
    return tuple(sorted(found, key=lambda sentence: (sentence.start_ms, sentence.channel or 0)))
