"""Bytes of any audio file -> blocks of int16 mono 16 kHz, never whole in memory."""

from serve_app.audio.containers import sniff
from serve_app.audio.decoding import AudioDecoder
from serve_app.audio.layout import AudioInfo, AudioLimits

__all__ = ["AudioDecoder", "AudioInfo", "AudioLimits", "sniff"]
