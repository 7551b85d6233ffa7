"""All settings in one model, read once at the entry point.

Sources, in order of precedence: arguments (the `args` of a Serve config or the
command line), environment variables with the prefix `PARASERVE_` (nested names
joined by `__`, as in `PARASERVE_RECOGNIZER__DEVICE`), the YAML profile, the
defaults. Replicas do not read the environment; they receive their settings when
they are built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from serve_app.core.paths import default_pack_dir
from serve_app.core.records import STAGES, Stage
from serve_app.settings.admission import REFUSAL_HEADROOM, AdmissionSettings, AuthSettings
from serve_app.settings.audio_url import AudioUrlSettings
from serve_app.settings.batch import BatchSettings
from serve_app.settings.jobs import JobSettings
from serve_app.settings.keys import read_keys
from serve_app.settings.live import LiveSettings
from serve_app.settings.section import Advanced, refuse_old_names
from serve_app.settings.service import (
    ClusterSettings,
    HttpSettings,
    IngressSettings,
    TracingSettings,
)
from serve_app.settings.sources import DEFAULT_PROFILE, ENV_PREFIX, ProfileSource
from serve_app.settings.stages import (
    AudioSettings,
    PunctuatorSettings,
    RecognizerSettings,
    SegmenterSettings,
    SpeakerEmbedderSettings,
    VadSettings,
)
from serve_app.settings.subtitles import SubtitleSettings
from serve_app.settings.text import TextSettings
from serve_app.settings.ui import UiSettings


class Settings(BaseSettings):
    """Settings of one deployment of Paraserve.

    Raises:
        pydantic.ValidationError: a value is out of bounds or a key is unknown.
        ConfigurationError: the profile does not exist or is not a mapping.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    profile: str = Field(
        default=DEFAULT_PROFILE,
        description="Name of a built-in profile, path of a YAML file, or the content of one as "
        "`{...}`.",
    )
    app_name: Advanced[str] = Field(
        default="paraserve",
        min_length=1,
        description="Name of the Ray Serve application. Choose others for further services on the "
        "same cluster.",
    )
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] = Field(
        default=("vad", "asr", "punctuation"),
        description="Stages to deploy. A request may ask for fewer, never for more. `speakers`, "
        "which labels who speaks, is not deployed by default.",
    )
    pack_dir: Path = Field(
        default_factory=default_pack_dir,
        description="Directory of the model packs.",
    )
    offline: bool = Field(
        default=False,
        description="Never download a pack; fail if one is missing.",
    )
    max_attempts: Advanced[int] = Field(
        default=3,
        ge=1,
        description="Maximum number of attempts at a call between stages whose replica dies or "
        "does not answer; then the call fails.",
    )
    replacement_timeout_s: Advanced[float] = Field(
        default=300.0,
        gt=0,
        description="Maximum time in s that a call between stages waits for a live replica when "
        "none is left; then the request is answered with 503. Longer than a replica takes to "
        "start and load its model.",
    )
    compute_nice: Advanced[int] = Field(
        default=10,
        ge=0,
        le=19,
        description="Added to the niceness of the threads that decode and compute non-urgent "
        "audio on CPUs (see `audio.urgent_s`), so that threads that forward requests or process "
        "clips run first. It costs nothing while cores are idle. Linux only; 0 disables it.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO",
        description="Minimum level of log lines.",
    )
    http: HttpSettings = HttpSettings()
    cluster: ClusterSettings = ClusterSettings()
    audio: AudioSettings = AudioSettings()
    audio_url: AudioUrlSettings = AudioUrlSettings()
    vad: VadSettings = VadSettings()
    auth: AuthSettings = AuthSettings()
    admission: AdmissionSettings = AdmissionSettings()
    tracing: TracingSettings = TracingSettings()
    ingress: IngressSettings = IngressSettings()
    segmenter: SegmenterSettings = SegmenterSettings()
    recognizer: RecognizerSettings = RecognizerSettings()
    punctuator: PunctuatorSettings = PunctuatorSettings()
    speaker_embedder: SpeakerEmbedderSettings = SpeakerEmbedderSettings()
    text: TextSettings = TextSettings()
    subtitles: SubtitleSettings = SubtitleSettings()
    ui: UiSettings = UiSettings()
    batch: BatchSettings = BatchSettings()
    jobs: JobSettings = JobSettings()
    live: LiveSettings = LiveSettings()

    @property
    def largest_upload_bytes(self) -> int:
        """Maximum size of one recording on disk."""
        fetched = self.audio_url.max_bytes if self.audio_url.enabled else 0
        return max(self.audio.max_upload_bytes, fetched)

    def check_access(self) -> None:
        """Checks that there is a valid keys file if callers need keys.

        Raises:
            ConfigurationError: it is missing or invalid.
        """
        self.auth.check()
        if self.auth.keys_file is not None and self.auth.demanded:
            read_keys(self.auth.keys_file)

    @model_validator(mode="before")
    @classmethod
    def _no_old_names(cls, values: object) -> object:
        refuse_old_names(values)
        return values

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
        for name, section in (
            ("recognizer", self.recognizer),
            ("punctuator", self.punctuator),
            ("speaker_embedder", self.speaker_embedder),
        ):
            on_gpu = section.device.startswith("cuda")
            if not on_gpu and section.dtype == "float16":
                raise ValueError(
                    f"{name}.dtype float16 needs {name}.device cuda; use auto on a CPU"
                )
            if on_gpu and section.deployment.num_gpus == 0:
                raise ValueError(
                    f"{name}.device is {section.device}, but {name}.deployment.num_gpus is 0: "
                    "Ray would hide the GPU from the replica"
                )
        return self

    @model_validator(mode="after")
    def _admission_fits(self) -> Settings:
        line = self.admission
        wanted = line.max_running + line.max_waiting + REFUSAL_HEADROOM
        if self.ingress.deployment.max_ongoing_requests < wanted:
            raise ValueError(
                f"ingress.deployment.max_ongoing_requests must be at least {wanted}: "
                f"admission.max_running + admission.max_waiting + {REFUSAL_HEADROOM} for refusals"
            )
        largest = self.largest_upload_bytes
        if line.max_bytes < largest:
            raise ValueError(f"admission.max_bytes is less than one upload of {largest} bytes")
        if line.max_audio_s < self.audio.max_duration_s:
            raise ValueError("admission.max_audio_s is less than audio.max_duration_s")
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
            ProfileSource(settings_cls, str(profile or DEFAULT_PROFILE)),
        )
