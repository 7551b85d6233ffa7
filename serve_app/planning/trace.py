"""Traces of requests: arrival time and length of each recording."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from serve_app.core.errors import TraceError
from serve_app.core.records import ANONYMOUS

Seconds = npt.NDArray[np.float64]

COLUMNS = ("arrival_s", "audio_s", "key", "weight")
"""Columns of a trace file; the last two are optional."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival.

    Attributes:
        arrival_s: seconds from the trace's start, shape [requests], ascending.
        audio_s: length of each recording, shape [requests].
        key_index: index into `keys`, shape [requests].
        keys: names of the API keys.
        weights: relative share of each key.
    """

    arrival_s: Seconds
    audio_s: Seconds
    key_index: npt.NDArray[np.int32]
    keys: tuple[str, ...] = (ANONYMOUS,)
    weights: tuple[float, ...] = (1.0,)

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def audio_hours(self) -> float:
        return float(self.audio_s.sum()) / 3600

    @property
    def span_s(self) -> float:
        """Time from the trace's start to its last arrival."""
        return float(self.arrival_s[-1]) if len(self) else 0.0

    def between(self, start_s: float, end_s: float) -> Trace:
        """Returns the requests that arrive in [start_s, end_s), counted from start_s."""
        first, last = np.searchsorted(self.arrival_s, (start_s, end_s))
        return Trace(
            self.arrival_s[first:last] - start_s,
            self.audio_s[first:last],
            self.key_index[first:last],
            self.keys,
            self.weights,
        )

    def thinned(self, share: float, seed: int) -> Trace:
        """Returns a random sample of the requests, each kept with probability `share`."""
        kept = np.random.default_rng(seed).random(len(self)) < share
        return Trace(
            self.arrival_s[kept], self.audio_s[kept], self.key_index[kept], self.keys, self.weights
        )

    def busiest(self, length_s: float) -> tuple[float, float]:
        """Returns start and end of the period of this length with the most audio."""
        if length_s >= self.span_s:
            return 0.0, self.span_s + 1.0
        total = np.concatenate([[0.0], np.cumsum(self.audio_s)])
        ends = np.searchsorted(self.arrival_s, self.arrival_s + length_s)
        start_s = float(self.arrival_s[np.argmax(total[ends] - total[:-1])])
        return start_s, start_s + length_s


def make_trace(arrival_s: Sequence[float] | Seconds, audio_s: Sequence[float] | Seconds) -> Trace:
    """Returns a trace of a single key, sorted by arrival."""
    arrivals = np.asarray(arrival_s, np.float64)
    order = np.argsort(arrivals, kind="stable")
    return Trace(
        arrivals[order],
        np.asarray(audio_s, np.float64)[order],
        np.zeros(len(arrivals), np.int32),
    )


def read_trace(path: Path) -> Trace:
    """Reads a CSV file of `arrival_s,audio_s[,key[,weight]]`, with or without a header.

    Lines may be in any order; empty lines and those that start with # are skipped. The
    first weight given for a key counts.

    Raises:
        TraceError: the file cannot be read, or a line is invalid.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _Parser(path.name).parse(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: {error}") from None


def write_trace(trace: Trace, path: Path) -> None:
    """Writes a file for `read_trace`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(
            (f"{arrival_s:.3f}", f"{audio_s:.3f}", trace.keys[key], trace.weights[key])
            for arrival_s, audio_s, key in zip(
                trace.arrival_s.tolist(),
                trace.audio_s.tolist(),
                trace.key_index.tolist(),
                strict=True,
            )
        )


class _Parser:
    def __init__(self, name: str) -> None:
        self._name = name
        self._columns: tuple[str, ...] = COLUMNS
        self._arrivals_s = array("d")
        self._audio_s = array("d")
        self._keys: dict[str, int] = {}
        self._key_index = array("i")
        self._weights: dict[int, float] = {}
        self._line = 0

    def parse(self, rows: Iterator[list[str]]) -> Trace:
        first = True
        try:
            for self._line, row in enumerate(rows, 1):
                if not row or not any(row) or row[0].lstrip().startswith("#"):
                    continue
                if first and row[0].strip() in COLUMNS:
                    self._header([cell.strip() for cell in row])
                else:
                    self._add([cell.strip() for cell in row])
                first = False
        except csv.Error as error:
            self._line += 1
            raise self._wrong(str(error)) from None
        if not self._arrivals_s:
            raise TraceError(f"{self._name}: no requests in it")
        return self._trace()

    def _header(self, row: list[str]) -> None:
        unknown = [name for name in row if name not in COLUMNS]
        if unknown:
            raise self._wrong(f"unknown column {unknown[0]!r}; known are {', '.join(COLUMNS)}")
        missing = [name for name in COLUMNS[:2] if name not in row]
        if missing or len(set(row)) < len(row):
            raise self._wrong(f"needs the columns {COLUMNS[0]} and {COLUMNS[1]}, each once")
        self._columns = tuple(row)

    def _add(self, row: list[str]) -> None:
        if len(row) < 2 or len(row) > len(self._columns):
            raise self._wrong(f"{len(row)} columns; expected {','.join(self._columns)}")
        cells = dict(zip(self._columns, row, strict=False))
        arrival_s = self._number("arrival_s", cells.get("arrival_s", ""))
        audio_s = self._number("audio_s", cells.get("audio_s", ""))
        if arrival_s < 0:
            raise self._wrong(f"arrival_s must not be negative, got {arrival_s:g}")
        if audio_s <= 0:
            raise self._wrong(f"audio_s must be positive, got {audio_s:g}")
        key = self._keys.setdefault(cells.get("key") or ANONYMOUS, len(self._keys))
        if cells.get("weight"):
            weight = self._number("weight", cells["weight"])
            if weight <= 0:
                raise self._wrong(f"weight must be positive, got {weight:g}")
            self._weights.setdefault(key, weight)
        self._arrivals_s.append(arrival_s)
        self._audio_s.append(audio_s)
        self._key_index.append(key)

    def _number(self, name: str, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise self._wrong(f"{name} is not a number: {text!r}") from None
        if not math.isfinite(number):
            raise self._wrong(f"{name} is not finite: {text!r}")
        return number

    def _wrong(self, what: str) -> TraceError:
        return TraceError(f"{self._name} line {self._line}: {what}")

    def _trace(self) -> Trace:
        arrivals_s = np.frombuffer(self._arrivals_s, np.float64)
        order = np.argsort(arrivals_s, kind="stable")
        return Trace(
            arrivals_s[order],
            np.frombuffer(self._audio_s, np.float64)[order],
            np.frombuffer(self._key_index, np.int32)[order],
            tuple(self._keys),
            tuple(self._weights.get(index, 1.0) for index in range(len(self._keys))),
        )
