"""What Schemathesis is told of this API; it imports this module in a process of its own.

Made-up bytes are never a recording, and made-up names never a model: without help, each case
would end at the first check. Of the forms, half get a real clip, a real model and formats of
the answer, and lose most of the fields that would get them refused all the same.
"""

from __future__ import annotations

import atexit
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis

CLIP_VARIABLE = "PARASERVE_CONFORMANCE_CLIP"
SEED_VARIABLE = "PARASERVE_CONFORMANCE_SEED"
COUNTS_VARIABLE = "PARASERVE_CONFORMANCE_COUNTS"

_TIMEOUT_HEADER = "X-Paraserve-Timeout-S"
_TIMEOUT_S = "60"
_SHARE = 0.5
_MODEL = "whisper-1"
_KEPT_SHARE = 0.3
_FORMATS = ("json", "verbose_json", "text", "srt", "vtt")
# OpenAPI describes the first with the bodies; the others belong to HTTP and its servers.
_OF_HTTP = frozenset({"content-type", "content-length", "transfer-encoding", "date", "server"})
_REFUSED_AT_RANDOM = (
    *("language", "languages", "stages", "prompt", "temperature", "hotwords", "keywords"),
    *("chunking_strategy", "include[]", "timestamp_granularities[]"),
)

_random = random.Random(int(os.environ[SEED_VARIABLE]))  # noqa: S311  # cases, not secrets
_clip = Path(os.environ[CLIP_VARIABLE]).read_bytes()
_counts: Counter[str] = Counter()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Makes a part of the cases transcribable, and asks for a model that there is."""
    _settle_deadline(case)
    is_form = isinstance(case.body, dict) and case.media_type == "multipart/form-data"
    if is_form and _random.random() < _SHARE:
        case.body = _transcribable(case.body)
    if "name" in (case.path_parameters or {}) and _random.random() < _SHARE:
        case.path_parameters = {**case.path_parameters, "name": _MODEL}


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Counts the answers by route, status and type."""
    media_type = response.headers.get("content-type", [""])[0].partition(";")[0]
    _counts[f"{case.method} {case.path} {response.status_code} {media_type}"] += 1


@schemathesis.check
def described_headers(context: Any, response: Any, case: Any) -> None:
    """Fails if a response has a header that the document does not describe for its status."""
    responses = case.operation.definition.raw["responses"]
    described = responses.get(str(response.status_code), {}).get("headers", {})
    known = {*_OF_HTTP, *(name.lower() for name in described)}
    unknown = sorted(name for name in response.headers if name.lower() not in known)
    if unknown:
        raise AssertionError(f"headers that are not described: {', '.join(unknown)}")


@atexit.register
def _write_counts() -> None:
    Path(os.environ[COUNTS_VARIABLE]).write_text(json.dumps(_counts), encoding="utf-8")


def _settle_deadline(case: Any) -> None:
    """A deadline of a millisecond is rightly answered by a 504, one of days by a 400."""
    headers = case.headers or {}
    try:
        timeout_s = float(headers.get(_TIMEOUT_HEADER, "none"))
    except (TypeError, ValueError):
        return
    if 0 < timeout_s < float(_TIMEOUT_S) or _random.random() < _SHARE:
        headers[_TIMEOUT_HEADER] = _TIMEOUT_S


def _transcribable(body: dict[str, Any]) -> dict[str, Any]:
    form = {
        name: value
        for name, value in body.items()
        if name not in _REFUSED_AT_RANDOM or _random.random() < _KEPT_SHARE
    }
    form.pop("audio_url", None)
    form |= {"model": _MODEL, "file": _clip}
    if _random.random() < _SHARE:
        form["stream"] = "true"
        form["response_format"] = "json"
    else:
        form["response_format"] = _random.choice(_FORMATS)
    if form["response_format"] == "verbose_json" and _random.random() < _SHARE:
        form |= {"timestamp_granularities[]": ["word", "segment"], "include[]": ["utterances"]}
    return form
