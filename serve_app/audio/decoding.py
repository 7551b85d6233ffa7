"""The decoder: one recording in, windows of samples out."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import av
import numpy as np
import soundfile

from serve_app.audio.av_reader import AvReader
from serve_app.audio.boxes import read_mp4_layout
from serve_app.audio.bytesource import AudioSource, ByteSource
from serve_app.audio.headers import read_pcm_header
from serve_app.audio.layout import AudioInfo, AudioLimits, Block, check_complete
from serve_app.audio.pcm_reader import PcmReader
from serve_app.audio.resampling import PcmResampler
from serve_app.audio.sniffing import sniff_source
from serve_app.core.chunks import SAMPLE_RATE_HZ, Pcm
from serve_app.core.errors import (
    AudioTooLong,
    AudioTooShort,
    CorruptAudio,
    EmptyUpload,
    UnknownAudioFormat,
)
from serve_app.core.right_of_way import yield_point

# All that the libraries raise for bytes that they cannot make sense of.
_LIBRARY_ERRORS = (
    av.FFmpegError,
    soundfile.SoundFileError,
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
    """Decodes a recording in windows; memory does not depend on its length.

    Opening reads the header only. A context manager; not thread-safe.

    Args:
        source: the file's bytes (a buffer is not copied), its path, or an open
            seekable file, which stays the caller's.
        limits: what is accepted.

    Raises:
        AudioError: the subclass says what is wrong with the file.
        OSError: the file could not be read from its disk.
    """

    def __init__(self, source: AudioSource, limits: AudioLimits) -> None:
        self._limits = limits
        self._decoded_samples = 0
        self._source = ByteSource(source)
        self._reader: AvReader | PcmReader | None = None
        try:
            self._reader = self._open()
        except BaseException:
            self.close()
            raise
        self.info: AudioInfo = self._reader.info

    @property
    def decoded_samples(self) -> int:
        """Samples at 16 kHz that `windows` has yielded or is about to."""
        return self._decoded_samples

    def windows(self) -> Iterator[Pcm]:
        """Yields int16 samples [n], n at most window_s * 16000 and never 0; once only.

        Raises:
            AudioError: as soon as it is certain, possibly after windows.
        """
        window_samples = max(int(self._limits.window_s * SAMPLE_RATE_HZ), 1)
        window = np.empty(window_samples, np.int16)
        num_filled = 0
        for samples in self._samples():
            start = 0
            while start < len(samples):
                taken = samples[start : start + window_samples - num_filled]
                window[num_filled : num_filled + len(taken)] = taken
                num_filled += len(taken)
                start += len(taken)
                if num_filled == window_samples:
                    yield window
                    window, num_filled = np.empty(window_samples, np.int16), 0
        self._check_end()
        if num_filled:
            yield window[:num_filled].copy()

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

    def _open(self) -> AvReader | PcmReader:
        source = self._source
        if not source.num_bytes:
            raise EmptyUpload
        container = sniff_source(source)
        source.reraise_failure()
        if container is None:
            raise UnknownAudioFormat("its content is of no known kind")
        try:
            if container in {"wav", "rf64", "w64", "aiff"}:
                return self._open_pcm(container)
            fragmented = container == "mp4" and read_mp4_layout(source).fragmented
            return AvReader(source, container, self._limits, fragmented)
        except _LIBRARY_ERRORS as error:
            source.reraise_failure()
            raise CorruptAudio(f"its {container} header cannot be read") from error

    def _open_pcm(self, container: str) -> AvReader | PcmReader:
        header = read_pcm_header(self._source, container)
        if header.plain:
            try:
                return PcmReader(self._source, container, header, self._limits)
            except soundfile.SoundFileError:
                self._source.seek(0)
        reader = AvReader(self._source, container, self._limits)
        self._limits.check_declared(header.declared_s)
        if header.available_s is not None:
            check_complete(header.available_s, header.declared_s)
        return reader

    def _samples(self) -> Iterator[Pcm]:
        resampler = PcmResampler()
        max_samples = self._limits.max_duration_s * SAMPLE_RATE_HZ
        for block in self._blocks():
            samples = resampler.push(block)
            self._decoded_samples += len(samples)
            if self._decoded_samples > max_samples:
                raise AudioTooLong(
                    self._decoded_samples / SAMPLE_RATE_HZ, self._limits.max_duration_s
                )
            yield samples
        rest = resampler.finish()
        self._decoded_samples += len(rest)
        yield rest

    def _blocks(self) -> Iterator[Block]:
        """The reader's blocks, its library's exceptions translated."""
        if self._reader is None:
            raise ValueError("the decoder is closed")
        blocks = self._reader.blocks()
        while True:
            yield_point()
            try:
                block = next(blocks)
            except StopIteration:
                return
            except _LIBRARY_ERRORS as error:
                self._source.reraise_failure()
                raise CorruptAudio(
                    f"decoding stopped after {self._decoded_samples / SAMPLE_RATE_HZ:.2f} s"
                ) from error
            yield block

    def _check_end(self) -> None:
        """Raises what can only be known when everything is decoded."""
        self._source.reraise_failure()
        decoded_s = self._decoded_samples / SAMPLE_RATE_HZ
        reader = self._reader
        if isinstance(reader, AvReader) and reader.declares_length:
            check_complete(decoded_s, reader.info.declared_s)
        if reader is not None and reader.ends_damaged:
            raise CorruptAudio(f"it cannot be decoded past {decoded_s:.2f} s")
        declared_s = self.info.declared_s or 0.0
        if not self._decoded_samples and declared_s >= max(self._limits.min_duration_s, 0.1):
            raise CorruptAudio("none of its data can be decoded")
        if not self._decoded_samples or decoded_s < self._limits.min_duration_s:
            raise AudioTooShort(decoded_s, self._limits.min_duration_s)
