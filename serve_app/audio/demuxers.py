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
# either end is no damage. A fragmented MP4 is one of them.
CUT_ANYWHERE = {"mp3", "aac", "amr", "ogg", "webm", "matroska", "mpegts", "flv", "asf", "avi"}

# The length in these headers is exact, so that less is a truncated file.
DECLARES_LENGTH = {"flac", "mp4"}

# Here a header or the last page tells the length; elsewhere FFmpeg guesses it
# from the bit rate, which says nothing.
STATES_LENGTH = DECLARES_LENGTH | {"ogg", "webm", "matroska", "caf", "au", "asf"}

# Packets carry times, and what is not there is left out: a gap is part of the
# recording's time. In the others FFmpeg only counts up what it finds.
TIMED = {"mp4", "webm", "matroska", "mpegts", "flv", "asf", "ogg", "flac"}

# A recorder leaves nothing out here, so that a gap is always a loss: FFmpeg drops what
# has a wrong checksum without a word.
WITHOUT_PAUSES = {"ogg", "flac"}

# Packets stand close together here, so that bytes between two of them held another.
WITHOUT_PADDING = {"flv"}

# A longer jump is another recording joined on: these formats allow that.
JOINABLE = {"ogg", "flac", "mpegts"}

_PCM = (
    "s8 u8 s16le s16be u16le u16be s24le s24be u24le u24be s32le s32be u32le u32be f32le f32be "
    "f64le f64be alaw mulaw s16le_planar s16be_planar s24le_planar s32le_planar s8_planar "
    "bluray dvd"
)
_ADPCM = "ima_wav ima_qt ms swf yamaha"
_CODED = (
    "aac aac_fixed aac_latm ac3 eac3 alac amrnb amrwb flac gsm gsm_ms libopus mp1 mp1float mp2 "
    "mp2float mp3 mp3float opus speex libspeex vorbis wmapro wmav1 wmav2 wmavoice truespeech "
    "g723_1 g722 g726 g726le"
)
DECODERS = frozenset(
    [f"pcm_{name}" for name in _PCM.split()]
    + [f"adpcm_{name}" for name in _ADPCM.split()]
    + _CODED.split()
)
