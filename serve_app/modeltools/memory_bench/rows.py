"""The rows of the table: the stages and packs of each process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from serve_app.core.errors import ConfigurationError
from serve_app.core.records import Stage
from serve_app.modeltools.memory_bench.packs import BenchPacks, PackChoice


@dataclass(frozen=True, slots=True)
class Row:
    """One process.

    Attributes:
        key: for choosing rows.
        title: of the row.
        stages: in pipeline order; empty for the imports alone.
        vad: the VAD's pack.
        asr: the recognizer's pack.
        punctuation: the punctuation model's pack.
        speakers: the speaker model's pack.
        engine: of the recognizer.
        dtype: of the recognizer.
    """

    key: str
    title: str
    stages: tuple[Stage, ...]
    vad: PackChoice
    asr: PackChoice
    punctuation: PackChoice
    speakers: PackChoice
    engine: str = "paraformer"
    dtype: str = "float32"

    @property
    def packs(self) -> tuple[PackChoice, ...]:
        """The loaded packs."""
        by_stage = {
            "vad": self.vad,
            "asr": self.asr,
            "punctuation": self.punctuation,
            "speakers": self.speakers,
        }
        return tuple(by_stage[stage] for stage in self.stages)


def rows_of(packs: BenchPacks, device: str) -> tuple[Row, ...]:
    """Returns all rows for these packs; int8 rows on a CPU only."""
    large = (packs.vad, packs.asr, packs.punctuation, packs.speakers)
    small = (packs.vad, packs.small_asr, packs.small_punctuation, packs.speakers)
    rows = [
        Row("imports", "Python and imports", (), *large),
        Row("vad", "VAD only", ("vad",), *large),
        Row("punctuation", "punctuation only", ("punctuation",), *large),
        Row("speakers", "speaker labels only", ("speakers",), *large),
        Row("asr", "ASR only", ("asr",), *large),
        Row("asr+punctuation", "ASR + punctuation", ("asr", "punctuation"), *large),
        Row("full", "full: VAD + ASR + punctuation", ("vad", "asr", "punctuation"), *large),
        Row(
            "full+speakers",
            "full + speaker labels",
            ("vad", "asr", "punctuation", "speakers"),
            *large,
        ),
        Row("small-asr", "ASR only, small", ("asr",), *small),
        Row("small", "full, small", ("vad", "asr", "punctuation"), *small),
    ]
    if device == "cpu":
        rows += _int8_rows(packs)
    return tuple(rows)


def _int8_rows(packs: BenchPacks) -> list[Row]:
    large = (packs.vad, packs.asr, packs.punctuation, packs.speakers)
    everything: tuple[Stage, ...] = ("vad", "asr", "punctuation")
    rows = [
        Row("int8-asr", "ASR only, int8", ("asr",), *large, dtype="int8"),
        Row("int8", "full, int8", everything, *large, dtype="int8"),
    ]
    if packs.onnx is not None:
        graphs = (packs.vad, packs.onnx, packs.punctuation, packs.speakers)
        rows += [
            Row("onnx-asr", "ASR only, ONNX int8", ("asr",), *graphs, engine="onnx"),
            Row("onnx", "full, ONNX int8", everything, *graphs, engine="onnx"),
        ]
    return rows


def choose_rows(rows: Sequence[Row], keys: Sequence[str]) -> tuple[Row, ...]:
    """Returns the rows with these keys, or all rows without keys.

    Raises:
        ConfigurationError: a key is unknown; the message lists the known ones.
    """
    by_key = {row.key: row for row in rows}
    for key in keys:
        if key not in by_key:
            raise ConfigurationError(f"no row {key!r}; there are {', '.join(by_key)}")
    return tuple(by_key[key] for key in keys) if keys else tuple(rows)


def roles_of(keys: Sequence[str], device: str) -> frozenset[str]:
    """Returns the roles of `BenchPacks` that the rows with these keys load.

    Raises:
        ConfigurationError: a key is unknown.
    """
    packs = BenchPacks(onnx=PackChoice("onnx", "onnx"))
    rows = choose_rows(rows_of(packs, device), keys)
    loaded = {pack.name for row in rows for pack in row.packs}
    return frozenset(
        field.name for field in fields(packs) if getattr(packs, field.name).name in loaded
    )
