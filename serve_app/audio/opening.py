"""Chooses the reader that decodes a file, from its first bytes.

An upload whose beginning already proves that it is not audio is refused before the rest has
arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from serve_app.audio.bytesource import ByteSource
from serve_app.audio.channels import ChannelMapping
from serve_app.audio.containers import SEARCHED_BYTES, UNKNOWN_KIND, sniff_source
from serve_app.audio.damage import DamageReport
from serve_app.audio.ffmpeg_container import find_links
from serve_app.audio.layout import AudioInfo, AudioLimits, Frame
from serve_app.audio.mp4 import walk_mp4_layout
from serve_app.audio.pcm_headers import check_first_chunks, read_pcm_header, wave_prefix
from serve_app.audio.readers import AvReader, PcmReader
from serve_app.core.errors import CorruptAudio, EmptyUpload, TruncatedAudio, UnknownAudioFormat

_PCM_CONTAINERS = {"wav", "rf64", "w64", "aiff"}
_RIFF_HEADER_BYTES = 12
# Each stream has about four.
_MAX_AVI_CHUNKS = 1000
# More concatenated recordings than anybody joins are an attack.
_MAX_JOINED = 10_000


class Reader(Protocol):
    """Reads one file, or one of several concatenated files."""

    info: AudioInfo
    declares_length: bool
    """Whether less audio than `info` declares is damage."""
    base_s: float
    """Length of the audio before it."""

    def frames(self) -> Iterator[Frame]: ...
    def close(self) -> None: ...


class Opener:
    """Recognizes a file's format and opens the file, and then those appended to it.

    Args:
        source: the file.
        limits: of accepted recordings.
        report: receives damage and notices.
        mapping: turns the channels of the file into those that are recognized.
        begin_call: called before each call of a library.
    """

    def __init__(
        self,
        source: ByteSource,
        limits: AudioLimits,
        report: DamageReport,
        mapping: ChannelMapping,
        begin_call: Callable[[], None],
    ) -> None:
        self._source = source
        self._limits = limits
        self._report = report
        self._mapping = mapping
        self._begin_call = begin_call
        self._fragmented = False
        self._starts = [0]
        self._num_opened = 0
        self.container = ""

    @property
    def has_more(self) -> bool:
        """Whether there are appended files that were not opened yet."""
        return self._num_opened < min(len(self._starts), _MAX_JOINED)

    def prepare(self) -> Iterator[None]:
        """Recognizes the format, with regular pauses; must be run to its end first.

        Raises:
            AudioError: the file is not audio.
        """
        source = self._source
        if not source.num_bytes:
            raise EmptyUpload
        container = sniff_source(source)
        source.reraise_failure()
        if container is None:
            raise UnknownAudioFormat(UNKNOWN_KIND)
        self.container = container
        if container == "avi":
            check_avi_header(source)
        elif container == "mp4":
            layout = yield from walk_mp4_layout(source)
            self._fragmented = layout.fragmented
        elif container == "ogg":
            self._starts = []
            for start in find_links(source):
                if start is None:
                    yield
                elif len(self._starts) < _MAX_JOINED:
                    self._starts.append(start)

    def open_first(self) -> Reader:
        """Opens the file.

        Raises:
            AudioError: the file is not acceptable.
            av.FFmpegError: FFmpeg cannot read it.
        """
        return self.open_next(0.0)

    def open_next(self, base_s: float) -> Reader:
        """Opens the next appended file; base_s is the length of the audio before it."""
        number = self._num_opened
        self._num_opened += 1
        start = self._starts[number]
        end = self._starts[number + 1] if number + 1 < len(self._starts) else None
        whole = not start and end is None
        view = self._source if whole else self._source.view(start, end)
        self._begin_call()
        if self.container in _PCM_CONTAINERS:
            return self._open_pcm(view, start, base_s)
        return self._open_av(view, self.container, base_s)

    def info_of(self, reader: Reader) -> AudioInfo:
        """Returns the format of the whole file once its first reader is open."""
        if len(self._starts) > 1:
            return replace(reader.info, declared_s=None)
        return reader.info

    def _open_pcm(self, view: ByteSource, start: int, base_s: float) -> Reader:
        header = read_pcm_header(view, self.container)
        if header is None:
            raise CorruptAudio(f"its {self.container} header cannot be read")
        for notice in header.notices:
            self._report.notice(notice)
        if header.next_start is not None:
            self._starts.append(start + header.next_start)
        if header.pcm is not None:
            return PcmReader(
                view,
                self.container,
                header,
                header.pcm,
                self._limits,
                self._report,
                self._mapping,
                base_s,
            )
        if not header.codec_format:
            return self._open_av(view, self.container, base_s)
        if header.declared_s and not header.num_bytes:
            raise TruncatedAudio(0.0, header.declared_s)
        self._limits.check_declared(header.available_s)
        end = header.start + header.num_bytes
        # FFmpeg gets a plain header instead of the original one.
        plain = view.view(header.start, end, prefix=wave_prefix(header))
        reader = self._open_av(plain, "wav", base_s)
        declared_s = header.declared_s
        if declared_s is not None and declared_s <= self._limits.max_duration_s:
            reader.info = replace(reader.info, container=self.container, declared_s=declared_s)
            # The bit rate in the header is often wrong; it only serves to estimate how much
            # of a truncated file is missing.
            reader.declares_length = (header.available_s or 0.0) < declared_s
        return reader

    def _open_av(self, view: ByteSource, container: str, base_s: float) -> AvReader:
        return AvReader(
            view,
            container,
            self._limits,
            self._report,
            self._mapping,
            self._fragmented,
            base_s,
            self._begin_call,
        )


BEGINNING_BYTES = 512 * 1024
"""Bytes that `check_beginning` needs. Shorter files are cheap to receive."""


def check_beginning(content: bytes, *, is_whole: bool = False) -> None:
    """Rejects a file that no decoder would accept, whatever follows.

    Plain Python on a bounded number of bytes; takes milliseconds.

    Args:
        content: the first `BEGINNING_BYTES` bytes of a file, or more.
        is_whole: whether nothing follows.

    Raises:
        UnknownAudioFormat: the format is not known.
        CorruptAudio: a WAVE, W64, AIFF or AVI file has more chunks than any program writes.
    """
    source = ByteSource(content)
    container = sniff_source(source)
    if container in _PCM_CONTAINERS:
        check_first_chunks(source, container)
    elif container == "avi":
        check_avi_header(source)
    # After a long tag too few bytes may be left to decide.
    if container is None and (is_whole or source.num_bytes >= SEARCHED_BYTES):
        raise UnknownAudioFormat(UNKNOWN_KIND)


def check_avi_header(source: ByteSource) -> None:
    """Counts the chunks before the packets of an AVI file; FFmpeg reads them all in one call.

    Raises:
        CorruptAudio: there are more than any program writes.
    """
    offset = _RIFF_HEADER_BYTES
    for _ in range(_MAX_AVI_CHUNKS):
        header = source.peek(offset, _RIFF_HEADER_BYTES)
        name, kind = header[:4], header[8:]
        if len(header) < _RIFF_HEADER_BYTES or (name == b"LIST" and kind == b"movi"):
            return
        num_bytes = int.from_bytes(header[4:8], "little")
        # FFmpeg also reads the chunks inside lists, except for lists of text.
        is_entered = name == b"RIFF" or (name == b"LIST" and kind != b"INFO")
        offset += _RIFF_HEADER_BYTES if is_entered else 8 + num_bytes + num_bytes % 2
    raise CorruptAudio(f"it has more than {_MAX_AVI_CHUNKS} chunks before its audio")
