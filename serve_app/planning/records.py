"""What moves through the simulated service."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from serve_app.planning.speech import Group, Recording
from serve_app.scheduling.admission import Place
from serve_app.scheduling.backlog import RecordingBacklog

if TYPE_CHECKING:
    from serve_app.planning.replica import ReplicaModel
    from serve_app.planning.segmenting import SegmenterModel


class Request:
    """A recording on its way through the service.

    There are millions of them and of their calls, so both are plain slots that the
    stages write to; each says who does.
    """

    __slots__ = (
        "arrived_s",
        "audio_s",
        "backlog",
        "calls",
        "deadline_s",
        "finished",
        "flow",
        "ingress",
        "key",
        "longest_wait_s",
        "next_window",
        "num_bytes",
        "pending",
        "place",
        "punctuating",
        "segmenter",
        "started_s",
        "weight",
        "windows",
        "words",
    )

    def __init__(
        self,
        number: int,
        arrived_s: float,
        audio_s: float,
        key: str,
        weight: float,
        deadline_s: float,
    ) -> None:
        self.flow = str(number)
        self.arrived_s = arrived_s
        self.audio_s = audio_s
        self.key = key
        self.weight = weight
        self.deadline_s = deadline_s
        self.num_bytes = 0
        self.ingress = 0
        self.place: Place | None = None  # the ingress
        self.segmenter: SegmenterModel | None = None  # the segmenters, and the next six
        self.backlog: RecordingBacklog | None = None
        self.windows: Recording = ()
        self.next_window = 0
        self.pending: deque[Group] = deque()
        self.calls: deque[Call] = deque()
        self.started_s = 0.0
        self.longest_wait_s = 0.0
        self.words = 0.0  # the joining
        self.punctuating = False
        self.finished = False  # the ingress: answered or given up


class Call:
    """A group of chunks, or of words, on its way to a replica and back."""

    __slots__ = ("arrived_s", "done", "group", "items_left", "replica", "request", "sent_s")

    def __init__(self, request: Request, group: Group, sent_s: float) -> None:
        self.request = request
        self.group = group
        self.sent_s = sent_s
        self.arrived_s = sent_s  # the station, and what follows
        self.items_left = 0
        self.replica: ReplicaModel | None = None
        self.done = False
