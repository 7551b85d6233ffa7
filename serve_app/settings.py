"""Everything that can be set, in one model, read once at the entry point.

A value comes from, first wins: arguments (the `args` of a Serve config or the
command line), environment variables with the prefix `PARASERVE_` (nested names
joined by `__`, as in `PARASERVE_RECOGNIZER__DEVICE`), the YAML profile, the
defaults below. Replicas never read the environment: they are given what they
need when they are built.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from serve_app.core.errors import ConfigurationError
from serve_app.core.places import default_pack_dir
from serve_app.core.stages import STAGES, Stage

DEFAULT_PROFILE = "demo"
ENV_PREFIX = "PARASERVE_"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AutoscalingSettings(_Section):
    """Bounds for Ray Serve's own request-count policy."""

    min_replicas: int = Field(default=1, ge=0, description="Replicas kept when idle.")
    max_replicas: int = Field(default=4, ge=1, description="Replicas at most.")
    target_ongoing_requests: float = Field(
        default=2.0, gt=0, description="Requests in flight per replica to aim at."
    )

    @model_validator(mode="after")
    def _ordered(self) -> AutoscalingSettings:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is larger than max_replicas")
        return self


class DeploymentSettings(_Section):
    """Placement and size of one Ray Serve deployment."""

    num_replicas: int = Field(default=1, ge=1, description="Replicas, unless `autoscaling` is set.")
    num_cpus: float = Field(
        default=0.5,
        ge=0,
        description="Cores that Ray reserves per replica. Fractions let several replicas "
        "share a core; compute threads are set by `num_threads`, not by this.",
    )
    num_gpus: float = Field(
        default=0.0,
        ge=0,
        description="GPUs, or the fraction of one, that Ray reserves per replica. Fractions "
        "on one GPU must add up to at most 1.0.",
    )
    max_ongoing_requests: int = Field(
        default=64,
        ge=1,
        description="Calls that a replica holds at once. Below what fills a batch, batches "
        "stay small.",
    )
    graceful_shutdown_timeout_s: float = Field(
        default=600.0,
        ge=0,
        description="How long a replica that is told to stop may finish what it has begun.",
    )
    autoscaling: AutoscalingSettings | None = Field(
        default=None, description="Set to let the number of replicas follow the load."
    )

    @field_validator("num_gpus")
    @classmethod
    def _whole_above_one(cls, num_gpus: float) -> float:
        if num_gpus > 1 and num_gpus != int(num_gpus):
            raise ValueError("a replica takes a fraction of one GPU or whole GPUs")
        return num_gpus


class SegmenterDeployment(DeploymentSettings):
    max_ongoing_requests: int = Field(default=16, ge=1, description="Recordings at once.")


class RecognizerDeployment(DeploymentSettings):
    num_cpus: float = Field(default=1.0, ge=0, description="Cores reserved per replica.")


class PunctuatorDeployment(DeploymentSettings):
    num_cpus: float = Field(default=0.25, ge=0, description="Cores reserved per replica.")


class IngressDeployment(DeploymentSettings):
    num_cpus: float = Field(default=0.25, ge=0, description="Cores reserved per replica.")
    max_ongoing_requests: int = Field(default=256, ge=1, description="HTTP requests at once.")


class HttpSettings(_Section):
    """Where the service listens."""

    host: str = Field(default="127.0.0.1", description="Address of the HTTP proxy.")
    port: int = Field(default=8000, ge=1, le=65535, description="Port of the HTTP proxy.")
    haproxy: bool = Field(
        default=True,
        description="Use HAProxy instead of Ray's Python proxy: uploads pass it in a stream "
        "and it takes a tenth of the CPU.",
    )


class ClusterSettings(_Section):
    """The Ray cluster that `paraserve serve` runs on; `serve run` brings its own."""

    address: str | None = Field(
        default=None,
        description="Address of a running cluster (`auto`, or `ray://...`); unset to start one "
        "on this machine.",
    )
    num_cpus: int | None = Field(
        default=None,
        gt=0,
        description="Cores that a cluster started here offers; unset for all. It may be more "
        "than there are, since reservations are logical.",
    )
    object_store_bytes: int = Field(
        default=512 * 2**20,
        ge=80 * 2**20,
        description="Shared memory of a cluster started here, in bytes. It holds the uploads "
        "and chunks in flight.",
    )


class AudioSettings(_Section):
    """What audio is accepted and how it is read."""

    max_upload_bytes: int = Field(
        default=50 * 2**20, ge=1024, description="Largest upload in bytes."
    )
    max_duration_s: float = Field(default=5 * 3600.0, gt=0, description="Longest recording in s.")
    min_duration_s: float = Field(
        default=0.1, ge=0, description="Shortest recording in s; less is refused."
    )
    window_s: float = Field(
        default=20.0,
        ge=0.5,
        le=120,
        description="Audio decoded at a time, in s. Larger windows make fewer, larger calls "
        "to the recogniser; the first text comes a little later.",
    )
    spool_dir: Path | None = Field(
        default=None,
        description="Directory for uploads while they are being worked on, as unnamed files "
        "that vanish with their request; unset for the system's temporary directory.",
    )


class VadSettings(_Section):
    """The voice activity detector; runs in the segmenter."""

    pack: str = Field(default="fsmn-vad", description="Model pack of the VAD.")
    max_end_silence_ms: int = Field(
        default=800,
        ge=100,
        le=6000,
        description="Silence that ends a segment, in ms. Smaller gives shorter segments.",
    )


class SegmenterSettings(_Section):
    """Decoding, VAD and fan-out."""

    deployment: SegmenterDeployment = SegmenterDeployment()
    num_threads: int = Field(
        default=1,
        ge=1,
        description="Compute threads per replica. More than one rarely pays: add replicas.",
    )
    max_segment_s: float = Field(
        default=30.0,
        ge=2,
        le=60,
        description="Longest chunk for the recogniser in s; longer speech is divided in its "
        "quietest places.",
    )
    max_group_s: float = Field(
        default=30.0,
        ge=0,
        description="Chunks that are ready together travel in one call up to this much "
        "audio in s, which saves calls.",
    )
    window: int = Field(
        default=8,
        ge=1,
        description="Calls of one request in flight at the recogniser. Bounds memory and "
        "keeps a long file from crowding out short ones; at least twice the number of "
        "recogniser replicas lets one file use them all.",
    )


class _ModelSettings(_Section):
    """Where a model computes."""

    device: str = Field(
        default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda or cuda:N."
    )
    num_threads: int = Field(default=1, ge=1, description="Compute threads per replica on CPU.")


class RecognizerSettings(_ModelSettings):
    """The speech recognition model."""

    deployment: RecognizerDeployment = RecognizerDeployment()
    pack: str = Field(default="paraformer-demo", description="Model pack of the recogniser.")
    dtype: Literal["float32", "int8"] = Field(
        default="float32",
        description="float32 is exact; int8 needs a CPU, is more than twice as fast on large "
        "models and changes few tokens.",
    )
    max_batch_frames: int = Field(
        default=1000,
        ge=1,
        description="Budget of a batch in encoder frames of 60 ms. On CPUs more than about "
        "1,000 makes it slower; GPUs want tens of thousands.",
    )
    languages: tuple[str, ...] = Field(
        default=("zh",), description="Values that `language` may have in a request."
    )


class PunctuatorSettings(_ModelSettings):
    """The punctuation model."""

    deployment: PunctuatorDeployment = PunctuatorDeployment()
    pack: str = Field(default="ct-punc-demo", description="Model pack of the punctuation model.")
    max_batch_words: int = Field(
        default=2000, ge=20, description="Budget of a batch in words of 20-word windows."
    )
    sentence_break_s: float | None = Field(
        default=3.0,
        gt=0,
        description="A pause of this many seconds ends a sentence whatever the model says; "
        "unset for never.",
    )


class IngressSettings(_Section):
    """The HTTP side."""

    deployment: IngressDeployment = IngressDeployment()
    request_timeout_s: float = Field(
        default=3600.0,
        gt=0,
        description="Deadline of a request in s, from its last byte to the end of its text.",
    )
    model_aliases: tuple[str, ...] = Field(
        default=("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"),
        description="Further values of `model` that mean the pack that is served, since many "
        "clients send a fixed one.",
    )


class Settings(BaseSettings):
    """Settings of one deployment of Paraserve.

    Raises:
        pydantic.ValidationError: a value is out of bounds or a key is unknown.
        ConfigurationError: the profile does not exist or is not a mapping.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )
    known_profiles: ClassVar[str] = "serve_app.profiles"

    profile: str = Field(
        default=DEFAULT_PROFILE,
        description="Name of a built-in profile, or the path of a YAML file.",
    )
    app_name: str = Field(default="paraserve", min_length=1, description="Ray Serve's name of it.")
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] = Field(
        default=STAGES, description="Stages that are deployed. A request may ask for fewer."
    )
    pack_dir: Path = Field(
        default_factory=default_pack_dir,
        description="Where model packs are kept.",
    )
    offline: bool = Field(default=False, description="Never fetch a pack; fail if it is missing.")
    max_attempts: int = Field(
        default=3, ge=1, description="Tries of a call between the stages whose replica dies."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least level that is logged."
    )
    http: HttpSettings = HttpSettings()
    cluster: ClusterSettings = ClusterSettings()
    audio: AudioSettings = AudioSettings()
    vad: VadSettings = VadSettings()
    ingress: IngressSettings = IngressSettings()
    segmenter: SegmenterSettings = SegmenterSettings()
    recognizer: RecognizerSettings = RecognizerSettings()
    punctuator: PunctuatorSettings = PunctuatorSettings()

    @field_validator("stages")
    @classmethod
    def _stages_in_order(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        if "asr" not in stages:
            raise ValueError("stages must contain asr")
        return tuple(stage for stage in STAGES if stage in stages)

    @model_validator(mode="after")
    def _devices_have_gpus(self) -> Settings:
        if self.recognizer.dtype == "int8" and self.recognizer.device != "cpu":
            raise ValueError("recognizer.dtype int8 needs recognizer.device cpu")
        for name, section in (("recognizer", self.recognizer), ("punctuator", self.punctuator)):
            on_gpu = section.device.startswith("cuda")
            if on_gpu and section.deployment.num_gpus == 0:
                raise ValueError(
                    f"{name}.device is {section.device}, but {name}.deployment.num_gpus is 0: "
                    "Ray would hide the GPU from the replica"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        profile = init_settings().get("profile") or env_settings().get("profile")
        return (
            init_settings,
            env_settings,
            _ProfileSource(settings_cls, str(profile or DEFAULT_PROFILE)),
        )


class _ProfileSource(PydanticBaseSettingsSource):
    """The YAML profile as a source of settings."""

    def __init__(self, settings_cls: type[BaseSettings], profile: str) -> None:
        super().__init__(settings_cls)
        self._profile = profile

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise AssertionError("__call__ gives all values at once")

    def __call__(self) -> dict[str, Any]:
        return read_profile(self._profile)


def profile_names() -> list[str]:
    """Returns the names of the built-in profiles."""
    folder = resources.files(Settings.known_profiles)
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )


def read_profile(profile: str) -> dict[str, Any]:
    """Returns the content of a profile.

    Raises:
        ConfigurationError: there is no such profile, or it is not a mapping.
    """
    if profile in profile_names():
        text = resources.files(Settings.known_profiles).joinpath(f"{profile}.yaml").read_text()
    elif Path(profile).is_file():
        text = Path(profile).read_text()
    else:
        raise ConfigurationError(
            f"profile {profile!r} is neither a file nor one of: {', '.join(profile_names())}"
        )
    content = yaml.safe_load(text) or {}
    if not isinstance(content, dict):
        raise ConfigurationError(f"profile {profile!r} is not a mapping of settings")
    return content


def check_environment(environ: dict[str, str] | None = None) -> None:
    """Refuses environment variables with our prefix that name no setting.

    pydantic-settings ignores them, so a typing error would go unseen.

    Raises:
        ConfigurationError: naming the variables.
    """
    environ = dict(os.environ) if environ is None else environ
    unknown = [
        name
        for name in environ
        if name.upper().startswith(ENV_PREFIX)
        and not _names_a_setting(name.upper().removeprefix(ENV_PREFIX).lower().split("__"))
    ]
    if unknown:
        raise ConfigurationError(f"unknown environment variables: {', '.join(sorted(unknown))}")


def _names_a_setting(path: list[str]) -> bool:
    model: type[BaseModel] | None = Settings
    for name in path:
        if model is None or name not in model.model_fields:
            return False
        model = _section_of(model.model_fields[name].annotation)
    return True


def _section_of(annotation: object) -> type[BaseModel] | None:
    options = getattr(annotation, "__args__", ()) or (annotation,)
    for option in options:
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None
