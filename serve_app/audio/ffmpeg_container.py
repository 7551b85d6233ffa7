"""Opens a file with FFmpeg and picks what is decoded of it.

The bytes are hostile. FFmpeg gets one demuxer by name, a list of audio decoders
(pictures and video are never decoded), and no way to open anything else.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import NoReturn

import av
import av.logging
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Disposition

from serve_app.audio.av_frames import channels_of
from serve_app.audio.bytesource import ByteSource
from serve_app.audio.containers import SEARCHED_BYTES
from serve_app.audio.demuxers import DECODERS
from serve_app.audio.layout import AudioLimits
from serve_app.core.errors import UnknownAudioFormat, UnsupportedAudioLayout

# FFmpeg's own AMR decoders refuse the frames that phones send while nobody speaks.
_WITH_PAUSES = {"amrnb": "libopencore_amrnb", "amrwb": "libopencore_amrwb"}
_PLAIN_NAMES = {
    "mp3float": "mp3",
    "mp2float": "mp2",
    "mp1float": "mp1",
    "libopus": "opus",
    "libopencore_amrnb": "amrnb",
    "libopencore_amrwb": "amrwb",
}
# How far is looked into several tracks to find the one with sound in it.
_LOOK_AUDIO_S = 30.0
_LOOK_CPU_S = 0.2
_SILENT_POWER = 1e-8
# These hold one audio track. FFmpeg makes another of every damaged tag; its length tells.
_ONE_TRACK = {"flv"}
_SPURIOUS_SHARE = 0.1
# Of wall time, whatever FFmpeg is busy with.
_TIMEOUT_S = 60.0
# What FFmpeg reads to learn about the streams. Of files that are nothing but frames it needs
# the first one, wherever sniffing has found it; it would parse and decode all that it reads.
_PROBE_BYTES = 2_000_000
_PROBE_BYTES_OF = {"aac": SEARCHED_BYTES, "amr": SEARCHED_BYTES}

av.logging.set_libav_level(av.logging.PANIC)


def open_container(source: ByteSource, demuxer: str) -> InputContainer:
    """Opens a file with a demuxer of FFmpeg's.

    Raises:
        av.FFmpegError: FFmpeg does not read it.
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
        alone: whether the file has no other track, of whatever kind.
        notice: what to tell of the others, None if there are none.
    """

    stream: AudioStream
    alone: bool
    notice: str | None


def pick_track(
    container: InputContainer, source: ByteSource, demuxer: str, limits: AudioLimits
) -> PickedTrack:
    """Returns the track that is decoded.

    That is the one that is marked as the default, unless it is silent and another one is
    not; without a mark it is the loudest one. A layout that is not accepted is taken only
    where there is no other.

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
    """What a short look at a track has found."""

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
    """Returns what is in each track, as far as a short look goes."""
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
    """Returns the decoder of a track, which runs on the calling thread alone."""
    codec = stream.codec_context
    if codec.name in _WITH_PAUSES:
        other = new_decoder_of(stream, codec.extradata)
        if other is not None:
            return other
    _restrain(codec)
    return codec


def new_decoder_of(stream: AudioStream, extradata: bytes | None) -> AudioCodecContext | None:
    """Returns another decoder of a track that knows nothing of its packets yet."""
    codec = new_lenient_decoder_of(stream, extradata)
    if codec is not None:
        _restrain(codec)
    return codec


def new_lenient_decoder_of(
    stream: AudioStream, extradata: bytes | None
) -> AudioCodecContext | None:
    """Returns another decoder of a track that decodes what has a wrong checksum, too."""
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
    # One thread a decoder: the replicas are what runs in parallel.
    codec.thread_count = 1
    if codec.name == "flac":
        codec.options = {"err_detect": "crccheck+explode"}


def plain_name(decoder: str) -> str:
    """Returns the name of a codec without that of its implementation."""
    return _PLAIN_NAMES.get(decoder, decoder)


def stated_s(container: InputContainer, stream: AudioStream) -> float | None:
    """Returns the length that FFmpeg read from a header, None without one."""
    if not stream.duration or stream.duration < 0 or not stream.time_base:
        duration = container.duration or 0
        return duration / av.time_base if duration > 0 else None
    return float(stream.duration * stream.time_base)
