"""One case of a broken upload: sent over a connection of its own, and its answer judged."""

from __future__ import annotations

import json
import random
import re
import socket
import time
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
        elapsed_s: until the answer, or until there was none.
    """

    kind: str
    seed: int
    status: int
    expected: str
    right: bool
    text: str
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `headers` are in lower case."""

    status: int
    headers: str = ""
    text: str = ""
    elapsed_s: float = 0.0


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
        answer = exchange(port, raw)
        right, expected = fits(answer, raw), str(raw.expected)
    else:
        file = FILES[kind](random_)
        expected = _expected_status(file, limits)
        body = form(file)
        if random_.random() < 0.3:
            content = request(in_chunks(body, random_), "Transfer-Encoding: chunked")
        else:
            content = request(body, sized(body))
        answer = exchange(port, RawRequest(content, "4xx or 200"))
        right = str(answer.status) == expected
        right = right and (answer.status == 200 or _has_error(answer.text))
    return Outcome(kind, seed, answer.status, expected, right, answer.text, answer.elapsed_s)


def _expected_status(file: bytes, limits: AudioLimits) -> str:
    try:
        with AudioDecoder(file, limits) as decoder:
            for _ in decoder.blocks():
                pass
    except AudioError as error:
        return str(STATUS_OF[type(error)])
    return "200"


def fits(answer: Answer, raw: RawRequest) -> bool:
    """Whether an answer is one of those that may come."""
    if answer.status == NO_ANSWER:
        return raw.expected == "4xx or no answer"
    if raw.header and f"\r\n{raw.header.lower()}:" not in answer.headers:
        return False
    if answer.status == 200:
        return raw.expected in {"200", "4xx or 200"}
    # What is no HTTP is answered by the proxy, in its own words.
    has_body = _has_error(answer.text) or raw.expected == "4xx or no answer"
    return 400 <= answer.status < 500 and raw.expected != "200" and has_body


def _has_error(text: str) -> bool:
    try:
        error = json.loads(text)["error"]
    except (ValueError, LookupError, TypeError):
        return False
    return set(error) == {"message", "type", "param", "code"}


def exchange(port: int, raw: RawRequest) -> Answer:
    """Sends a request over a connection of its own and returns the answer."""
    began_s = time.monotonic()
    received = bytearray()
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), _TIMEOUT_S) as connection:
        # A refusal may come, and the connection close, before all is sent.
        with suppress(OSError):
            connection.sendall(raw.content)
            if raw.leaves:
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(_LEAVING_S)
        # A proxy may keep the connection open until it has the whole request.
        while not is_complete(bytes(received)) and (data := connection.recv(65_536)):
            received += data
    elapsed_s = time.monotonic() - began_s
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        return Answer(NO_ANSWER, elapsed_s=elapsed_s)
    headers = head.decode("latin-1").lower()
    if "transfer-encoding: chunked" in headers:
        body = joined(body)
    return Answer(int(words[1]), headers, body.decode("utf-8", "replace"), elapsed_s)


def is_complete(received: bytes) -> bool:
    """Whether an answer has come to its end."""
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        return False
    if found := re.search(rb"(?i)\r\ncontent-length: *(\d+)", head):
        return len(body) >= int(found[1])
    return body.endswith(b"0\r\n\r\n")


def joined(body: bytes) -> bytes:
    """Returns the content of a body in chunks."""
    parts = bytearray()
    while body:
        size, _, rest = body.partition(b"\r\n")
        num_bytes = int(size.split(b";")[0] or b"0", 16)
        parts += rest[:num_bytes]
        body = rest[num_bytes + 2 :] if num_bytes else b""
    return bytes(parts)
