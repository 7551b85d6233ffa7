"""What a request cost in each stage, for its log line."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class RequestCost:
    """Gathered while a request goes through the stages.

    The times of chunks that are worked on side by side add up, so that a stage's may be
    longer than the request took.

    Attributes:
        decode_s: decoding and cutting.
        recognize_s: calls to the recogniser, their wait for a batch included.
        punctuate_s: calls to the punctuator, their wait for a batch included.
        num_retries: calls that had to be made again.
    """

    decode_s: float = 0.0
    recognize_s: float = 0.0
    punctuate_s: float = 0.0
    num_retries: int = 0

    def add(self, other: RequestCost) -> None:
        self.decode_s += other.decode_s
        self.recognize_s += other.recognize_s
        self.punctuate_s += other.punctuate_s
        self.num_retries += other.num_retries

    @contextmanager
    def recognizing(self) -> Generator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.recognize_s += time.monotonic() - began

    @contextmanager
    def punctuating(self) -> Generator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.punctuate_s += time.monotonic() - began
