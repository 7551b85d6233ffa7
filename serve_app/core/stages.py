"""The stages that a deployment may have and a request may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Stage: TypeAlias = Literal["vad", "asr", "punctuation"]

STAGES: tuple[Stage, ...] = ("vad", "asr", "punctuation")
"""All of them, in the order in which audio passes through."""

PackRole: TypeAlias = Stage | Literal["draft"]
"""What a pack is for: a stage, or the drafts of a recogniser with two models."""


@dataclass(frozen=True, slots=True)
class StageReadiness:
    """A stage whose model is loaded and warm.

    Attributes:
        stage: what it does.
        device: where it computes.
        pack: name of its model pack.
        checksum: SHA-256 of the pack's weights.
        decided_by: what its results depend on beside them: names of settings with their
            values, and of further packs with their checksums.
    """

    stage: Stage
    device: str
    pack: str
    checksum: str
    decided_by: tuple[tuple[str, str], ...] = ()
