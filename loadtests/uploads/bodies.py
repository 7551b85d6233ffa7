"""Broken requests around a good file, as bytes on a connection."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from loadtests.uploads.files import valid_file
from serve_app.api.headers import IGNORED_FIELDS_HEADER

_PATH = "/v1/audio/transcriptions"
BOUNDARY = "paraserveboundary"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
"""Content type of `form`."""

Expectation: TypeAlias = Literal["200", "4xx", "4xx or 200", "4xx or no answer"]
"""`no answer` where the sender itself breaks the connection's rules or leaves."""


@dataclass(frozen=True, slots=True)
class RawRequest:
    """What is written to a connection, and what may come back.

    Attributes:
        content: all that is sent; the sending side is closed after it if `leaves`.
        expected: what may be answered.
        header: one that the answer must have, empty for none.
    """

    content: bytes
    expected: Expectation
    leaves: bool = False
    header: str = ""


def form(
    file: bytes,
    *,
    name: str = "file",
    boundary: str = BOUNDARY,
    end: str = "--",
    fields: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """A transcription form; `fields` are further ones in front of the file."""
    texts = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        for field, value in {"model": "whisper-1", **fields}.items()
    )
    return (
        (
            f"{texts}--{boundary}\r\n"
            f'Content-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n'
        ).encode()
        + file
        + f"\r\n--{boundary}{end}\r\n".encode()
    )


def request(body: bytes, *headers: str, kind: str = FORM_TYPE) -> bytes:
    lines = (f"POST {_PATH} HTTP/1.1", "Host: localhost", "Connection: close", *headers)
    typed = (*lines, f"Content-Type: {kind}") if kind else lines
    return "\r\n".join((*typed, "", "")).encode() + body


def sized(body: bytes) -> str:
    return f"Content-Length: {len(body)}"


def in_chunks(body: bytes, random_: random.Random) -> bytes:
    """Chunked transfer coding in pieces of any length, with extensions here and there."""
    written = bytearray()
    start = 0
    while start < len(body):
        piece = body[start : start + random_.choice((1, 7, 100, 4096, 65_536))]
        extension = b";x=y" if random_.random() < 0.2 else b""
        written += b"%x%s\r\n%s\r\n" % (len(piece), extension, piece)
        start += len(piece)
    return bytes(written) + b"0\r\n\r\n"


def multipart(random_: random.Random) -> RawRequest:
    """Forms that are none."""
    file = valid_file("flac")
    body = random_.choice(
        (
            form(file, boundary="another"),
            form(file, end=""),
            form(file, name=""),
            form(file, name="files"),
            form(file)[: -random_.randrange(8, 4000)],
            form(file).replace(b'name="model"', b"nothing=here"),
            form(file).replace(b"form-data;", b"x" * 20_000 + b";"),
            form(file).replace(b"whisper-1", b"w" * 70_000),
            form(file).replace(b"whisper-1", b"\xff\xfe\x00"),
            form(file).replace(b'name="model"', b'name="' + b"m" * 9000 + b'"'),
            form(file)[:-24] + form(file),
            b"".join(form(b"x", name=f"field{number}", end="") for number in range(80)),
            b"\r\n" * random_.randrange(1, 3000),
            random_.randbytes(random_.randrange(1, 3000)),
            b"",
        )
    )
    kind = random_.choice((f"multipart/form-data; boundary={BOUNDARY}",) * 5 + _KINDS)
    return RawRequest(request(body, sized(body), kind=kind), "4xx")


_KINDS = (
    "",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    'multipart/form-data; boundary="' + "b" * 5000,
    "multipart/mixed; boundary=" + BOUNDARY,
    "application/json",
    "application/x-www-form-urlencoded",
    "text/plain",
)


_REFUSED_FIELDS = (
    ("response_format", "xml"),
    ("language", "xx"),
    ("stream", "perhaps"),
    ("temperature", "nan"),
    ("temperature", "1e999"),
    ("stages", "vad"),
    ("model", "x" * 1000),
    ("audio_url", "http://169.254.169.254/latest"),
    ("audio_url", "file:///etc/passwd"),
    ("langauge", "zh"),
    ("responseFormat", "text"),
)
_IGNORED_FIELDS = (("\u0000", "\u0000"), ("other", "1"), ("x" * 300, "1"))


def fields(random_: random.Random) -> RawRequest:
    """Good files with parameters that make no sense.

    docs/api.md says which are refused: values that are wrong, a second recording, and names that
    are likely to be misspelled. Other unknown names are ignored, and a header names them.
    """
    name, value = random_.choice((*_REFUSED_FIELDS, *_IGNORED_FIELDS))
    extra = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
    body = extra.encode() + form(valid_file("flac"))
    content = request(body, sized(body))
    if (name, value) in _IGNORED_FIELDS:
        return RawRequest(content, "200", header=IGNORED_FIELDS_HEADER)
    return RawRequest(content, "4xx")


def chunked(random_: random.Random) -> RawRequest:
    """Broken files and good ones in chunks, and chunks that are none."""
    body = form(random_.choice((b"", b"not audio", valid_file("flac")[:500])))
    encoded = in_chunks(body, random_)
    choice = random_.randrange(6)
    if choice == 0:
        return RawRequest(
            request(in_chunks(form(valid_file("flac")), random_), "Transfer-Encoding: chunked"),
            "4xx or 200",
        )
    if choice == 1:
        # Ends at once: a body of no bytes.
        return RawRequest(request(b"0\r\n\r\n" + encoded, "Transfer-Encoding: chunked"), "4xx")
    if choice == 2:
        wrong = random_.choice((b"fffffffffffffffff\r\n", b"-5\r\nabcde\r\n", b"zz\r\n", b"\r\n"))
        return RawRequest(
            request(wrong + encoded, "Transfer-Encoding: chunked"), "4xx or no answer"
        )
    if choice == 3:
        cut = encoded[: random_.randrange(len(encoded) - 5)]
        return RawRequest(
            request(cut, "Transfer-Encoding: chunked"), "4xx or no answer", leaves=True
        )
    return RawRequest(request(encoded, "Transfer-Encoding: chunked"), "4xx")


def lengths(random_: random.Random) -> RawRequest:
    """Content-Length headers that lie."""
    body = form(valid_file("flac"))
    choice = random_.randrange(5)
    if choice == 0:
        huge = random_.choice((10**9, 2**31, 2**63 - 1))
        return RawRequest(request(b"--", f"Content-Length: {huge}"), "4xx")
    if choice == 1:
        wrong = random_.choice(("-1", "1e3", "abc", "9" * 400, "5, 6"))
        return RawRequest(request(body, f"Content-Length: {wrong}"), "4xx or no answer")
    if choice == 2:
        less = random_.randrange(len(body) - 100)
        return RawRequest(request(body[:less], f"Content-Length: {less}"), "4xx")
    if choice == 3:
        return RawRequest(
            request(body[: random_.randrange(len(body))], sized(body)),
            "4xx or no answer",
            leaves=True,
        )
    headers = (sized(body), "Transfer-Encoding: chunked")
    return RawRequest(request(body, *headers), "4xx or no answer")


BODIES: dict[str, Callable[[random.Random], RawRequest]] = {
    "multipart abuse": multipart,
    "wrong fields": fields,
    "chunked bodies": chunked,
    "lying lengths": lengths,
}
