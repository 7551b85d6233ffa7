"""Open-loop requests from inside the cluster; runs as a script in a pod, knows only httpx.

`python -c SCRIPT URL RATE KEY`: sends clips to the transcription endpoint, one each 1/RATE s
whether or not earlier ones were answered, until a line comes on standard input. Then waits
for what is under way and writes one JSON line for each request: when it was sent, how long
it took, its status (0: no answer), the text or the error.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from importlib import resources

import httpx

_TIMEOUT_S = 120.0


async def send(client: httpx.AsyncClient, clip: bytes) -> dict[str, object]:
    sent_at, started = time.time(), time.monotonic()
    status, text, error = 0, "", ""
    try:
        answer = await client.post(
            "/v1/audio/transcriptions",
            data={"model": "whisper-1"},
            files={"file": ("clip.flac", clip)},
        )
        status = answer.status_code
        if answer.is_success:
            text = answer.json()["text"]
        else:
            error = answer.text[:300]
    except httpx.ConnectError as failure:
        # Nothing was sent, so a client may try again elsewhere.
        status, error = -1, repr(failure)
    except (httpx.HTTPError, ValueError, KeyError) as failure:
        error = repr(failure)
    took_s = time.monotonic() - started
    return {"sent_at": sent_at, "took_s": took_s, "status": status, "text": text, "error": error}


async def run(url: str, rate: float, key: str) -> list[dict[str, object]]:
    clip = (resources.files("serve_app.packs.builtin") / "samples" / "clip.flac").read_bytes()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    stopping = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    # A connection for each request, as from many clients: kept ones would stay with a pod.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=_TIMEOUT_S, limits=limits, trust_env=False
    ) as client:
        print("started", flush=True)
        tasks = []
        started = time.monotonic()
        while not stopping.done():
            tasks.append(asyncio.create_task(send(client, clip)))
            await asyncio.sleep(max(0.0, started + len(tasks) / rate - time.monotonic()))
        return await asyncio.gather(*tasks)


if __name__ == "__main__":
    for line in asyncio.run(run(sys.argv[1], float(sys.argv[2]), sys.argv[3])):
        print(json.dumps(line), flush=True)
