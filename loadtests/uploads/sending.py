"""Sends one case over a connection of its own and reads the answer."""

from __future__ import annotations

import json
import random
import re
import socket
from contextlib import suppress
from dataclasses import dataclass

from loadtests.uploads.bodies import BODIES, RawRequest, form, in_chunks, request, sized
from loadtests.uploads.files import FILES
from serve_app.api.errors import STATUS_OF
from serve_app.audio import AudioDecoder, AudioLimits
from serve_app.core.errors import AudioError

_TIMEOUT_S = 30.0
_LEAVING_S = 0.5
NO_ANSWER = 0
KINDS = (*FILES, *BODIES)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case.

    Attributes:
        kind: of the mutation.
        seed: repeats it.
        status: of the answer, `NO_ANSWER` without one.
        expected: what should have come.
        right: whether it did, with an error body that clients understand.
        text: the answer's body.
    """

    kind: str
    seed: int
    status: int
    expected: str
    right: bool
    text: str


def send_case(port: int, seed: int, limits: AudioLimits) -> Outcome:
    """Sends the case of a seed.

    A mutated file may still be audio: whether it is, and what is wrong with it
    otherwise, is asked of the decoder alone in this process; the service must come
    to the same status. A request that is broken itself may only get a 4xx, or none
    where the sender broke off.
    """
    random_ = random.Random(seed)  # noqa: S311 - seeded cases, no secrets
    kind = random_.choice(KINDS)
    if kind in BODIES:
        raw = BODIES[kind](random_)
        status, text = exchange(port, raw)
        return Outcome(kind, seed, status, raw.expected, _fits(status, text, raw), text)
    file = FILES[kind](random_)
    expected = _expected_status(file, limits)
    body = form(file)
    if random_.random() < 0.3:
        content = request(in_chunks(body, random_), "Transfer-Encoding: chunked")
    else:
        content = request(body, sized(body))
    status, text = exchange(port, RawRequest(content, "4xx or 200"))
    right = status == expected and (status == 200 or _has_error(text))
    return Outcome(kind, seed, status, str(expected), right, text)


def _expected_status(file: bytes, limits: AudioLimits) -> int:
    try:
        with AudioDecoder(file, limits) as decoder:
            for _ in decoder.windows():
                pass
    except AudioError as error:
        return STATUS_OF[type(error)]
    return 200


def _fits(status: int, text: str, raw: RawRequest) -> bool:
    if status == NO_ANSWER:
        return raw.expected == "4xx or no answer"
    if status == 200:
        return raw.expected == "4xx or 200"
    # What is no HTTP is answered by the proxy, in its own words.
    return 400 <= status < 500 and (_has_error(text) or raw.expected == "4xx or no answer")


def _has_error(text: str) -> bool:
    try:
        error = json.loads(text)["error"]
    except (ValueError, LookupError, TypeError):
        return False
    return set(error) == {"message", "type", "param", "code"}


def exchange(port: int, raw: RawRequest) -> tuple[int, str]:
    """Returns the answer's status and body; status `NO_ANSWER` if there is none."""
    received = bytearray()
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), _TIMEOUT_S) as connection:
        # A refusal may come, and the connection close, before all is sent.
        with suppress(OSError):
            connection.sendall(raw.content)
            if raw.leaves:
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(_LEAVING_S)
        # A proxy may keep the connection open until it has the whole request.
        while not _is_complete(bytes(received)) and (data := connection.recv(65_536)):
            received += data
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        return NO_ANSWER, ""
    if b"transfer-encoding: chunked" in head.lower():
        body = _joined(body)
    return int(words[1]), body.decode("utf-8", "replace")


def _is_complete(received: bytes) -> bool:
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        return False
    if found := re.search(rb"(?i)\r\ncontent-length: *(\d+)", head):
        return len(body) >= int(found[1])
    return body.endswith(b"0\r\n\r\n")


def _joined(body: bytes) -> bytes:
    parts = bytearray()
    while body:
        size, _, rest = body.partition(b"\r\n")
        num_bytes = int(size.split(b";")[0] or b"0", 16)
        parts += rest[:num_bytes]
        body = rest[num_bytes + 2 :] if num_bytes else b""
    return bytes(parts)
