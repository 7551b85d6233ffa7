"""Every error that Paraserve raises on purpose, as one tree.

Each class says who must act: the caller (RequestError, AudioError), the operator
(ConfigurationError, ClusterError) or time (ServiceError). `code` is stable: clients may switch
on it, and `serve_app.api.errors` maps each class to an HTTP status. Constructors take
positional arguments only and pass them on to `Exception`: unpickling replays `args`, and these
errors cross processes.
"""

from __future__ import annotations

__all__ = [
    "AudioError",
    "AudioTooComplex",
    "AudioTooFragmented",
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
    "HeadersTooLarge",
    "HostNotAllowed",
    "InvalidParameter",
    "InvalidSamples",
    "KeyNotAllowed",
    "KeysUnavailable",
    "MalformedBody",
    "ManifestError",
    "MethodNotAllowed",
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
    "RequestNotAcceptable",
    "ServiceError",
    "ShuttingDown",
    "SpeakersUnavailable",
    "StageNotDeployed",
    "StartFailed",
    "StorageFull",
    "TraceError",
    "TruncatedAudio",
    "Unauthenticated",
    "UnknownAudioFormat",
    "UnsupportedAudioLayout",
    "UploadTooLarge",
    "UploadTooSlow",
    "UriTooLong",
    "UrlFetchFailed",
    "UrlNotAllowed",
]


class ParaserveError(Exception):
    """Root of the tree; never raised itself."""

    code = "internal_error"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)


class ClusterError(ParaserveError):
    """The cluster does not meet the command's needs; the message tells the operator what to do."""

    code = "cluster_error"


class ClusterRefused(ClusterError):
    """The API server refused a request or did not answer.

    Args:
        detail: what went wrong, as a sentence.
        status: HTTP status; 0 if there was no response.
    """

    code = "cluster_refused"

    def __init__(self, detail: str, status: int = 0) -> None:
        super().__init__(detail, status)

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def status(self) -> int:
        return int(str(self.args[1]))


class ConfigurationError(ParaserveError):
    """The settings contradict each other or the machine; the operator must fix them."""

    code = "configuration_error"


class PackError(ConfigurationError):
    """A model pack cannot be used; the operator must fix or download it."""

    code = "pack_error"

    def __init__(self, pack: str, problem: str, remedy: str) -> None:
        super().__init__(pack, problem, remedy)

    def __str__(self) -> str:
        return f"model pack {self.args[0]}: {self.args[1]}. {self.args[2]}"


class PackNotFound(PackError):
    """No pack of this name is on this machine."""

    code = "pack_not_found"


class PackIncomplete(PackError):
    """Files of the pack are missing."""

    code = "pack_incomplete"


class PackCorrupt(PackError):
    """Files of the pack differ from their checksums or contradict each other."""

    code = "pack_corrupt"


class PackFetchFailed(PackError):
    """The pack's source could not be reached or refused the download."""

    code = "pack_fetch_failed"


class DeviceUnavailable(ConfigurationError):
    """This machine does not have the device that the settings name."""

    code = "device_unavailable"

    def __init__(self, device: str, detail: str) -> None:
        super().__init__(device, detail)

    def __str__(self) -> str:
        return f"device {self.args[0]!r} is not available: {self.args[1]}"


class TraceError(ConfigurationError):
    """A request trace cannot be used for planning; the message names the line."""

    code = "trace_error"


class CostsError(ConfigurationError):
    """A file of measured costs cannot be used."""

    code = "costs_error"


class ManifestError(ConfigurationError):
    """A manifest of recordings cannot be used; the message names the lines."""

    code = "manifest_error"


class RequestError(ParaserveError):
    """The request is wrong; the caller must change it."""

    code = "invalid_request"


class InvalidParameter(RequestError):
    """A form field or query parameter has an invalid value.

    The reason completes a sentence that starts with the parameter: "must be given once".
    """

    code = "invalid_parameter"

    def __init__(self, param: str, reason: str) -> None:
        super().__init__(param, reason)

    @property
    def param(self) -> str:
        return str(self.args[0])

    def __str__(self) -> str:
        return f"{self.args[0]} {self.args[1]}"


class MalformedBody(RequestError):
    """The body contradicts its headers; the caller must fix its HTTP client."""

    code = "malformed_body"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)

    def __str__(self) -> str:
        return f"the request body cannot be read: {self.args[0]}"


class ModelNotFound(RequestError):
    """The requested model is not served here; the caller must pick another."""

    code = "model_not_found"

    def __init__(self, model: str, served: str) -> None:
        super().__init__(model, served)

    def __str__(self) -> str:
        return f"model {self.args[0]!r} is not served here; served: {self.args[1]}"


class StageNotDeployed(RequestError):
    """The request asks for a stage that is not deployed."""

    code = "stage_not_deployed"

    def __init__(self, stage: str, deployed: str) -> None:
        super().__init__(stage, deployed)

    def __str__(self) -> str:
        return (
            f"stage {self.args[0]!r} is not deployed here; deployed: {self.args[1]} "
            "(setting stages)"
        )


class Unauthenticated(RequestError):
    """The API key is missing or unknown; the caller must send a valid one."""

    code = "invalid_api_key"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)

    def __str__(self) -> str:
        return f"{self.args[0]}; send it as the header 'Authorization: Bearer psk_...'"


class KeyNotAllowed(RequestError):
    """The API key is disabled or has expired; its owner must get another."""

    code = "key_not_allowed"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)

    def __str__(self) -> str:
        return f"the API key {self.args[0]!r} {self.args[1]}"


class UrlNotAllowed(RequestError):
    """The service does not fetch from this `audio_url`; the caller must upload the file."""

    code = "url_not_allowed"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)

    def __str__(self) -> str:
        return f"audio_url is not allowed: {self.args[0]}"


class UrlFetchFailed(RequestError):
    """`audio_url` could not be fetched; the caller must check the URL."""

    code = "url_fetch_failed"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)

    def __str__(self) -> str:
        return f"audio_url could not be fetched: {self.args[0]}"


class UploadTooLarge(RequestError):
    """The upload exceeds the size limit; the caller must send a smaller file."""

    code = "upload_too_large"

    def __init__(self, limit_bytes: int, setting: str = "audio.max_upload_bytes") -> None:
        super().__init__(limit_bytes, setting)

    def __str__(self) -> str:
        limit = int(str(self.args[0]))
        return (
            f"the upload is larger than the limit of {limit} bytes ({limit / 2**20:.1f} MiB, "
            f"setting {self.args[1]}); compress it, to FLAC or Opus for example, or split it"
        )


class UploadTooSlow(RequestError):
    """The body arrives too slowly; the caller must send it faster."""

    code = "upload_too_slow"

    def __init__(self, min_bytes_per_s: float) -> None:
        super().__init__(min_bytes_per_s)

    def __str__(self) -> str:
        return (
            "the request body arrives too slowly: uploads must reach "
            f"{float(str(self.args[0])):g} bytes per second on average"
        )


class RequestNotAcceptable(RequestError):
    """The request line or headers violate a limit or HTTP itself; the caller must fix them."""

    code = "invalid_request_head"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)

    def __str__(self) -> str:
        return str(self.args[0])


class HeadersTooLarge(RequestNotAcceptable):
    """The headers are too many or too long; the caller must send fewer or shorter ones."""

    code = "headers_too_large"


class UriTooLong(RequestNotAcceptable):
    """The path and query are too long; the caller must shorten them."""

    code = "uri_too_long"


class MethodNotAllowed(RequestNotAcceptable):
    """The service does not know the HTTP method; the caller must use another."""

    code = "method_not_allowed"


class HostNotAllowed(RequestNotAcceptable):
    """The Host header names an unknown host; the caller must use one of the service's."""

    code = "host_not_allowed"


class AudioError(RequestError):
    """The bytes are not usable audio; the caller must send another file."""

    code = "invalid_audio"


class EmptyUpload(AudioError):
    """The file has no bytes."""

    code = "empty_file"

    def __str__(self) -> str:
        return "the uploaded file is empty (0 bytes)"


class UnknownAudioFormat(AudioError):
    """No decoder recognizes the bytes, or the file holds no audio stream."""

    code = "unknown_audio_format"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)

    def __str__(self) -> str:
        return (
            f"the file is not audio that can be decoded: {self.args[0]}; "
            "accepted: wav, flac, ogg, mp3, m4a, aac, amr, webm, mp4"
        )


class CorruptAudio(AudioError):
    """The container was recognized, but its content cannot be decoded."""

    code = "corrupt_audio"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)

    def __str__(self) -> str:
        return f"the audio is damaged: {self.args[0]}"


class TruncatedAudio(AudioError):
    """The file ends before the length that its header declares."""

    code = "truncated_audio"

    def __init__(self, decoded_s: float, declared_s: float) -> None:
        super().__init__(decoded_s, declared_s)

    def __str__(self) -> str:
        decoded_s, declared_s = (float(str(arg)) for arg in self.args)
        return (
            f"the file is cut off: its header declares {declared_s:.2f} s of audio, "
            f"{decoded_s:.2f} s could be decoded"
        )


class UnsupportedAudioLayout(AudioError):
    """Sample rate or channel count is outside of what is accepted."""

    code = "unsupported_audio_layout"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)

    def __str__(self) -> str:
        return str(self.args[0])


class InvalidSamples(AudioError):
    """The samples are NaN or infinite."""

    code = "invalid_samples"

    def __init__(self, at_s: float) -> None:
        super().__init__(at_s)

    def __str__(self) -> str:
        at_s = float(str(self.args[0]))
        return f"the audio has samples that are NaN or infinite, first at {at_s:.3f} s"


class AudioTooShort(AudioError):
    """The recording is shorter than any utterance; the caller must send a longer one."""

    code = "audio_too_short"

    def __init__(self, duration_s: float, limit_s: float) -> None:
        super().__init__(duration_s, limit_s)

    def __str__(self) -> str:
        duration_s, limit_s = (float(str(arg)) for arg in self.args)
        return f"the audio lasts {duration_s:.3f} s; the minimum is {limit_s:.2f} s"


class AudioTooLong(AudioError):
    """The recording exceeds the limit; the caller must split it."""

    code = "audio_too_long"

    def __init__(self, duration_s: float, limit_s: float) -> None:
        super().__init__(duration_s, limit_s)

    def __str__(self) -> str:
        duration_s, limit_s = (float(str(arg)) for arg in self.args)
        return (
            f"the audio lasts at least {duration_s:.1f} s; the limit is {limit_s:.0f} s (setting "
            "audio.max_duration_s); split the recording"
        )


class AudioTooComplex(AudioError):
    """Decoding takes far more work than audio of this length and size needs."""

    code = "audio_too_complex"

    def __init__(self, spent_s: float, decoded_s: float) -> None:
        super().__init__(spent_s, decoded_s)

    def __str__(self) -> str:
        spent_s, decoded_s = (float(str(arg)) for arg in self.args)
        return (
            f"decoding was given up after {spent_s:.1f} s of computing for {decoded_s:.1f} s of "
            "audio; the file is made of far more pieces than a recording of its size needs"
        )


class AudioTooFragmented(AudioError):
    """The file has far more packets than its length needs; decoding takes too long."""

    code = "audio_too_fragmented"

    def __init__(self, num_packets: int, decoded_s: float) -> None:
        super().__init__(num_packets, decoded_s)

    def __str__(self) -> str:
        num_packets, decoded_s = (float(str(arg)) for arg in self.args)
        return (
            f"the file has {num_packets:.0f} packets for {decoded_s:.2f} s of audio, far more than "
            "a recording of its length needs; write it again with ordinary packets"
        )


class ServiceError(ParaserveError):
    """The service cannot answer now; the operator must act or the caller wait."""

    code = "service_error"


class NotReady(ServiceError):
    """A deployment is not ready yet; the caller should try again."""

    code = "not_ready"

    def __init__(self, waiting_for: str) -> None:
        super().__init__(waiting_for)

    def __str__(self) -> str:
        return f"the service is starting; waiting for: {self.args[0]}"


class ShuttingDown(ServiceError):
    """The service is shutting down; the caller should try again, elsewhere or later."""

    code = "shutting_down"

    def __init__(self) -> None:
        super().__init__()

    def __str__(self) -> str:
        return "the service is being stopped and takes no further requests; try again"


class StartFailed(ServiceError):
    """A deployment did not start; the operator must fix the reported cause."""

    code = "start_failed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)

    def __str__(self) -> str:
        return f"the application did not start: {self.args[0]}"


class ModelUnavailable(ServiceError):
    """A model could not be loaded; the operator must fix it, the caller may retry.

    The reason may contain paths, so it is logged and left out of the message to callers.
    """

    code = "model_unavailable"

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(model, reason)

    @property
    def reason(self) -> str:
        """For the log."""
        return str(self.args[1])

    def __str__(self) -> str:
        return f"model {self.args[0]!r} cannot be loaded now; the service's log says why"


class Overloaded(ServiceError):
    """The admission limits are reached; the caller must retry later."""

    code = "overloaded"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)

    @property
    def retry_after_s(self) -> float:
        return float(str(self.args[0]))

    def __str__(self) -> str:
        return f"the service is at its limit; retry after {self.retry_after_s:.0f} s"


class StorageFull(ServiceError):
    """The upload disk is full; the operator must free space, the caller may retry."""

    code = "storage_full"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)

    @property
    def retry_after_s(self) -> float:
        return float(str(self.args[0]))

    def __str__(self) -> str:
        return "the service has no room left to take in the recording"


class DeadlineExceeded(ServiceError):
    """The request did not finish within its deadline."""

    code = "deadline_exceeded"

    def __init__(self, limit_s: float) -> None:
        super().__init__(limit_s)

    def __str__(self) -> str:
        return f"the request did not finish within {float(str(self.args[0])):.1f} s"


class RecognitionFailed(ServiceError):
    """Every chunk of the request failed in the recognizer; the operator must investigate."""

    code = "recognition_failed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)

    def __str__(self) -> str:
        return f"the recording could not be recognized: {self.args[0]}"


class SpeakersUnavailable(ServiceError):
    """The request needs speaker labels, and the speaker stage failed; the caller may retry."""

    code = "speakers_unavailable"

    def __str__(self) -> str:
        return (
            "the speakers of the recording could not be told apart now; try again, or ask for a "
            "format without speaker labels"
        )


class KeysUnavailable(ServiceError):
    """API keys cannot be checked; the operator must restore the keys file."""

    code = "keys_unavailable"

    def __str__(self) -> str:
        return "the service cannot check API keys now; its operator has to restore its keys file"
