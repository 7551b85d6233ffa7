"""Ogg streams that were chained one behind another.

FFmpeg goes on with the decoder of the first one, which fails if the next one has other
channels, another rate or another codec. So each one is opened by itself.

Source: RFC 3533, section 6 (page header) and section 4 (chaining).
"""

from __future__ import annotations

from collections.abc import Iterator

from serve_app.audio.bytesource import ByteSource

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
    """Yields where each chained stream begins, and None now and then for the work done.

    The first one begins at 0. Streams side by side begin together and are one link.
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
        # A damaged page may have the flag, but hardly the name of a codec as well.
        is_first = bool(header[5] & _FIRST_PAGE) and body.startswith(_CODEC_MAGICS)
        if is_first and begun:
            yield offset
        begun = not is_first
        body_bytes = sum(header[_HEADER_BYTES : _HEADER_BYTES + num_segments])
        offset += _HEADER_BYTES + num_segments + body_bytes
