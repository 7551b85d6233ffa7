"""Every error that Paraserve raises on purpose, as one tree.

Each class says who must act. `code` is stable: clients may switch on it, and
`serve_app.api.errors` maps each class to an HTTP status. The constructors take
positional arguments only and pass them on to `Exception`, because unpickling
replays `args` and these errors cross process borders.
"""

from serve_app.core.errors.audio import (
    AudioError,
    AudioTooLong,
    AudioTooShort,
    CorruptAudio,
    EmptyUpload,
    InvalidSamples,
    TruncatedAudio,
    UnknownAudioFormat,
    UnsupportedAudioLayout,
)
from serve_app.core.errors.cluster import ClusterError, ClusterRefused
from serve_app.core.errors.configuration import (
    ConfigurationError,
    CostsError,
    DeviceUnavailable,
    ManifestError,
    PackCorrupt,
    PackError,
    PackFetchFailed,
    PackIncomplete,
    PackNotFound,
    TraceError,
)
from serve_app.core.errors.requests import (
    InvalidParameter,
    KeyNotAllowed,
    MalformedBody,
    ModelNotFound,
    RequestError,
    StageNotDeployed,
    Unauthenticated,
    UploadTooLarge,
    UrlFetchFailed,
    UrlNotAllowed,
)
from serve_app.core.errors.root import ParaserveError
from serve_app.core.errors.service import (
    DeadlineExceeded,
    ModelUnavailable,
    NotReady,
    Overloaded,
    RecognitionFailed,
    ServiceError,
    StartFailed,
    StorageFull,
)

__all__ = [
    "AudioError",
    "AudioTooLong",
    "AudioTooShort",
    "ClusterError",
    "ClusterRefused",
    "ConfigurationError",
    "CorruptAudio",
    "CostsError",
    "DeadlineExceeded",
    "DeviceUnavailable",
    "EmptyUpload",
    "InvalidParameter",
    "InvalidSamples",
    "KeyNotAllowed",
    "MalformedBody",
    "ManifestError",
    "ModelNotFound",
    "ModelUnavailable",
    "NotReady",
    "Overloaded",
    "PackCorrupt",
    "PackError",
    "PackFetchFailed",
    "PackIncomplete",
    "PackNotFound",
    "ParaserveError",
    "RecognitionFailed",
    "RequestError",
    "ServiceError",
    "StageNotDeployed",
    "StartFailed",
    "StorageFull",
    "TraceError",
    "TruncatedAudio",
    "Unauthenticated",
    "UnknownAudioFormat",
    "UnsupportedAudioLayout",
    "UploadTooLarge",
    "UrlFetchFailed",
    "UrlNotAllowed",
]
