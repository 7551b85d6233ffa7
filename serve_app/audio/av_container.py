"""Opens a file with FFmpeg and picks what is decoded of it.

The bytes are hostile. FFmpeg gets one demuxer by name, a list of audio decoders
(pictures and video are never decoded), and no way to open anything else.
"""

from __future__ import annotations

import contextlib
import time
from typing import NoReturn

import av
import av.logging
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Disposition

from serve_app.audio.av_frames import channels_of
from serve_app.audio.bytesource import ByteSource
from serve_app.audio.demuxers import DECODERS
from serve_app.core.errors import UnknownAudioFormat

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
# Of wall time, whatever FFmpeg is busy with.
_TIMEOUT_S = 60.0

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
            # What FFmpeg reads to learn about the streams; it would search the end of the
            # file for its length, too.
            "probesize": "2000000",
            "skip_estimate_duration_from_pts": "1",
        },
    )


def _refuse_to_open(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("audio files may not refer to other files")


def pick_stream(
    container: InputContainer, source: ByteSource, demuxer: str
) -> tuple[AudioStream, str | None]:
    """Returns the track that is decoded, and a notice if there were others.

    That is the one that is marked as the default, unless it is silent and another one is
    not; without a mark it is the loudest one.

    Raises:
        UnknownAudioFormat: there is no audio, or no decoder for it.
    """
    tracks = list(container.streams.audio)
    if not tracks:
        raise UnknownAudioFormat("it holds no audio stream")
    usable = [track for track in tracks if _is_usable(track)]
    if not usable:
        raise UnknownAudioFormat("its audio codec is not supported")
    picked, notice = usable[0], None
    if len(tracks) > 1:
        picked = _preferred(usable, _powers(source, demuxer, usable))
        number, language = tracks.index(picked) + 1, picked.language
        named = f"track {number} ({language})" if language else f"track {number}"
        notice = f"The file has {len(tracks)} audio tracks; {named} was transcribed."
    for stream in container.streams:
        if stream.index != picked.index:
            stream.discard = Discard.all
    return picked, notice


def _is_usable(stream: AudioStream) -> bool:
    return stream.codec_context is not None and stream.codec_context.name in DECODERS


def _preferred(tracks: list[AudioStream], powers: dict[int, float]) -> AudioStream:
    marked = [track for track in tracks if track.disposition & Disposition.default]
    for candidates in (marked, tracks):
        loudest = max(candidates, key=lambda track: powers.get(track.index, 0.0), default=None)
        if loudest is not None and powers.get(loudest.index, 0.0) > _SILENT_POWER:
            return loudest
    return (marked or tracks)[0]


def _powers(source: ByteSource, demuxer: str, tracks: list[AudioStream]) -> dict[int, float]:
    """Returns the mean power of each track, as far as a short look goes."""
    energy: dict[int, float] = {}
    seconds: dict[int, float] = {}
    began_s = time.thread_time()
    with contextlib.suppress(av.FFmpegError, ValueError, RuntimeError):
        container = open_container(source.view(), demuxer)
        with container:
            looked_at = [container.streams[track.index] for track in tracks]
            for packet in container.demux(looked_at):
                if time.thread_time() - began_s > _LOOK_CPU_S or all(
                    seconds.get(track.index, 0.0) >= _LOOK_AUDIO_S for track in tracks
                ):
                    break
                index = packet.stream_index
                codec = packet.stream.codec_context
                if not packet.size or not isinstance(codec, AudioCodecContext):
                    continue
                with contextlib.suppress(av.FFmpegError):
                    for frame in codec.decode(packet):
                        samples = channels_of(frame)
                        if samples.size and np.isfinite(samples).all():
                            power = float(np.square(samples, dtype=np.float64).mean())
                            duration_s = frame.samples / max(frame.sample_rate, 1)
                            energy[index] = energy.get(index, 0.0) + power * duration_s
                            seconds[index] = seconds.get(index, 0.0) + duration_s
    return {index: energy[index] / seconds[index] for index in energy if seconds[index]}


def decoder_of(stream: AudioStream) -> AudioCodecContext:
    """Returns the decoder of a track, which runs on the calling thread alone."""
    codec = stream.codec_context
    if codec.name in _WITH_PAUSES:
        with contextlib.suppress(av.FFmpegError, ValueError):
            other = av.CodecContext.create(_WITH_PAUSES[codec.name], "r")
            if isinstance(other, AudioCodecContext):
                other.sample_rate, other.layout = codec.sample_rate, codec.layout
                return other
    # One thread a decoder: the replicas are what runs in parallel.
    codec.thread_count = 1
    if codec.name == "flac":
        codec.options = {"err_detect": "crccheck+explode"}
    return codec


def lenient_decoder_of(stream: AudioStream) -> AudioCodecContext | None:
    """Returns a second decoder of a track, that decodes what has a wrong checksum."""
    codec = stream.codec_context
    with contextlib.suppress(av.FFmpegError, ValueError):
        other = av.CodecContext.create(codec.name, "r")
        if isinstance(other, AudioCodecContext):
            other.extradata = codec.extradata
            other.sample_rate, other.layout = codec.sample_rate, codec.layout
            other.thread_count = 1
            return other
    return None


def plain_name(decoder: str) -> str:
    """Returns the name of a codec without that of its implementation."""
    return _PLAIN_NAMES.get(decoder, decoder)


def stated_s(container: InputContainer, stream: AudioStream) -> float | None:
    """Returns the length that FFmpeg read from a header, None without one."""
    if not stream.duration or stream.duration < 0 or not stream.time_base:
        duration = container.duration or 0
        return duration / av.time_base if duration > 0 else None
    return float(stream.duration * stream.time_base)
