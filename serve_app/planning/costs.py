"""Measured costs of the stages, and where the figures come from."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, cast

from serve_app.core.errors import CostsError

PartT = TypeVar("PartT")


@dataclass(frozen=True, slots=True)
class LineCost:
    """Time of a batched call: a fixed part, and parts per unit and per item.

    Attributes:
        fixed_s: per call.
        unit_s: per encoder frame, word, window or second of audio; see `Costs`.
        item_s: per item in the call.
    """

    fixed_s: float
    unit_s: float
    item_s: float = 0.0

    def of(self, units: float, num_items: int = 1) -> float:
        return self.fixed_s + self.unit_s * units + self.item_s * num_items


@dataclass(frozen=True, slots=True)
class CallCost:
    """Overhead of a call from one replica to another.

    Attributes:
        cpu_s: core seconds that the caller spends on sending it.
        delay_s: further time until it arrives.
        handover_s: from the formation of a batch until the model has it.
        answer_s: core seconds that the caller spends on the answer.
    """

    cpu_s: float
    delay_s: float
    handover_s: float = 0.0
    answer_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StartCost:
    """Time until a requested replica is ready.

    Attributes:
        replica_s: process start, loading and warm-up on a node with room.
        node_s: start of a node, where none has room.
    """

    replica_s: float
    node_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of all stages of one profile on one kind of machine.

    Attributes:
        name: of the profile.
        origin: where and how they were measured.
        assumed: figures that were not measured, with the reason.
        recognizer: of a batch; units are encoder frames.
        segmenter: of a decoded block; units are seconds of audio.
        punctuator: of a batch; units are words.
        request: of the ingress for a request; units are seconds of audio.
        call: of a call between replicas.
        start: of a recognizer replica.
        words_per_s: words in a second of speech.
        frame_s: audio in an encoder frame.
        slowdown: factor by which work takes longer while all cores are busy.
        embedder: of a batch of the speaker model; units are windows. None if not measured.
        clustering: of telling the speakers of a recording apart; units are its windows. None
            if not measured.
    """

    name: str
    origin: str
    recognizer: LineCost
    segmenter: LineCost
    punctuator: LineCost
    request: LineCost
    call: CallCost
    start: StartCost
    words_per_s: float = 4.5
    frame_s: float = 0.06
    slowdown: float = 1.0
    embedder: LineCost | None = None
    clustering: LineCost | None = None
    assumed: dict[str, str] = field(default_factory=dict)

    @property
    def recognizer_rtfx(self) -> float:
        """Seconds of audio per second of one replica with large batches."""
        return self.frame_s / self.recognizer.unit_s

    def speaker_costs(self) -> tuple[LineCost, LineCost]:
        """Returns the costs of the speaker model and of the clustering.

        Raises:
            CostsError: they were not measured.
        """
        if self.embedder is None or self.clustering is None:
            raise CostsError(
                f"the costs of {self.name} have none for the stage speakers; measure them with "
                "`python -m loadtests simulation measure --speakers-only`, or leave the stage out"
            )
        return self.embedder, self.clustering


def read_costs(path: Path) -> Costs:
    """Reads a file of `write_costs`.

    Raises:
        CostsError: the file cannot be read or does not hold costs.
    """
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")), path.name)
    except (OSError, ValueError) as error:
        raise CostsError(f"{path}: {error}") from None


def write_costs(costs: Costs, path: Path) -> None:
    path.write_text(json.dumps(asdict(costs), indent=2) + "\n", encoding="utf-8")


def shipped_costs(profile: str) -> Costs:
    """Returns the costs included for a built-in profile.

    Raises:
        CostsError: there are none for it.
    """
    folder = resources.files("serve_app.planning") / "costs"
    file = folder / f"{profile}.json"
    if not file.is_file():
        known = sorted(
            entry.name.removesuffix(".json")
            for entry in folder.iterdir()
            if entry.name.endswith(".json")
        )
        raise CostsError(
            f"there are no costs for profile {profile!r} (only for {', '.join(known)}); "
            "measure them with `python -m loadtests simulation measure` and pass --costs"
        )
    return _parse(json.loads(file.read_text(encoding="utf-8")), file.name)


_PARTS: dict[str, type] = {
    "recognizer": LineCost,
    "segmenter": LineCost,
    "punctuator": LineCost,
    "request": LineCost,
    "call": CallCost,
    "start": StartCost,
    "embedder": LineCost,
    "clustering": LineCost,
}
_OPTIONAL = frozenset({"embedder", "clustering"})


def _parse(content: object, name: str) -> Costs:
    values = _mapping(content, name)
    for part, kind in _PARTS.items():
        is_left_out = part in _OPTIONAL and values.get(part) is None
        if part in values and not is_left_out:
            values[part] = _build(
                kind, _mapping(values[part], f"{name}: {part}"), f"{name}: {part}"
            )
    return _build(Costs, values, name)


def _mapping(content: object, name: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise CostsError(f"{name}: not a mapping")
    return dict(cast("dict[str, Any]", content))


def _build(kind: type[PartT], values: dict[str, Any], name: str) -> PartT:
    known = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]  # all are dataclasses
    if unknown := sorted(set(values) - known):
        raise CostsError(f"{name}: {unknown[0]} is not a known field")
    for key, value in values.items():
        if isinstance(value, bool) or (
            isinstance(value, int | float) and not (math.isfinite(value) and value >= 0)
        ):
            raise CostsError(f"{name}: {key} must be a number of at least 0")
        if key.endswith("_s") and not isinstance(value, int | float):
            raise CostsError(f"{name}: {key} must be a number of at least 0")
    try:
        return kind(**values)
    except TypeError as error:
        raise CostsError(f"{name}: {error}") from None
