"""What all groups of settings have in common."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _whole_above_one(num_gpus: float) -> float:
    if num_gpus > 1 and num_gpus != int(num_gpus):
        raise ValueError("a process takes a fraction of one GPU or whole GPUs")
    return num_gpus


NumGpus: TypeAlias = Annotated[float, Field(ge=0), AfterValidator(_whole_above_one)]
"""GPUs, or the fraction of one, that Ray reserves for a replica or an actor."""


class Section(BaseModel):
    """A group of settings: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
