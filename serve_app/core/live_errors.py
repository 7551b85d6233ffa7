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


class OriginNotAllowed(RequestError):
    """A web page of another site opens a session; the operator lists the sites that may."""

    code = "origin_not_allowed"

    def __str__(self) -> str:
        return (
            "pages of this origin may not open sessions; the setting http.cors_origins lists "
            "those that may"
        )


class SessionIdle(ServiceError):
    """No audio came for the longest time that a session may be without.

    Args:
        limit_s: the limit.
    """

    code = "session_idle"

    def __init__(self, limit_s: float) -> None:
        super().__init__(limit_s)

    def __str__(self) -> str:
        return f"no audio has come for {self.args[0]:g} s"


class EventsNotRead(RequestError):
    """A client sends and does not read what it is answered."""

    code = "events_not_read"

    def __str__(self) -> str:
        return "the client does not read its events"


class SessionTooLong(ServiceError):
    """A session has reached the longest time that one may last.

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
