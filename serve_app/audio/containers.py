"""Recognizes the container of a file by its first bytes and names the FFmpeg demuxer for it.

File names and content types are not trusted. FFmpeg's own probing is not used, since it also
recognizes playlists, which make it open other files and URLs.

Sources: the containers' specifications for their magic numbers; MPEG audio headers ISO/IEC
11172-3 (2.4.1.3), ADTS ISO/IEC 13818-7 (6.2), ID3 tags
https://id3.org/id3v2.4.0-structure (3.1).
"""

from __future__ import annotations

from pathlib import PurePosixPath

from serve_app.audio.bytesource import ByteSource

HEAD_BYTES = 4096

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_MP4_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"pnot"}
_MAX_ID3_TAGS = 8
# Text editors and scripts add it to binary files, too.
_UTF8_BOM = b"\xef\xbb\xbf"
SEARCHED_BYTES = 1 << 18
"""How far a damaged beginning is searched for frames."""
UNKNOWN_KIND = "its content is not a known audio format"
_TS_SYNC_BYTE = 0x47
# Packets have 188 bytes; cameras put a time stamp of 4 bytes before each.
_TS_SYNC_OFFSETS = ((0, 188, 376), (4, 196, 388))
TRANSPORT_STREAM_HEAD_BYTES = 389
# This many frames in a row are not a coincidence.
_RUN_FRAMES = 8
_MAX_CANDIDATES = 2000
_MPEG_BITRATES_KBPS = {
    # (is MPEG 1, layer) -> rate by index, index 0 and 15 are invalid here
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def sniff(head: bytes) -> str | None:
    """Returns the container's name, None if it is not an audio container.

    Args:
        head: the first `HEAD_BYTES` bytes of the file, or all of a shorter file.
    """
    if head[:3] == b"ID3":
        inner = head[id3_num_bytes(head) :]
        return (sniff(inner) if inner[:3] != b"ID3" else None) or "mp3"
    return _sniff_magic(head) or _sniff_frames(head)


def sniff_source(source: ByteSource) -> str | None:
    """Returns the container's name and skips ID3 tags before the audio.

    A tag may hold compressed pictures, which no decoder needs.
    """
    if source.peek(0, len(_UTF8_BOM)) == _UTF8_BOM:
        source.skip(len(_UTF8_BOM))
    tagged = False
    for _ in range(_MAX_ID3_TAGS):
        num_tag_bytes = id3_num_bytes(source.peek(0, 10))
        if not num_tag_bytes:
            break
        source.skip(num_tag_bytes)
        tagged = True
    found = sniff(source.peek(0, HEAD_BYTES))
    if found is None and not tagged:
        # The beginning of a stream may be damaged.
        return _sniff_run(source.peek(0, SEARCHED_BYTES))
    return found or ("mp3" if source.num_bytes else None)


def id3_num_bytes(head: bytes) -> int:
    """Returns the length of the ID3v2 tag that head starts with, 0 without one."""
    if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 0x7F:
        return 0
    body = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    footer = 10 if head[5] & 0x10 else 0
    return 10 + body + footer


def _sniff_magic(head: bytes) -> str | None:
    if head[:4] == b"RIFX":
        return "wav" if head[8:12] == b"WAVE" else None
    if head[:4] == b"RIFF":
        return {b"WAVE": "wav", b"AVI ": "avi"}.get(head[8:12])
    if head[:4] == b"FORM":
        return "aiff" if head[8:12] in {b"AIFF", b"AIFC"} else None
    if head[:4] == b"\x1aE\xdf\xa3":
        return "webm" if b"webm" in head[:64] else "matroska"
    # A box starts with its length, whose first byte is 0 below 16 MiB.
    if head[:1] == b"\0" and head[4:8] in _MP4_BOXES:
        return "mp4"
    for magic, container in (
        (b"RF64", "rf64"),
        (b"BW64", "rf64"),
        (_W64, "w64"),
        (b"fLaC", "flac"),
        (b"OggS", "ogg"),
        (b"#!AMR", "amr"),
        (b".snd", "au"),
        (b"caff", "caf"),
        (_ASF, "asf"),
        (b"FLV\x01", "flv"),
    ):
        if head.startswith(magic):
            return container
    return "mpegts" if is_transport_stream(head) else None


def is_transport_stream(head: bytes) -> bool:
    """True if a file begins with packets of MPEG-TS.

    Args:
        head: its first `TRANSPORT_STREAM_HEAD_BYTES` bytes or more.
    """
    return any(
        all(offset < len(head) and head[offset] == _TS_SYNC_BYTE for offset in offsets)
        for offsets in _TS_SYNC_OFFSETS
    )


def _sniff_frames(head: bytes) -> str | None:
    """Searches for bare frames; a stream may start in the middle of one."""
    for start in range(max(len(head) - 8, 0)):
        if head[start] != 0xFF:
            continue
        for container, length_of in (("aac", adts_num_bytes), ("mp3", mpeg_num_bytes)):
            if _has_frames(head, start, length_of(head[start : start + 7]), container):
                return container
    return None


def _sniff_run(content: bytes) -> str | None:
    """Searches for many frames in a row, anywhere."""
    for container, length_of in (("aac", adts_num_bytes), ("mp3", mpeg_num_bytes)):
        start = -1
        for _ in range(_MAX_CANDIDATES):
            start = content.find(b"\xff", start + 1)
            if start < 0:
                break
            offset = start
            for number in range(_RUN_FRAMES):
                num_bytes = length_of(content[offset : offset + 7])
                if not num_bytes:
                    break
                offset += num_bytes
                if number == _RUN_FRAMES - 1:
                    return container
    return None


def _has_frames(head: bytes, start: int, num_bytes: int, container: str) -> bool:
    """True if a second frame follows; at the start of a short file one frame is enough."""
    if not num_bytes:
        return False
    following = head[start + num_bytes : start + num_bytes + 7]
    if len(following) < 7:
        return start == 0
    length_of = adts_num_bytes if container == "aac" else mpeg_num_bytes
    return length_of(following) > 0


def adts_num_bytes(header: bytes) -> int:
    """Returns the length of the ADTS frame that starts here, 0 for none."""
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return 0
    num_bytes = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return num_bytes if header[2] >> 2 & 0xF <= 12 and num_bytes > 7 else 0


def mpeg_num_bytes(header: bytes) -> int:
    """Returns the length of the MPEG audio frame that starts here, 0 for none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bitrate_index, rate_index = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate_index in {0, 15} or rate_index == 3:
        return 0
    kbps = _MPEG_BITRATES_KBPS[version == 3, layer][bitrate_index - 1]
    rate_hz = (44_100, 48_000, 32_000)[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    padding = header[2] >> 1 & 1
    if layer == 1:
        return (12_000 * kbps // rate_hz + padding) * 4
    slots = 72_000 if layer == 3 and version != 3 else 144_000
    return slots * kbps // rate_hz + padding


# Sniffed container -> FFmpeg's demuxer. FFmpeg never probes, and none of these demuxers reads
# a playlist.
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

# Self-synchronizing streams: recorders cut them anywhere, so a broken frame at either end is
# not damage. The same holds for fragmented MP4.
CUT_ANYWHERE = {"mp3", "aac", "amr", "ogg", "webm", "matroska", "mpegts", "flv", "asf", "avi"}

# The length in these headers is exact: a file with less audio is truncated.
DECLARES_LENGTH = {"flac", "mp4"}

# A header or the last page states the length; for other containers FFmpeg estimates it from
# the bit rate, which is not reliable.
STATES_LENGTH = DECLARES_LENGTH | {"ogg", "webm", "matroska", "caf", "au", "asf"}

# Packets carry times, so a gap between them is part of the recording. In other containers
# FFmpeg derives times by adding up the packets that it finds.
TIMED = {"mp4", "webm", "matroska", "mpegts", "flv", "asf", "ogg", "flac"}

# Recorders write these without gaps, so a gap is always a loss: FFmpeg silently drops data with
# a wrong checksum.
WITHOUT_PAUSES = {"ogg", "flac"}

# Packets follow each other without padding, so bytes between two packets were a packet.
WITHOUT_PADDING = {"flv"}

# Recordings may be concatenated in these formats: a large jump in time starts the next one.
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


AUDIO_SUFFIXES = frozenset({
    ".wav", ".wave", ".rf64", ".bwf", ".w64", ".aif", ".aiff", ".aifc", ".flac", ".ogg", ".oga",
    ".ogx", ".opus", ".spx", ".mp1", ".mp2", ".mp3", ".mpga", ".mp4", ".m4a", ".m4b", ".m4v",
    ".m4r", ".mov", ".qt", ".3gp", ".3gpp", ".3g2", ".f4a", ".f4v", ".aac", ".adts", ".amr",
    ".awb", ".webm", ".weba", ".mkv", ".mka", ".au", ".snd", ".caf", ".wma", ".wmv", ".asf",
    ".avi", ".flv", ".ts", ".m2t", ".mts", ".m2ts", ".mpegts",
})  # fmt: skip
"""Suffixes, in lower case, of every container that the decoder supports. Files in a directory
are selected by suffix; the content decides what a file is."""


_TRANSPORT_STREAM_SUFFIX = ".ts"


def is_recording_name(relative_path: str) -> bool:
    """True if a path relative to a directory, with `/` separators, is named like a recording.

    False for hidden files, for anything in a hidden directory, and for AppleDouble files
    (`._name`, which macOS writes beside the real ones on other file systems).
    """
    path = PurePosixPath(relative_path)
    if any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
        return False
    return path.suffix.lower() in AUDIO_SUFFIXES


def needs_look(relative_path: str) -> bool:
    """True if the suffix is ambiguous: `.ts` is TypeScript's suffix as well as MPEG-TS's."""
    return PurePosixPath(relative_path).suffix.lower() == _TRANSPORT_STREAM_SUFFIX
