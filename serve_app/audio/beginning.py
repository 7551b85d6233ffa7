"""What a file's first bytes make certain while the rest of it is still on its way.

A body that cannot become audio is refused before all of it has been received, copied to
the stage that decodes and looked at there.
"""

from __future__ import annotations

from serve_app.audio.bytesource import ByteSource
from serve_app.audio.containers import SEARCHED_BYTES, UNKNOWN_KIND, sniff_source
from serve_app.audio.pcm_headers import check_first_chunks
from serve_app.core.errors import UnknownAudioFormat

BEGINNING_BYTES = 512 * 1024
"""What `check_beginning` is given. Files that are shorter are cheap to receive."""

_CHUNKED = {"wav", "rf64", "w64", "aiff"}


def check_beginning(content: bytes) -> None:
    """Refuses what no decoder would accept, whatever follows.

    Plain Python on a bounded number of bytes; takes milliseconds.

    Args:
        content: the first bytes of a file, `BEGINNING_BYTES` of them or more.

    Raises:
        UnknownAudioFormat: they are of no kind that is known.
        CorruptAudio: they are a WAVE, W64 or AIFF file of more chunks than any program writes.
    """
    source = ByteSource(content)
    container = sniff_source(source)
    if container in _CHUNKED:
        check_first_chunks(source, container)
    # Where a long tag was skipped, too little of what matters is left to tell.
    if container is None and source.num_bytes >= SEARCHED_BYTES:
        raise UnknownAudioFormat(UNKNOWN_KIND)
