"""Which parts of FFmpeg hostile bytes may reach."""

from __future__ import annotations

# Container as sniffed -> FFmpeg's demuxer. It is given by name and never probed
# for, and none of these reads a playlist.
DEMUXERS = {
    "wav": "wav",
    "rf64": "wav",
    "w64": "w64",
    "aiff": "aiff",
    "flac": "flac",
    "ogg": "ogg",
    "mp3": "mp3",
    "mp4": "mov",
    "aac": "aac",
    "amr": "amr",
    "webm": "matroska",
    "matroska": "matroska",
    "au": "au",
    "caf": "caf",
    "asf": "asf",
    "avi": "avi",
    "flv": "flv",
    "mpegts": "mpegts",
}

# Self-synchronising streams: recorders cut them anywhere, so a broken frame at
# either end is no damage.
CUT_ANYWHERE = {"mp3", "aac", "amr", "ogg", "webm", "matroska", "mpegts", "flv", "asf", "avi"}

# The length in these headers is exact, so that less is a truncated file.
DECLARES_LENGTH = {"flac", "mp4"}

# Here a header or the last page tells the length; elsewhere FFmpeg guesses it
# from the bit rate, which says nothing.
STATES_LENGTH = DECLARES_LENGTH | {"ogg", "webm", "matroska", "caf", "au", "asf"}

# Packets carry times, and what was not recorded (silence, a paused call) is left
# out: the gap is part of the recording's time.
HAS_GAPS = {"mp4", "webm", "matroska"}

# FFmpeg drops what has a wrong checksum here and reports nothing, but the times
# jump; the value is the smallest jump in s that is no rounding.
LOSES_FRAMES = {"flac": 0.001, "ogg": 0.1}

_PCM = (
    "s8 u8 s16le s16be u16le u16be s24le s24be u24le u24be s32le s32be u32le u32be f32le f32be "
    "f64le f64be alaw mulaw s16le_planar s16be_planar s24le_planar s32le_planar s8_planar "
    "bluray dvd"
)
_ADPCM = "ima_wav ima_qt ms g722 g726 g726le swf yamaha"
_CODED = (
    "aac aac_fixed aac_latm ac3 eac3 alac amrnb amrwb flac gsm gsm_ms libopus mp1 mp1float mp2 "
    "mp2float mp3 mp3float opus speex libspeex vorbis wmapro wmav1 wmav2 wmavoice truespeech g723_1"
)
DECODERS = frozenset(
    [f"pcm_{name}" for name in _PCM.split()]
    + [f"adpcm_{name}" for name in _ADPCM.split()]
    + _CODED.split()
)
