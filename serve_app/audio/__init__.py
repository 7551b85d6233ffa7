"""Decodes audio files into blocks of int16 mono samples at 16 kHz, with bounded memory."""

from serve_app.audio.containers import sniff
from serve_app.audio.decoding import AudioDecoder
from serve_app.audio.layout import AudioInfo, AudioLimits

__all__ = ["AudioDecoder", "AudioInfo", "AudioLimits", "sniff"]
