"""Simulated segmenters: recordings decoded block by block, with few calls in flight each.

Models `fan_out` of the service; which recording is decoded next is up to the service's own
`FairQueue`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from serve_app.planning.costs import LineCost
from serve_app.planning.cpu import Clock, Cores
from serve_app.planning.replicas import Call, ReplicaGroup, Request, SegmenterModel
from serve_app.planning.speech import Speech, windows_of
from serve_app.scheduling.autoscaling import Backlog
from serve_app.scheduling.batch_budget import BatchLimits

_ONE_STEP = BatchLimits(max_cost=1, max_items=1)


class Segmenting:
    """Decodes recordings and keeps a bounded number of calls in flight at the recognizer.

    Args:
        clock: the simulation's.
        cores: on which the segmenters run.
        cost: of a decoded block.
        speech: what recordings consist of.
        recognizer: its replicas.
        embedder: replicas of the speaker embedder, and the audio in an encoder frame in s; None
            without speaker labels.
        num_segmenters: number of segmenter replicas.
        max_recordings: recordings of one segmenter at once; others wait.
        max_in_flight: groups of one recording in flight.
        seed: of the routing.
    """

    def __init__(
        self,
        clock: Clock,
        cores: Cores,
        cost: LineCost,
        speech: Speech,
        recognizer: ReplicaGroup,
        *,
        embedder: tuple[ReplicaGroup, float] | None = None,
        num_segmenters: int,
        max_recordings: int,
        max_in_flight: int,
        seed: int,
    ) -> None:
        self._clock = clock
        self._cores = cores
        self._cost = cost
        self._speech = speech
        self._recognizer = recognizer
        self._embedder: ReplicaGroup | None = None
        self._frame_s = 0.0
        if embedder is not None:
            self._embedder, self._frame_s = embedder
        self._max_recordings = max_recordings
        self._max_in_flight = max_in_flight
        self._random = random.Random(seed)  # noqa: S311  # a simulation, not a secret
        self._segmenters = [SegmenterModel() for _ in range(num_segmenters)]
        self._unrouted: deque[Request] = deque()
        self._backlog = Backlog()
        self.on_answer: Callable[[Request, Call], None] = _ignore_call
        """Called with each recognized group."""
        self.on_end: Callable[[Request], None] = _ignore
        """Called with each recording whose groups are all recognized."""
        recognizer.on_answer = self._recognized
        if self._embedder is not None:
            self._embedder.on_answer = self._answered

    @property
    def backlog_audio_s(self) -> float:
        """Audio that is still to be recognized, as segmenters report it."""
        return self._backlog.audio_s

    @property
    def busy_s(self) -> float:
        return sum(segmenter.busy_s for segmenter in self._segmenters)

    def submit(self, request: Request) -> None:
        """Assigns a recording to a segmenter as soon as one has room."""
        self._unrouted.append(request)
        self._route()

    def _route(self) -> None:
        while self._unrouted:
            one, other = (
                self._segmenters[int(self._random.random() * len(self._segmenters))]
                for _ in range(2)
            )
            chosen = one if one.num_recordings <= other.num_recordings else other
            if chosen.num_recordings >= self._max_recordings:
                chosen = min(self._segmenters, key=lambda one: one.num_recordings)
                if chosen.num_recordings >= self._max_recordings:
                    return
            request = self._unrouted.popleft()
            if not request.finished:
                self._begin(chosen, request)

    def _begin(self, segmenter: SegmenterModel, request: Request) -> None:
        segmenter.num_recordings += 1
        request.segmenter = segmenter
        request.started_s = self._clock.now
        request.blocks = self._speech.recording(request.audio_s)
        request.backlog = self._backlog.open().__enter__()
        request.backlog.decoded(0.0, request.audio_s)
        self._enqueue(segmenter, request)

    def _enqueue(self, segmenter: SegmenterModel, request: Request) -> None:
        if not segmenter.busy:
            # While the thread is free, the queue is empty.
            self._decode(segmenter, request)
            return
        segmenter.queue.push(
            request,
            key=request.key,
            flow=request.flow,
            cost=1,
            now=self._clock.now,
            weight=request.weight,
            deadline=request.deadline_s,
        )

    def _decode(self, segmenter: SegmenterModel, request: Request) -> None:
        segmenter.busy = True
        work_s = self._cost.of(request.blocks[request.next_block].audio_s)
        segmenter.busy_s += work_s
        self._cores.run(work_s, self._decoded, request)

    def _decode_next(self, segmenter: SegmenterModel) -> None:
        segmenter.busy = False
        now = self._clock.now
        for request in segmenter.queue.pop_expired(now):
            self._leave(request)
        while not segmenter.busy and len(segmenter.queue):
            for request in segmenter.queue.pop_batch(_ONE_STEP, now):
                if request.finished:
                    self._leave(request)
                else:
                    self._decode(segmenter, request)

    def _decoded(self, request: Request) -> None:
        block = request.blocks[request.next_block]
        request.next_block += 1
        request.pending.extend(block.groups)
        segmenter, backlog = request.segmenter, request.backlog
        if segmenter is None or backlog is None:
            raise RuntimeError("a block of a recording without a segmenter was decoded")
        decoded_s = _decoded_s(request)
        backlog.decoded(decoded_s, request.audio_s)
        # This recording queues again before the thread takes the next one; if no other
        # recording waits, it is decoded at once.
        segmenter.busy = len(segmenter.queue) > 0
        self._advance(request)
        if segmenter.queue:
            self._decode_next(segmenter)

    def _advance(self, request: Request) -> None:
        """Sends as many groups as allowed, then decodes on or ends the recording."""
        segmenter, backlog = request.segmenter, request.backlog
        if segmenter is None or backlog is None:
            return
        if request.finished:
            self._leave(request)
            return
        calls, pending = request.calls, request.pending
        while pending and len(calls) < self._max_in_flight:
            call = Call(request, pending.popleft(), self._clock.now)
            calls.append(call)
            backlog.sent(call.group.audio_s)
            self._recognizer.submit(call)
            if self._embedder is not None and request.has_labels:
                self._embed(self._embedder, call)
        if pending or len(calls) >= self._max_in_flight:
            return
        if request.next_block < len(request.blocks):
            self._enqueue(segmenter, request)
        elif not calls:
            self._leave(request)
            self.on_end(request)

    def _embed(self, embedder: ReplicaGroup, call: Call) -> None:
        """Has the voices of a group embedded beside its recognition."""
        second = Call(call.request, windows_of(call.group, self._frame_s), self._clock.now)
        second.beside = call
        call.num_parts += 1
        call.request.num_windows += second.group.total_frames
        embedder.submit(second)

    def _recognized(self, call: Call) -> None:
        if call.request.backlog is not None:
            call.request.backlog.answered(call.group.audio_s)
        self._answered(call)

    def _answered(self, answered: Call) -> None:
        call = answered.beside or answered
        call.num_parts -= 1
        if call.num_parts:
            return
        request = call.request
        call.done = True
        self.on_answer(request, call)
        calls = request.calls
        was_full = len(calls) >= self._max_in_flight
        # Utterances are in order: calls count as in flight until the oldest is done.
        while calls and calls[0].done:
            calls.popleft()
        decoded = request.next_block >= len(request.blocks) and not request.pending
        if (was_full and len(calls) < self._max_in_flight) or (decoded and not calls):
            self._advance(request)

    def _leave(self, request: Request) -> None:
        if request.segmenter is None or request.backlog is None:
            return
        request.segmenter.num_recordings -= 1
        request.backlog.__exit__(None, None, None)
        request.segmenter = request.backlog = None
        self._route()


def _decoded_s(request: Request) -> float:
    """Returns the decoded audio in s; all blocks but the last have the same length."""
    if request.next_block >= len(request.blocks):
        return request.audio_s
    return request.next_block * request.blocks[0].audio_s


def _ignore(_: Request) -> None:
    return


def _ignore_call(_: Request, __: Call) -> None:
    return
