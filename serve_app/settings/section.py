"""What all sections of the settings have in common: tiers, types, names of earlier versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema

Tier: TypeAlias = Literal["operator", "advanced"]
"""`operator`: chosen for a machine and its traffic. `advanced`: the default is rarely wrong."""

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True)
class _TierMark:
    """Puts the tier of a setting into its annotation and its JSON schema."""

    tier: Tier

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, object]:
        return {**handler(schema), "tier": self.tier}


Advanced: TypeAlias = Annotated[ValueT, _TierMark("advanced")]
"""Type of a setting that few operators need: `Advanced[int]`."""


def tier_of(setting: FieldInfo) -> Tier:
    """Returns the tier of a field of a section."""
    marks = [mark for mark in setting.metadata if isinstance(mark, _TierMark)]
    return marks[0].tier if marks else "operator"


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
}
"""Names that settings had in earlier versions, and what they are called now."""

REMOVED: Mapping[str, str] = {
    "admission.max_retry_after_s": "it is always 120 s, the longest that OpenAI's clients accept",
    "audio_url.max_redirects": "three redirects are followed",
    "batch.read_range_bytes": "1 MiB is always read at once",
    "recognizer.deployment.autoscaling.hysteresis": "it is always 0.2",
    "recognizer.deployment.autoscaling.max_utilization": "it is always 0.9",
    "recognizer.hybrid.share_period_s": "the share is always taken over 600 s of audio",
    "recognizer.hybrid.share_window_s": "the share is always taken over 600 s of audio",
    "recognizer.tokens_per_frame": "it is always 0.5; a batch with more tokens is run twice",
    "segmenter.silence_timeout_s": "a segmenter is always given 60 s to show that it is alive",
    "ui.keep_upload_s": "an upload without a request is always deleted after an hour",
    **{
        f"{stage}.deployment.autoscaling.look_back_s": "requests are always averaged over 30 s"
        for stage in ("ingress", "segmenter", "recognizer", "punctuator")
    },
}
"""Settings of earlier versions whose value is fixed now, and why they need not be set."""


def old_name_problem(name: str) -> str | None:
    """Returns what to tell who uses the name of a setting of an earlier version, else None."""
    if name in RENAMED:
        return f"{name} is now called {RENAMED[name]}"
    if name in REMOVED:
        return f"{name} is no longer a setting: {REMOVED[name]}; remove it"
    return None


def refuse_old_names(values: object) -> None:
    """Checks that no setting is given by the name of an earlier version.

    Args:
        values: settings as they were given, nested mappings.

    Raises:
        ValueError: one is; the message has the new name, or says why there is none.
    """
    problems = [problem for name in _names(values, "") if (problem := old_name_problem(name))]
    if problems:
        raise ValueError("; ".join(problems))


def _names(values: object, prefix: str) -> Iterator[str]:
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield f"{prefix}{name}"
            yield from _names(value, f"{prefix}{name}.")
