"""What all groups of settings have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Annotated, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

OptionsT = TypeVar("OptionsT")


def _whole_above_one(num_gpus: float) -> float:
    if num_gpus > 1 and num_gpus != int(num_gpus):
        raise ValueError("a process takes a fraction of one GPU or whole GPUs")
    return num_gpus


NumGpus: TypeAlias = Annotated[float, Field(ge=0), AfterValidator(_whole_above_one)]
"""GPUs, or the fraction of one, that Ray reserves for a replica or an actor."""


class Section(BaseModel):
    """A group of settings: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def options_for(self, kind: Callable[..., OptionsT], **others: object) -> OptionsT:
        """Returns an options dataclass with the settings that have the names of its fields.

        Args:
            kind: the dataclass.
            others: fields whose value is not a setting of this section, or has another name.
        """
        names = type(self).model_fields.keys() & signature(kind).parameters.keys()
        own = {name: getattr(self, name) for name in names}
        return kind(**own | others)


RENAMED: Mapping[str, str] = {
    "audio.window_s": "segmenter.gather_s",
    "audio.turn_s": "audio.decode_block_s",
    "segmenter.window": "segmenter.max_in_flight",
    "recognizer.hybrid.share_window_s": "recognizer.hybrid.share_period_s",
}
"""Names that settings had in earlier versions, and what they are called now."""


def refuse_old_names(values: object) -> None:
    """Checks that no setting is given by the name that it had in an earlier version.

    Args:
        values: settings as they were given, nested mappings.

    Raises:
        ValueError: one is; the message has the new name.
    """
    for old, new in RENAMED.items():
        found: object = values
        for part in old.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if found is not None:
            raise ValueError(f"{old} is now called {new}")
