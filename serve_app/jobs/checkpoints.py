"""The utterances that are recognized so far, as files, so that another runner goes on from them.

A file is a JSON object `{"version", "made_by", "sha256", "utterances"}`. The checksum is that of
the list: a file that is damaged in any way is as good as missing, and only costs its work again.
Failed utterances are not stored, so that another attempt tries them again.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from serve_app.core.errors import ServiceError
from serve_app.core.records import Token, Utterance
from serve_app.core.speakers import SpeakerWindows
from serve_app.jobs.ports import JobFiles

VERSION = 1
_LOGGER = logging.getLogger(__name__)
_FLOAT32, _INT64 = np.dtype("<f4"), np.dtype("<i8")


class Checkpoints:
    """The stored utterances of one job.

    Args:
        files: where they are.
        job_id: of the job.
        fence: of the attempt that writes; those of earlier ones are read.
        made_by: what the text depends on besides the recording; utterances of another value are
            not used.
        every_audio_s: recognized audio after which a file is due, in s.
    """

    def __init__(
        self, files: JobFiles, job_id: str, fence: int, made_by: str, every_audio_s: float
    ) -> None:
        self._files = files
        self._job_id = job_id
        self._fence = fence
        self._made_by = made_by
        self._every_audio_s = every_audio_s
        self._stored: dict[int, Utterance] = {}
        self._pending: list[Utterance] = []
        self._num_files = 0
        self._writing = asyncio.Lock()

    async def read(self) -> tuple[Utterance, ...]:
        """Returns what earlier attempts have stored, in order of the recording.

        Raises:
            StoreUnavailable: the files cannot be listed.
        """
        for name in await self._files.names(self._job_id):
            if _is_checkpoint(name, self._job_id):
                for utterance in await self._read_file(name):
                    self._stored[utterance.index] = utterance
        return tuple(self._stored[index] for index in sorted(self._stored))

    def add(self, utterance: Utterance) -> bool:
        """Takes an utterance to store, unless it failed; returns False if it is stored already."""
        if self._stored.get(utterance.index) == utterance:
            return False
        if utterance.status != "failed":
            self._pending.append(utterance)
        return True

    @property
    def is_due(self) -> bool:
        """Whether as much audio has been recognized that it should be stored."""
        pending_ms = sum(one.end_ms - one.start_ms for one in self._pending)
        return pending_ms >= self._every_audio_s * 1000

    async def write(self) -> None:
        """Stores what has been added since the last time, if anything.

        Raises:
            StoreUnavailable, StorageFull: it cannot be stored now; it is kept for the next time.
        """
        async with self._writing:
            taken = tuple(self._pending)
            if not taken:
                return
            content = await asyncio.to_thread(utterances_to_json, taken, self._made_by)
            name = f"{self._job_id}/utterances-{self._fence}-{self._num_files:05d}.json"
            await self._files.put_bytes(name, content)
            self._num_files += 1
            self._stored |= {utterance.index: utterance for utterance in taken}
            del self._pending[: len(taken)]

    async def delete(self) -> None:
        """Removes all files, once the job has ended.

        Raises:
            StoreUnavailable: not all could be removed.
        """
        for name in await self._files.names(self._job_id):
            if _is_checkpoint(name, self._job_id):
                await self._files.delete(name)

    async def _read_file(self, name: str) -> Sequence[Utterance]:
        try:
            content = await self._files.get_bytes(name)
            return await asyncio.to_thread(utterances_from_json, content, self._made_by)
        except (FileNotFoundError, ValueError, ServiceError) as error:
            _LOGGER.warning(
                "a checkpoint cannot be used; its audio is recognized again",
                extra={"paraserve_job_id": self._job_id, "file": name, "error": str(error)},
            )
            return ()


def _is_checkpoint(name: str, job_id: str) -> bool:
    return name.startswith(f"{job_id}/utterances-")


def utterances_to_json(utterances: Sequence[Utterance], made_by: str) -> bytes:
    """Returns utterances as JSON in ASCII, with their windows.

    Args:
        utterances: none of them failed.
        made_by: as in `Checkpoints`.
    """
    listed = [_to_json(utterance) for utterance in utterances]
    content = {
        "version": VERSION,
        "made_by": made_by,
        "sha256": _checksum(listed),
        "utterances": listed,
    }
    return json.dumps(content, separators=(",", ":")).encode("ascii")


def utterances_from_json(content: bytes, made_by: str) -> tuple[Utterance, ...]:
    """Returns the utterances that `utterances_to_json` wrote.

    Raises:
        ValueError: the content is damaged, of another version, or made by something else.
    """
    stored: Any = json.loads(content)
    try:
        if (stored["version"], stored["made_by"]) != (VERSION, made_by):
            raise ValueError("it was made by another version or with other settings")
        if stored["sha256"] != _checksum(stored["utterances"]):
            raise ValueError("it is damaged: the checksum differs")
        return tuple(_from_json(one) for one in stored["utterances"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is no checkpoint: {error!r}") from None


def _checksum(listed: object) -> str:
    canonical = json.dumps(listed, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _to_json(utterance: Utterance) -> dict[str, object]:
    return {
        "index": utterance.index,
        "start_ms": utterance.start_ms,
        "end_ms": utterance.end_ms,
        "status": utterance.status,
        "tokens": [
            [token.text, token.start_ms, token.end_ms, token.confidence, token.model]
            for token in utterance.tokens
        ],
        "language": utterance.language,
        "channel": utterance.channel,
        "settled_ms": utterance.settled_ms,
        "voices": None if utterance.voices is None else _voices_to_json(utterance.voices),
    }


def _from_json(stored: Any) -> Utterance:
    voices = stored["voices"]
    return Utterance(
        stored["index"],
        stored["start_ms"],
        stored["end_ms"],
        stored["status"],
        tuple(Token(*token) for token in stored["tokens"]),
        language=stored["language"],
        voices=None if voices is None else _voices_from_json(voices),
        channel=stored["channel"],
        settled_ms=stored["settled_ms"],
    )


def _voices_to_json(voices: SpeakerWindows) -> dict[str, object]:
    return {
        "start_ms": voices.start_ms.tolist(),
        "end_ms": voices.end_ms.tolist(),
        "num_values": voices.embeddings.shape[1],
        "embeddings": base64.b64encode(voices.embeddings.astype(_FLOAT32).tobytes()).decode(),
    }


def _voices_from_json(stored: Any) -> SpeakerWindows:
    embeddings = np.frombuffer(base64.b64decode(stored["embeddings"]), _FLOAT32)
    return SpeakerWindows(
        np.array(stored["start_ms"], _INT64).astype(np.int64),
        np.array(stored["end_ms"], _INT64).astype(np.int64),
        embeddings.reshape(-1, stored["num_values"]).astype(np.float32),
    )
