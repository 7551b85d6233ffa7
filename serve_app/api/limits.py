"""The limits that the routes enforce, derived from the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from serve_app.api.body import UploadRate
from serve_app.audio import AudioLimits
from serve_app.scheduling.admission import MAX_RETRY_AFTER_S, NO_LIMITS, Limits
from serve_app.settings import Settings
from serve_app.settings.admission import REFUSAL_HEADROOM

_KEY_SHARE = 0.75
_MIN_SPARE = 4


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """Limits that the routes enforce.

    Attributes:
        max_upload_bytes: largest file.
        request_timeout_s: default deadline of a request, from its arrival.
        spool_dir: where recordings are spooled, None for the system's directory.
        max_request_timeout_s: longest deadline that a request may set.
        max_audio_s: longest recording.
        in_flight: limits of all callers together.
        max_retry_after_s: longest Retry-After of a rejected request.
        upload_rate: minimum rate of senders; None for any.
        audio: of accepted audio, for the recordings of known speakers.
    """

    max_upload_bytes: int
    request_timeout_s: float
    spool_dir: Path | None
    max_request_timeout_s: float = 4 * 3600.0
    max_audio_s: float = 5 * 3600.0
    in_flight: Limits = NO_LIMITS
    max_retry_after_s: float = MAX_RETRY_AFTER_S
    upload_rate: UploadRate | None = None
    audio: AudioLimits = field(default_factory=AudioLimits)


def limits_of(settings: Settings) -> ApiLimits:
    admission = settings.admission
    return ApiLimits(
        max_upload_bytes=settings.audio.max_upload_bytes,
        request_timeout_s=settings.ingress.request_timeout_s,
        spool_dir=settings.audio.spool_dir,
        max_request_timeout_s=settings.ingress.max_request_timeout_s,
        max_audio_s=settings.audio.max_duration_s,
        in_flight=Limits(
            admission.max_running,
            admission.max_waiting,
            admission.max_bytes,
            admission.max_audio_s,
            num_spare_connections(settings),
        ),
        upload_rate=UploadRate(
            settings.ingress.min_upload_bytes_per_s, settings.ingress.upload_grace_s
        ),
        audio=settings.audio.options_for(AudioLimits, block_s=settings.audio.decode_block_s),
    )


def num_spare_connections(settings: Settings) -> int:
    """Returns how many uploads an ingress replica stores at once, and as many event streams.

    An ingress replica holds a number of requests at a time. Of what transcriptions leave, a
    third is for each of these, and a third for short requests.
    """
    admission = settings.admission
    taken = admission.max_running + admission.max_waiting + REFUSAL_HEADROOM
    spare = settings.ingress.deployment.max_ongoing_requests - taken
    return max(spare // 3, _MIN_SPARE)


def key_limits_of(settings: Settings) -> Limits:
    """Returns the limits of a key that has none of its own."""
    admission = settings.admission
    return Limits(
        admission.key_max_running,
        admission.key_max_waiting,
        admission.key_max_bytes,
        admission.key_max_audio_s,
    )


def shared_key_limits_of(settings: Settings) -> Limits:
    """Returns the bounds, where nothing else is set, of one key beside others.

    It leaves a quarter of everything to them, but may always send the largest upload and
    the longest recording.
    """
    admission = settings.admission
    largest_bytes = settings.largest_upload_bytes
    return Limits(
        max(1, int(admission.max_running * _KEY_SHARE)),
        int(admission.max_waiting * _KEY_SHARE),
        max(largest_bytes, int(admission.max_bytes * _KEY_SHARE)),
        max(settings.audio.max_duration_s, admission.max_audio_s * _KEY_SHARE),
        max(1, int(num_spare_connections(settings) * _KEY_SHARE)),
    )
