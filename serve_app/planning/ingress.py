"""The ingress replicas: admission, punctuation calls and answers."""

from __future__ import annotations

from collections.abc import Callable

from serve_app.core.errors import Overloaded, ParaserveError
from serve_app.planning.costs import LineCost
from serve_app.planning.cpu import Clock, Cores
from serve_app.planning.replicas import Call, ReplicaGroup, Request
from serve_app.planning.results import Outcomes
from serve_app.planning.segmenting import Segmenting
from serve_app.planning.service_config import ServiceShape
from serve_app.planning.speech import Group
from serve_app.scheduling.admission import AdmissionLine, AdmissionTicket


class IngressModel:
    """Admits requests, passes them to the segmenters and answers them.

    Args:
        clock: the simulation's.
        cores: of the ingress replicas.
        shape: of the service.
        cost: of a request at the ingress.
        segmenting: the segmenters.
        punctuator: its replicas; None to model punctuation as a delay.
        words_per_audio_s: words in a second of speech.
        last_words_s: that delay, at the end of each request.
        clustering: of telling the speakers of a recording apart; None without labels.
        outcomes: collects the outcome of each request.
    """

    def __init__(
        self,
        clock: Clock,
        cores: Cores,
        shape: ServiceShape,
        cost: LineCost,
        segmenting: Segmenting,
        punctuator: ReplicaGroup | None,
        words_per_audio_s: float,
        last_words_s: float,
        clustering: LineCost | None,
        outcomes: Outcomes,
    ) -> None:
        self._clock = clock
        self._cores = cores
        self._shape = shape
        self._cost = cost
        self._segmenting = segmenting
        self._punctuator = punctuator
        self._words_per_audio_s = words_per_audio_s
        self._last_words_s = last_words_s
        self._clustering = clustering
        self._outcomes = outcomes
        self._lines = [
            AdmissionLine(shape.admission, shape.max_retry_after_s)
            for _ in range(shape.num_ingresses)
        ]
        self._next_line = 0
        self._in_line: dict[int, Request] = {}
        self.num_open = 0
        """Requests without an answer."""
        self.on_all_answered: Callable[[], None] = _ignore
        segmenting.on_answer = self._recognized
        segmenting.on_end = self._recording_ended
        if punctuator is not None:
            punctuator.on_answer = self._punctuated

    @property
    def num_waiting(self) -> int:
        return len(self._in_line)

    def arrive(self, request: Request) -> None:
        """Handles a new request; ingresses are chosen round-robin, as by the proxy."""
        self.num_open += 1
        request.ingress = self._next_line
        self._next_line = (self._next_line + 1) % len(self._lines)
        request.num_bytes = int(request.audio_s * self._shape.bytes_per_s)
        try:
            ticket = self._lines[request.ingress].arrive(
                request.key,
                self._shape.key_admission,
                request.num_bytes,
                request.deadline_s,
                self._clock.now,
                request.weight,
            )
        except ParaserveError as error:
            self._refused(request, error)
            return
        request.ticket = ticket
        self._in_line[id(ticket)] = request
        self._clock.at(request.deadline_s, self._expire, request)
        if ticket.state == "uploading":
            self._received(request)

    def _received(self, request: Request) -> None:
        """Handles the end of an upload, which takes no simulated time."""
        ticket = request.ticket
        if ticket is None:
            raise RuntimeError("a request without an admission ticket was received")
        try:
            line = self._lines[request.ingress]
            promoted = line.received(ticket, request.audio_s, self._clock.now)
        except ParaserveError as error:
            self._leave(request, 0.0)
            self._refused(request, error)
            return
        self._promoted(promoted)

    def _begin(self, request: Request) -> None:
        self._cores.run(self._cost.of(request.audio_s), self._segmenting.submit, request)

    def _promoted(self, tickets: list[AdmissionTicket]) -> None:
        for ticket in tickets:
            request = self._in_line.get(id(ticket))
            if request is None:
                continue
            if ticket.state == "uploading":
                self._received(request)
            elif ticket.state == "running":
                del self._in_line[id(ticket)]
                self._begin(request)

    def _leave(self, request: Request, processed_audio_s: float) -> None:
        if request.ticket is not None:
            ticket, request.ticket = request.ticket, None
            self._in_line.pop(id(ticket), None)
            line = self._lines[request.ingress]
            self._promoted(line.leave(ticket, self._clock.now, processed_audio_s))

    def _refused(self, request: Request, error: ParaserveError) -> None:
        if isinstance(error, Overloaded):
            self._outcomes.refused(request, self._clock.now)
        else:
            self._outcomes.rejected(request)
        self._close(request)

    def _expire(self, request: Request) -> None:
        """Handles a deadline; does nothing for a request that has been answered."""
        if request.finished:
            return
        self._outcomes.expired(request)
        self._leave(request, 0.0)
        self._close(request)

    def _recognized(self, request: Request, call: Call) -> None:
        if self._punctuator is None or request.finished:
            return
        request.words += call.group.audio_s * self._words_per_audio_s
        if not request.punctuating:
            self._punctuate(request)

    def _punctuate(self, request: Request) -> None:
        """Sends the accumulated words; a request has one call at a time."""
        num_words = round(request.words)
        if self._punctuator is None or num_words < 1:
            return
        request.words = 0.0
        request.punctuating = True
        self._punctuator.submit(Call(request, Group((num_words,), num_words, 0.0), self._clock.now))

    def _punctuated(self, call: Call) -> None:
        request = call.request
        request.punctuating = False
        if request.finished:
            return
        self._punctuate(request)
        if request.segmenter is None and not request.punctuating:
            self._diarize(request)

    def _recording_ended(self, request: Request) -> None:
        if request.finished:
            return
        if not request.punctuating:
            self._punctuate(request)
        if not request.punctuating:
            self._clock.after(self._last_words_s, self._diarize, request)

    def _diarize(self, request: Request) -> None:
        """Tells the speakers apart, if that is asked for; each recording on its own thread."""
        if self._clustering is None or not request.num_windows:
            self._answer(request)
            return
        self._cores.run(self._clustering.of(request.num_windows), self._answer, request)

    def _answer(self, request: Request) -> None:
        if request.finished:
            return
        self._outcomes.answered(request, self._clock.now)
        self._leave(request, request.audio_s)
        self._close(request)

    def _close(self, request: Request) -> None:
        request.finished = True
        self.num_open -= 1
        if self.num_open == 0:
            self.on_all_answered()


def _ignore() -> None:
    return
