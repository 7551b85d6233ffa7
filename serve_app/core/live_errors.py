"""The errors of live transcription; see `serve_app.core.errors`."""

from __future__ import annotations

from serve_app.core.errors import RequestError, ServiceError


class NothingToCommit(RequestError):
    """A segment was to end that has no audio.

    Args:
        audio_ms: that there is.
    """

    code = "input_audio_buffer_commit_empty"

    def __init__(self, audio_ms: int) -> None:
        super().__init__(audio_ms)

    def __str__(self) -> str:
        return f"only {self.args[0]} ms of audio have arrived since the last segment; send 100"


class TooMuchAudio(RequestError):
    """A session sent audio far faster than it can be processed.

    Args:
        most_s: that may wait, in s.
    """

    code = "too_much_audio"

    def __init__(self, most_s: float) -> None:
        super().__init__(most_s)

    def __str__(self) -> str:
        return f"more than {self.args[0]:g} s of audio wait to be processed; send it more slowly"


class UnknownEvent(RequestError):
    """A client event is not of the protocol, or not of its shape.

    Args:
        detail: what is wrong, as a clause.
    """

    code = "invalid_event"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)

    def __str__(self) -> str:
        return str(self.args[0])


class SessionTooLong(ServiceError):
    """A session has reached the longest time that one may last, or was idle for too long.

    Args:
        limit_s: the limit.
        position_ms: audio up to which all texts were told: where another session goes on.
    """

    code = "session_expired"

    def __init__(self, limit_s: float, position_ms: int) -> None:
        super().__init__(limit_s, position_ms)

    def __str__(self) -> str:
        return (
            f"the session has lasted {self.args[0]:g} s; open another one and go on from "
            f"{self.args[1]} ms"
        )
