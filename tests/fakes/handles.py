"""A deployment handle whose answers are scripted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

from ray.exceptions import RayTaskError
from ray.serve.handle import DeploymentHandle

Script = Sequence[object]
"""What calls come to, one entry a call: an error to raise, a result, or, for a stream,
a list of items and errors."""


class FakeHandle:
    """Goes through its script, one entry a call, and remembers what it was asked."""

    def __init__(self, calls: Script, streams: Script = ()) -> None:
        self.asked: list[Any] = []
        self.num_cancelled = 0
        self._calls = iter(calls)
        self._streams = iter(streams)

    def options(self, *, method_name: str, stream: bool) -> _Method:
        return _Method(self._stream)

    def __getattr__(self, name: str) -> _Method:
        return _Method(self._call)

    @property
    def handle(self) -> DeploymentHandle[Any]:
        return cast(DeploymentHandle[Any], self)

    async def _call(self, argument: object = None) -> object:
        self.asked.append(argument)
        return _outcome(next(self._calls))

    def _stream(self, argument: object) -> _Stream:
        self.asked.append(argument)
        items = next(self._streams)
        return _Stream(self, items if isinstance(items, list) else [items])


class _Method:
    def __init__(self, remote: Callable[..., Any]) -> None:
        self.remote = remote


class _Stream:
    def __init__(self, owner: FakeHandle, items: list[object]) -> None:
        self._owner = owner
        self._items = iter(items)

    def __aiter__(self) -> AsyncIterator[object]:
        return self

    async def __anext__(self) -> object:
        for item in self._items:
            return _outcome(item)
        raise StopAsyncIteration

    def cancel(self) -> None:
        self._owner.num_cancelled += 1


def task_error(cause: Exception) -> Exception:
    """Returns what Ray raises at a caller where the callee raised `cause`."""
    error = RayTaskError("call", "traceback", cause)  # type: ignore[no-untyped-call]  # Ray's
    wrapped: Exception = error.as_instanceof_cause()  # type: ignore[no-untyped-call]  # Ray's
    return wrapped


def _outcome(scripted: object) -> object:
    if isinstance(scripted, BaseException):
        raise scripted
    return scripted
