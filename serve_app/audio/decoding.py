"""Decodes a recording into blocks of samples."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import av
import numpy as np

from serve_app.audio.bytesource import AudioSource, ByteSource
from serve_app.audio.channels import ChannelMapping, Downmix, SeparateChannels
from serve_app.audio.damage import DamageReport
from serve_app.audio.layout import AudioInfo, AudioLimits, Frame, missing_s
from serve_app.audio.opening import Opener, Reader
from serve_app.audio.resampling import ChannelPcm, PcmResampler
from serve_app.audio.work import WorkBudget, WorkMeter
from serve_app.core.errors import (
    AudioError,
    AudioTooLong,
    AudioTooShort,
    CorruptAudio,
    InvalidSamples,
    TruncatedAudio,
)
from serve_app.core.records import SAMPLE_RATE_HZ, DamagedRange, Pcm
from serve_app.scheduling.preemption import yield_point

# What the libraries raise for malformed data.
_LIBRARY_ERRORS = (
    av.FFmpegError,
    ValueError,
    ArithmeticError,
    LookupError,
    EOFError,
    MemoryError,
    NotImplementedError,
    PermissionError,
    RuntimeError,
    TypeError,
)


class AudioDecoder:
    """Decodes a recording in blocks; memory does not depend on its length.

    Damaged parts become silence, so that times stay correct, and are listed in `damage`.
    Opening reads the header only. A context manager; not thread-safe, but each step may
    run on another thread.

    Args:
        source: the file's bytes (a buffer is not copied), its path, or an open
            seekable file, which the caller closes.
        limits: accepted rates, channels and lengths.
        budget: CPU time that decoding may take.
        separate_channels: keep the channels apart, instead of mixing them to one.
        open_at_once: False if the caller opens the file in steps, with `opening`.

    Raises:
        AudioError: the file is not acceptable; the subclass names the reason.
        OSError: the file could not be read from disk.
    """

    def __init__(
        self,
        source: AudioSource,
        limits: AudioLimits,
        budget: WorkBudget | None = None,
        *,
        separate_channels: bool = False,
        open_at_once: bool = True,
    ) -> None:
        self._limits = limits
        self._decoded_samples = 0
        self._heard_samples = 0
        self._report = DamageReport()
        self._source = ByteSource(source)
        self._meter = WorkMeter(self._source.num_bytes, budget or WorkBudget())
        self._source.limit_reads(self._meter.call_is_over)
        self._mapping: ChannelMapping = SeparateChannels(limits) if separate_channels else Downmix()
        self._opener = Opener(
            self._source, limits, self._report, self._mapping, self._meter.begin_call
        )
        self._reader: Reader | None = None
        self._info: AudioInfo | None = None
        if open_at_once:
            for _ in self.opening():
                pass

    @property
    def info(self) -> AudioInfo:
        """The format that the header declares."""
        if self._info is None:
            raise ValueError("the decoder is not open")
        return self._info

    @property
    def num_channels(self) -> int:
        """Channels of the decoded samples: 1 unless they are kept apart."""
        return self._mapping.num_channels

    @property
    def decoded_samples(self) -> int:
        """Samples of a channel at 16 kHz that `blocks` has yielded or is about to."""
        return self._decoded_samples

    @property
    def damage(self) -> tuple[DamagedRange, ...]:
        """The ranges that could not be decoded so far, in order of time."""
        return self._report.ranges

    @property
    def notices(self) -> tuple[str, ...]:
        """Other notices for the caller so far, in plain English."""
        return (*self._report.notices, *self._mapping.notices)

    @property
    def work_is_usual(self) -> bool:
        """Whether decoding has used no more CPU time than an ordinary recording needs."""
        return self._meter.is_usual(self._heard_samples / SAMPLE_RATE_HZ)

    def opening(self) -> Iterator[None]:
        """Reads the header, pausing when a slice of CPU time is used up.

        Raises:
            AudioError: the file is not acceptable.
        """
        self._meter.resume()
        try:
            for _ in self._opener.prepare():
                yield_point()
                if self._has_used_slice():
                    yield
                    self._meter.resume()
            self._reader = self._first_reader()
            self._info = self._opener.info_of(self._reader)
        except BaseException:
            self.close()
            raise
        self._meter.pause()

    def blocks(self) -> Iterator[Pcm]:
        """Yields int16 samples [n], n at most block_s * 16000 and never 0; call once.

        Of separate channels it is the first one only.

        Raises:
            AudioError: as soon as the fault is certain, possibly after some blocks.
        """
        for block in self.steps():
            if block.shape[1]:
                yield block[0]

    def steps(self) -> Iterator[ChannelPcm]:
        """Yields blocks [num_channels, n], and an empty one when a slice of CPU time is used up.

        Raises:
            AudioError: as soon as the fault is certain, possibly after some blocks.
        """
        self._meter.resume()
        shape = self.num_channels, max(int(self._limits.block_s * SAMPLE_RATE_HZ), 1)
        block = np.empty(shape, np.int16)
        num_filled = 0
        for samples in self._samples():
            start = 0
            while start < samples.shape[1]:
                taken = samples[:, start : start + shape[1] - num_filled]
                num_taken = taken.shape[1]
                block[:, num_filled : num_filled + num_taken] = taken
                num_filled += num_taken
                start += num_taken
                if num_filled == shape[1]:
                    self._meter.pause()
                    yield block
                    self._meter.resume()
                    block, num_filled = np.empty(shape, np.int16), 0
            if self._has_used_slice():
                yield block[:, :0]
                self._meter.resume()
        self._check_end()
        self._meter.pause()
        if num_filled:
            yield block[:, :num_filled].copy()

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _has_used_slice(self) -> bool:
        """True if decoding should pause now; the caller resumes it.

        Raises:
            AudioTooComplex: decoding has taken too much CPU time in all.
        """
        self._meter.check(self._heard_samples / SAMPLE_RATE_HZ)
        if not self._meter.slice_is_over:
            return False
        self._meter.pause()
        return True

    def _first_reader(self) -> Reader:
        try:
            return self._opener.open_first()
        except _LIBRARY_ERRORS as error:
            self._source.reraise_failure()
            self._meter.check(0.0)
            container = self._opener.container
            raise CorruptAudio(f"its {container} header cannot be read") from error

    def _samples(self) -> Iterator[ChannelPcm]:
        resampler = PcmResampler(self.num_channels)
        nothing = np.empty((self.num_channels, 0), np.int16)
        max_samples = self._limits.max_duration_s * SAMPLE_RATE_HZ
        for frame in self._frames():
            samples = resampler.push(frame) if frame.num_samples else nothing
            if frame.num_samples and not frame.filled:
                self._meter.count_piece()
            num_samples = samples.shape[1]
            self._decoded_samples += num_samples
            self._heard_samples += 0 if frame.filled else num_samples
            if self._decoded_samples > max_samples:
                raise AudioTooLong(
                    self._decoded_samples / SAMPLE_RATE_HZ, self._limits.max_duration_s
                )
            yield samples
        rest = resampler.finish()
        self._decoded_samples += rest.shape[1]
        self._heard_samples += rest.shape[1]
        yield rest

    def _frames(self) -> Iterator[Frame]:
        """The frames of the file and of the files appended to it."""
        if self._reader is None:
            raise ValueError("the decoder is closed")
        position_s = 0.0
        while self._reader is not None:
            for frame in self._frames_from(self._reader):
                position_s += frame.num_samples / frame.rate_hz
                yield frame
            self._report_missing(self._reader, position_s)
            self._reader.close()
            self._reader = self._next_reader(position_s)

    def _frames_from(self, reader: Reader) -> Iterator[Frame]:
        """The frames of one reader; if its library fails, the rest is damaged."""
        frames = reader.frames()
        while True:
            yield_point()
            try:
                frame = next(frames)
            except StopIteration:
                return
            except (CorruptAudio, InvalidSamples):
                # Nothing of this file is usable.
                if not reader.base_s:
                    raise
                at_s = self._decoded_samples / SAMPLE_RATE_HZ
                self._report.add(reader.base_s, at_s, "the data is damaged")
                return
            except _LIBRARY_ERRORS as error:
                self._source.reraise_failure()
                if not self._heard_samples:
                    raise CorruptAudio("its data cannot be decoded") from error
                at_s = self._decoded_samples / SAMPLE_RATE_HZ
                self._report.add(at_s, at_s + 1.0, "decoding stopped here")
                return
            yield frame

    def _report_missing(self, reader: Reader, position_s: float) -> None:
        """Reports audio that the header declares but the file lacks."""
        declared_s = reader.info.declared_s if reader.declares_length else None
        lacking_s = missing_s(position_s - reader.base_s, declared_s)
        if lacking_s and self._heard_samples:
            self._report.add(position_s, position_s + lacking_s, "the file is cut off")

    def _next_reader(self, position_s: float) -> Reader | None:
        """Opens the next appended file; one that cannot be opened is reported as damage."""
        while self._opener.has_more:
            try:
                return self._opener.open_next(position_s)
            except AudioTooLong:
                raise
            except (AudioError, *_LIBRARY_ERRORS):
                self._source.reraise_failure()
                self._report.add(
                    position_s, position_s + 1.0, "a file that was appended cannot be read"
                )
        return None

    def _check_end(self) -> None:
        """Raises the errors that are certain only after everything is decoded."""
        self._source.reraise_failure()
        self._meter.check(self._heard_samples / SAMPLE_RATE_HZ)
        heard_s = self._heard_samples / SAMPLE_RATE_HZ
        declared_s = self.info.declared_s or 0.0
        least_s = max(self._limits.min_duration_s, 0.1)
        if not self._heard_samples and declared_s >= least_s:
            raise CorruptAudio("none of its data can be decoded")
        if not self._heard_samples or heard_s < self._limits.min_duration_s:
            if self._report.ranges and declared_s >= least_s:
                raise TruncatedAudio(heard_s, declared_s)
            if self._report.ranges:
                raise CorruptAudio("hardly any of its data can be decoded")
            raise AudioTooShort(heard_s, self._limits.min_duration_s)
