"""Transcripts with speaker labels."""

from __future__ import annotations

from dataclasses import replace

from serve_app.speakers.labelling import label_sentences
from serve_app.transcript.transcript import Transcript


def labelled(transcript: Transcript) -> Transcript:
    """Returns the transcript with sentences of one speaker each, if it was told who spoke when."""
    if transcript.diarization is None:
        return transcript
    sentences = label_sentences(transcript.sentences, transcript.diarization)
    return replace(transcript, sentences=sentences)
