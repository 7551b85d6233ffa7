"""All settings, in one model; see `serve_app.settings.model`."""

from serve_app.settings.admission import AdmissionSettings, AuthSettings
from serve_app.settings.assignments import load_settings
from serve_app.settings.audio_url import AudioUrlSettings
from serve_app.settings.deployments import AutoscalingSettings, DeploymentSettings
from serve_app.settings.environment import check_environment
from serve_app.settings.model import Settings
from serve_app.settings.section import Section
from serve_app.settings.service import ClusterSettings, HttpSettings, IngressSettings
from serve_app.settings.sources import DEFAULT_PROFILE, profile_names, read_profile
from serve_app.settings.stages import (
    AudioSettings,
    PunctuatorSettings,
    RecognizerSettings,
    SegmenterSettings,
    SpeakerEmbedderSettings,
    VadSettings,
)

__all__ = [
    "DEFAULT_PROFILE",
    "AdmissionSettings",
    "AudioSettings",
    "AudioUrlSettings",
    "AuthSettings",
    "AutoscalingSettings",
    "ClusterSettings",
    "DeploymentSettings",
    "HttpSettings",
    "IngressSettings",
    "PunctuatorSettings",
    "RecognizerSettings",
    "Section",
    "SegmenterSettings",
    "Settings",
    "SpeakerEmbedderSettings",
    "VadSettings",
    "check_environment",
    "load_settings",
    "profile_names",
    "read_profile",
]
