"""Files that are not usable audio; their senders must send others."""

from __future__ import annotations

from serve_app.core.errors.requests import RequestError


class AudioError(RequestError):
    """The bytes are not usable audio; the caller must send another file."""

    code = "invalid_audio"


class EmptyUpload(AudioError):
    """The file has no bytes."""

    code = "empty_file"

    def __str__(self) -> str:
        return "the uploaded file is empty (0 bytes)"


class UnknownAudioFormat(AudioError):
    """No decoder recognises the bytes, or the file holds no audio stream."""

    code = "unknown_audio_format"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)

    def __str__(self) -> str:
        return (
            f"the file is not audio that can be decoded: {self.args[0]}; "
            "accepted: wav, flac, ogg, mp3, m4a, aac, amr, webm, mp4"
        )


class CorruptAudio(AudioError):
    """The container was recognised, but its content cannot be decoded."""

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
    """The recording is shorter than any utterance; the caller must send more."""

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
        return f"the audio lasts at least {duration_s:.1f} s; the limit is {limit_s:.0f} s"


class AudioTooComplex(AudioError):
    """Decoding takes far more work than audio of this length and size should."""

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
    """The audio is in far more pieces than any program writes; decoding them takes too long."""

    code = "audio_too_fragmented"

    def __init__(self, num_pieces: int, decoded_s: float) -> None:
        super().__init__(num_pieces, decoded_s)

    def __str__(self) -> str:
        num_pieces, decoded_s = (float(str(arg)) for arg in self.args)
        return (
            f"the file has {num_pieces:.0f} packets for {decoded_s:.2f} s of audio, far more than "
            "a recording of its length needs; write it again with ordinary packets"
        )
