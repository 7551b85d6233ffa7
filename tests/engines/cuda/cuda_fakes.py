"""Enough of `torch.cuda` to run the device path of a stream on the CPU, in order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


class FakeStream:
    """Runs everything at once."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device

    def synchronize(self) -> None: ...

    def wait_event(self, event: FakeEvent) -> None:
        assert event.recorded, "a stream waits for what was never recorded"


class FakeEvent:
    waits = 0

    def __init__(self, blocking: bool = False) -> None:
        self.recorded = False

    def record(self) -> None:
        self.recorded = True

    def synchronize(self) -> None:
        assert self.recorded, "the host waits for what was never recorded"
        FakeEvent.waits += 1


class FakeGraph:
    """Remembers the body that was captured and runs it again."""

    captured: Callable[[], None] | None = None

    def replay(self) -> None:
        assert self.captured is not None
        self.captured()


class FakeCuda:
    """What the fakes saw; `fail_capture` is raised by the next captures."""

    def __init__(self) -> None:
        self.num_captures = 0
        self.num_emptied = 0
        self.fail_capture: Exception | None = None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        @contextmanager
        def stream(entered: FakeStream) -> Iterator[None]:
            yield

        @contextmanager
        def graph(captured: FakeGraph, **options: object) -> Iterator[None]:
            assert options["capture_error_mode"] == "thread_local"
            self.num_captures += 1
            if self.fail_capture is not None:
                raise self.fail_capture
            yield

        def empty_cache() -> None:
            self.num_emptied += 1

        FakeEvent.waits = 0
        for name, fake in (
            ("Stream", FakeStream),
            ("Event", FakeEvent),
            ("CUDAGraph", FakeGraph),
            ("stream", stream),
            ("graph", graph),
            ("graph_pool_handle", lambda: (0, 1)),
            ("synchronize", lambda device=None: None),
            ("empty_cache", empty_cache),
        ):
            monkeypatch.setattr(torch.cuda, name, fake)
