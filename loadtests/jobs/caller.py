"""A caller of the jobs' API that tries again until it is answered, as clients should."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any, Self

import httpx

_PAUSE_S = 1.0
_TRANSIENT = frozenset({408, 409, 429, 500, 502, 503, 504})
FINAL = frozenset({"completed", "failed", "cancelled", "expired"})


class NoAnswer(Exception):
    """The service did not answer within the limit."""


class JobCaller:
    """Creates jobs and asks for them; every request is repeated until it is answered.

    Args:
        url: of the service.
        limit_s: of one request with all its repetitions.
    """

    def __init__(self, url: str, limit_s: float = 900.0) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=60.0, trust_env=False)
        self._limit_s = limit_s
        self.num_repeated = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def create(self, name: str, content: bytes, webhook_url: str = "") -> str:
        """Creates a job once, however often it has to ask; returns its id."""
        answer = await self._ask(
            "POST",
            "/v1/jobs",
            headers={"Idempotency-Key": name},
            data={
                "model": "whisper-1",
                "metadata[name]": name,
                **({"webhook_url": webhook_url} if webhook_url else {}),
            },
            files={"file": (f"{name}.flac", content)},
        )
        return str(answer.json()["id"])

    async def get(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self._ask("GET", f"/v1/jobs/{job_id}")).json()
        return found

    async def status(self, job_id: str) -> str:
        return str((await self.get(job_id))["status"])

    async def list(self, limit: int) -> list[dict[str, Any]]:
        answer = await self._ask("GET", "/v1/jobs", params={"limit": limit})
        found: list[dict[str, Any]] = answer.json()["data"]
        return found

    async def cancel(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self._ask("POST", f"/v1/jobs/{job_id}/cancel")).json()
        return found

    async def text(self, job_id: str) -> str:
        answer = await self._ask("GET", f"/v1/jobs/{job_id}/result")
        return str(answer.json()["text"])

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Returns the answer to a request.

        Raises:
            NoAnswer: there was none in time.
            httpx.HTTPStatusError: the request was refused for good.
        """
        give_up_s = time.monotonic() + self._limit_s
        told = ""
        while time.monotonic() < give_up_s:
            try:
                answer = await self._client.request(method, path, **options)
            except httpx.TransportError as error:
                told = repr(error)
            else:
                if answer.status_code not in _TRANSIENT:
                    return answer.raise_for_status()
                told = f"{answer.status_code} {answer.text[:200]}"
            self.num_repeated += 1
            await asyncio.sleep(_PAUSE_S)
        raise NoAnswer(f"{method} {path}: {told}")
