"""Opens a file with FFmpeg and picks the audio track to decode.

The bytes may be hostile. FFmpeg gets one demuxer by name and a list of audio decoders (pictures
and video are never decoded), and cannot open other files. Fields of Matroska, WebM and chained
Ogg files that it does not report are read here. Each chained Ogg stream is opened separately,
since FFmpeg keeps the first one's decoder even if the layout or the codec changes.

Sources: RFC 9559, 5.1.3 (Cluster, Timestamp) and 5.1.2 (Info: TimestampScale, Duration);
RFC 3533, 6 (page header) and 4 (chaining).
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

import av
import av.logging
import numpy as np
import numpy.typing as npt
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.plane import AudioPlane
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Disposition

from serve_app.audio.bytesource import ByteSource
from serve_app.audio.containers import DECODERS, SEARCHED_BYTES
from serve_app.audio.layout import AudioLimits
from serve_app.core.errors import UnknownAudioFormat, UnsupportedAudioLayout

# FFmpeg's own AMR decoders reject the frames that phones send during silence.
_WITH_PAUSES = {"amrnb": "libopencore_amrnb", "amrwb": "libopencore_amrwb"}
_PLAIN_NAMES = {
    "mp3float": "mp3",
    "mp2float": "mp2",
    "mp1float": "mp1",
    "libopus": "opus",
    "libopencore_amrnb": "amrnb",
    "libopencore_amrwb": "amrwb",
}
# Limits of the comparison of several tracks.
_LOOK_AUDIO_S = 30.0
_LOOK_CPU_S = 0.2
_SILENT_POWER = 1e-8
# These hold one audio track. FFmpeg makes another of every damaged tag, which is short.
_ONE_TRACK = {"flv"}
_SPURIOUS_SHARE = 0.1
# Wall time for any operation of FFmpeg.
_TIMEOUT_S = 60.0
# How much FFmpeg reads to find the streams. For bare frames it needs only the first one, which
# sniffing has found; it would parse and decode everything that it reads.
_PROBE_BYTES = 2_000_000
_PROBE_BYTES_OF = {"aac": SEARCHED_BYTES, "amr": SEARCHED_BYTES}

av.logging.set_libav_level(av.logging.PANIC)


def open_container(source: ByteSource, demuxer: str) -> InputContainer:
    """Opens a file with one of FFmpeg's demuxers.

    Raises:
        av.FFmpegError: FFmpeg cannot read it.
    """
    source.seek(0)
    return av.open(
        source,
        "r",
        format=demuxer,
        metadata_errors="replace",
        io_open=_refuse_to_open,
        timeout=(_TIMEOUT_S, _TIMEOUT_S),
        container_options={
            "format_whitelist": demuxer,
            "protocol_whitelist": "none",
            "codec_whitelist": ",".join(sorted(DECODERS)),
            "max_streams": "64",
            "probesize": str(_PROBE_BYTES_OF.get(demuxer, _PROBE_BYTES)),
            # It would search the end of the file for its length, too.
            "skip_estimate_duration_from_pts": "1",
        },
    )


def _refuse_to_open(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("audio files may not refer to other files")


@dataclass(frozen=True, slots=True)
class PickedTrack:
    """The track that is decoded.

    Attributes:
        stream: the track.
        alone: whether the file has no other track of any kind.
        notice: for the caller, about other audio tracks; None without any.
    """

    stream: AudioStream
    alone: bool
    notice: str | None


def pick_track(
    container: InputContainer, source: ByteSource, demuxer: str, limits: AudioLimits
) -> PickedTrack:
    """Returns the track that is decoded.

    That is the track marked as the default, unless it is silent and another one is not;
    without a mark it is the loudest one. A track with an unsupported layout is chosen only if
    there is no other.

    Raises:
        UnknownAudioFormat: there is no audio, or no decoder for it.
    """
    tracks = list(container.streams.audio)
    if not tracks:
        raise UnknownAudioFormat("it holds no audio stream")
    usable = [track for track in tracks if _is_usable(track)]
    if not usable:
        raise UnknownAudioFormat("its audio codec is not supported")
    usable = [track for track in usable if _is_accepted(track, limits)] or usable
    num_streams = len(container.streams)
    picked = usable[0]
    if len(tracks) > 1:
        contents = _contents(source, demuxer, tracks)
        if demuxer in _ONE_TRACK:
            longest_s = max((one.seconds for one in contents.values()), default=0.0)
            least_s = _SPURIOUS_SHARE * longest_s
            spurious = [one for one in tracks if _seconds(contents, one) < least_s]
            num_streams -= len(spurious)
            tracks = [one for one in tracks if one not in spurious]
            usable = [one for one in usable if one not in spurious] or usable
        picked = _preferred(usable, contents)
    for stream in container.streams:
        if stream.index != picked.index:
            stream.discard = Discard.all
    notice = _notice(tracks, picked) if len(tracks) > 1 else None
    return PickedTrack(picked, num_streams == 1, notice)


def _notice(tracks: list[AudioStream], picked: AudioStream) -> str:
    number, language = tracks.index(picked) + 1, picked.language
    named = f"track {number} ({language})" if language else f"track {number}"
    return f"The file has {len(tracks)} audio tracks; {named} was transcribed."


def _is_usable(stream: AudioStream) -> bool:
    return stream.codec_context is not None and stream.codec_context.name in DECODERS


def _is_accepted(stream: AudioStream, limits: AudioLimits) -> bool:
    codec = stream.codec_context
    try:
        limits.check_layout(codec.sample_rate, codec.layout.nb_channels)
    except UnsupportedAudioLayout:
        return False
    return True


@dataclass(slots=True)
class _Content:
    """Energy and length of the beginning of a track."""

    energy: float = 0.0
    seconds: float = 0.0

    @property
    def power(self) -> float:
        return self.energy / self.seconds if self.seconds else 0.0


def _seconds(contents: dict[int, _Content], track: AudioStream) -> float:
    return contents[track.index].seconds if track.index in contents else 0.0


def _preferred(tracks: list[AudioStream], contents: dict[int, _Content]) -> AudioStream:
    def power(track: AudioStream) -> float:
        return contents[track.index].power if track.index in contents else 0.0

    marked = [track for track in tracks if track.disposition & Disposition.default]
    for candidates in (marked, tracks):
        loudest = max(candidates, key=power, default=None)
        if loudest is not None and power(loudest) > _SILENT_POWER:
            return loudest
    return (marked or tracks)[0]


def _contents(source: ByteSource, demuxer: str, tracks: list[AudioStream]) -> dict[int, _Content]:
    """Decodes the beginning of each track to compare them."""
    contents = {track.index: _Content() for track in tracks if _is_usable(track)}
    began_s = time.thread_time()
    with contextlib.suppress(av.FFmpegError, ValueError, RuntimeError):
        container = open_container(source.view(), demuxer)
        with container:
            for packet in container.demux([container.streams[index] for index in contents]):
                if time.thread_time() - began_s > _LOOK_CPU_S or all(
                    one.seconds >= _LOOK_AUDIO_S for one in contents.values()
                ):
                    break
                codec = packet.stream.codec_context
                if not packet.size or not isinstance(codec, AudioCodecContext):
                    continue
                with contextlib.suppress(av.FFmpegError):
                    for frame in codec.decode(packet):
                        _add(contents[packet.stream_index], frame)
    return contents


def _add(content: _Content, frame: AudioFrame) -> None:
    samples = channels_of(frame)
    if samples.size and np.isfinite(samples).all():
        duration_s = frame.samples / max(frame.sample_rate, 1)
        content.energy += float(np.square(samples, dtype=np.float64).mean()) * duration_s
        content.seconds += duration_s


def decoder_of(stream: AudioStream) -> AudioCodecContext:
    """Returns the decoder of a track, which uses the calling thread only."""
    codec = stream.codec_context
    if codec.name in _WITH_PAUSES:
        other = new_decoder_of(stream, codec.extradata)
        if other is not None:
            return other
    _restrain(codec)
    return codec


def new_decoder_of(stream: AudioStream, extradata: bytes | None) -> AudioCodecContext | None:
    """Returns a new decoder of a track, without the state of earlier packets."""
    codec = new_lenient_decoder_of(stream, extradata)
    if codec is not None:
        _restrain(codec)
    return codec


def new_lenient_decoder_of(
    stream: AudioStream, extradata: bytes | None
) -> AudioCodecContext | None:
    """Returns a new decoder of a track that also decodes frames with a wrong checksum."""
    codec = stream.codec_context
    with contextlib.suppress(av.FFmpegError, ValueError):
        other = av.CodecContext.create(_WITH_PAUSES.get(codec.name, codec.name), "r")
        if isinstance(other, AudioCodecContext):
            if codec.name not in _WITH_PAUSES:
                other.extradata = extradata
            other.sample_rate, other.layout = codec.sample_rate, codec.layout
            other.thread_count = 1
            return other
    return None


def _restrain(codec: AudioCodecContext) -> None:
    # One thread per decoder: parallelism comes from the replicas.
    codec.thread_count = 1
    if codec.name == "flac":
        codec.options = {"err_detect": "crccheck+explode"}


def plain_name(decoder: str) -> str:
    """Returns the name of a codec instead of its implementation's."""
    return _PLAIN_NAMES.get(decoder, decoder)


def stated_s(container: InputContainer, stream: AudioStream) -> float | None:
    """Returns the length that FFmpeg read from a header, None without one."""
    if not stream.duration or stream.duration < 0 or not stream.time_base:
        duration = container.duration or 0
        return duration / av.time_base if duration > 0 else None
    return float(stream.duration * stream.time_base)


_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}
_FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31}


def channels_of(frame: AudioFrame) -> npt.NDArray[np.float32]:
    """Returns the samples, shape [channels, n], full scale at 1.0.

    PyAV's `AudioFrame.planes`, and `to_ndarray` with it, counts the planes by
    reading pointers up to a null (18.1, av/audio/frame.py). With eight planar
    channels or more there is none, and the process crashes. So the planes are
    counted here.
    """
    planar = frame.format.is_planar
    kind = frame.format.name.removesuffix("p") if planar else frame.format.name
    channels = frame.layout.nb_channels
    num_planes, interleaved = (channels, 1) if planar else (1, channels)
    planes = [
        np.frombuffer(
            memoryview(AudioPlane(frame, plane)), _DTYPES[kind], frame.samples * interleaved
        )
        for plane in range(num_planes)
    ]
    with np.errstate(over="ignore", invalid="ignore"):
        samples = np.stack(planes).astype(np.float32)
    if kind == "u8":
        samples -= 128.0
    samples /= np.float32(_FULL_SCALE.get(kind, 1.0))
    return samples if planar else samples.reshape(-1, channels).T


_CLUSTER = b"\x1f\x43\xb6\x75"
_TIMESTAMP = 0xE7
_SCALE = b"\x2a\xd7\xb1"
_HEAD_BYTES = 16 * 1024
_SEARCHED_BYTES = 1 << 20
_DEFAULT_SCALE_NS = 1_000_000


def first_cluster_s(source: ByteSource) -> float | None:
    """Returns the time of the first cluster, the earliest start of any stream."""
    return _cluster_s(source.peek(0, _SEARCHED_BYTES), scale_ns(source), last=False)


def last_cluster_s(source: ByteSource) -> float | None:
    """Returns the time of the last cluster, close to the end of the file."""
    start = max(source.num_bytes - _SEARCHED_BYTES, 0)
    return _cluster_s(source.peek(start, _SEARCHED_BYTES), scale_ns(source), last=True)


def duration_s(source: ByteSource) -> float | None:
    """Returns the declared length; live recorders leave it out."""
    head = source.peek(0, _HEAD_BYTES)
    for size, layout in ((0x88, ">d"), (0x84, ">f")):
        start = head.find(bytes((0x44, 0x89, size)))
        if 0 <= start <= len(head) - 11:
            return float(struct.unpack_from(layout, head, start + 3)[0]) * scale_ns(source) / 1e9
    return None


def scale_ns(source: ByteSource) -> int:
    """Returns the length of a tick."""
    head = source.peek(0, _HEAD_BYTES)
    start = head.find(_SCALE)
    if not 0 <= start <= len(head) - 8:
        return _DEFAULT_SCALE_NS
    num_bytes = head[start + 3] & 0x0F
    return int.from_bytes(head[start + 4 : start + 4 + num_bytes], "big") or _DEFAULT_SCALE_NS


def _cluster_s(content: bytes, tick_ns: int, *, last: bool) -> float | None:
    start = content.rfind(_CLUSTER) if last else content.find(_CLUSTER)
    if start < 0:
        return None
    # The cluster's size has 1 to 8 bytes; a checksum may precede the time.
    offset = start + 4 + _vint_bytes(content[start + 4 : start + 5])
    if content[offset : offset + 2] == b"\xbf\x84":
        offset += 6
    if content[offset : offset + 1] != bytes((_TIMESTAMP,)):
        return None
    num_bytes = content[offset + 1] & 0x7F if len(content) > offset + 1 else 0
    if not 1 <= num_bytes <= 8:
        return None
    return int.from_bytes(content[offset + 2 : offset + 2 + num_bytes], "big") * tick_ns / 1e9


def _vint_bytes(first: bytes) -> int:
    return 9 - first[0].bit_length() if first and first[0] else 8


_MAGIC = b"OggS"
_HEADER_BYTES = 27
_FIRST_PAGE = 2
_SEARCHED_BYTES = 1 << 16
_PAGES_AT_ONCE = 256
# How the first page of a stream begins, by codec.
_CODEC_MAGICS = (
    b"OpusHead", b"\x01vorbis", b"Speex   ", b"\x7fFLAC", b"fishead\0", b"\x80theora",
    b"\x80kate", b"PCM     ", b"BBCD\0", b"OVP80",
)  # fmt: skip


def find_links(source: ByteSource) -> Iterator[int | None]:
    """Yields the offset of each chained stream, and None regularly so that the caller can pause.

    The first one starts at 0. Multiplexed streams start together and count as one.
    """
    yield 0
    offset = num_pages = 0
    begun = False
    while len(header := source.peek(offset, _HEADER_BYTES + 255)) >= _HEADER_BYTES:
        num_pages += 1
        if num_pages % _PAGES_AT_ONCE == 0:
            yield None
        if header[:4] != _MAGIC or header[4]:
            found = source.peek(offset + 1, _SEARCHED_BYTES).find(_MAGIC)
            offset += 1 + found if found >= 0 else _SEARCHED_BYTES - len(_MAGIC)
            continue
        num_segments = header[26]
        body = header[_HEADER_BYTES + num_segments :]
        # A damaged page may have the flag, but hardly a codec's name as well.
        is_first = bool(header[5] & _FIRST_PAGE) and body.startswith(_CODEC_MAGICS)
        if is_first and begun:
            yield offset
        begun = not is_first
        body_bytes = sum(header[_HEADER_BYTES : _HEADER_BYTES + num_segments])
        offset += _HEADER_BYTES + num_segments + body_bytes
