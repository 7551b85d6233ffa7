"""The page: Gradio's components, their events, and the application that serves them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

# Gradio reads them when it is imported: nothing of it calls home.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
from fastapi import FastAPI

from serve_app.client import ClientError
from serve_app.settings.subtitles import SubtitleSettings
from serve_app.ui import events
from serve_app.ui.captions import CaptionRoute
from serve_app.ui.client import ApiClient, Order, problem_of
from serve_app.ui.gate import PageGate, Visits
from serve_app.ui.job_routes import MAX_LISTED, JobRoutes
from serve_app.ui.receiving import KeyCheck, SubtitleRoute, UploadRoute
from serve_app.ui.results import Json, ShownResult
from serve_app.ui.sessions import SessionLimits, Sessions
from serve_app.ui.texts import TEXTS
from serve_app.ui.transcribing import transcribe_upload
from serve_app.ui.uploads import UploadLimits, UploadStore

_FONTS = ("system-ui", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif")
_MONO = ("ui-monospace", "Consolas", "monospace")
_SCRIPTS = (
    "waveform.js",
    "captions.js",
    "source.js",
    "form.js",
    "files.js",
    "player.js",
    "transcript.js",
    "downloads.js",
    "jobs.js",
    "page.js",
)
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

Start: TypeAlias = Callable[..., AsyncGenerator[Json | dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class PageLimits:
    """Bounds of the page.

    Attributes:
        max_running: recordings sent to the API at once.
        max_waiting: events in line behind them.
        max_upload_bytes: of one file.
        sessions: of pages that are open.
        max_audio_s: longest recording that the API accepts; None if that is unknown.
        live_captions: show text while the visitor records; the API must serve live transcription.
    """

    max_running: int
    max_waiting: int
    max_upload_bytes: int
    sessions: SessionLimits = field(default_factory=SessionLimits)
    max_audio_s: float | None = None
    live_captions: bool = False


def build_page(
    client: ApiClient,
    uploads: UploadStore,
    limits: PageLimits,
    root_path: str | None = None,
    subtitles: SubtitleSettings | None = None,
) -> FastAPI:
    """Returns the ASGI application of the page.

    Args:
        client: of the API.
        uploads: where recordings are kept; one page in a process.
        limits: of the page.
        root_path: of the page as browsers see it, if that is not what the server says.
        subtitles: how subtitle files are divided where the visitor does not say.
    """
    # No file reaches Gradio; one that did would be written here. Gradio has no other setting.
    os.environ["GRADIO_TEMP_DIR"] = str(uploads.directory)
    visits = Visits()
    blocks = _blocks(client, uploads, visits, limits)
    blocks.queue(
        api_open=False,
        max_size=limits.max_waiting,
        default_concurrency_limit=None,
    )
    app = FastAPI(
        docs_url=None, redoc_url=None, openapi_url=None, lifespan=partial(_cleaned, uploads)
    )
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        root_path=root_path,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        show_error=False,
        allowed_paths=[],
        max_file_size=limits.max_upload_bytes,
        theme=_theme(),
        head=_head(limits),
    )
    # Gradio checks the paths of files in requests only if it was launched, which a mounted
    # application never is. The gate refuses such files; this is a second barrier.
    blocks.has_launched = True
    keys = KeyCheck(client)
    app.add_middleware(
        PageGate,
        functions=_functions(blocks),
        uploads=uploads,
        upload_route=UploadRoute(uploads, keys, limits.max_upload_bytes),
        subtitle_route=SubtitleRoute(keys, subtitles or SubtitleSettings()),
        job_routes=JobRoutes(client, uploads),
        sample=_sample(),
        capture=_asset("capture.js").encode(),
        captions=CaptionRoute(client) if limits.live_captions else None,
        sessions=Sessions(limits.sessions, partial(_forget, blocks)),
        visits=visits,
    )
    return app


def _functions(blocks: gr.Blocks) -> Mapping[int, tuple[events.ValueCheck, ...]]:
    """Returns what browsers may call, each function with the checks of its inputs."""
    return {
        number: tuple(_value_check(component) for component in function.inputs)
        for number, function in blocks.fns.items()
        if function.fn is not None
    }


def _value_check(component: object) -> events.ValueCheck:
    """Returns which values of a component browsers may send.

    Raises:
        TypeError: there is no check for this component.
    """
    match component:
        case gr.HTML(elem_id="ps-offer"):
            return events.api_key
        case gr.HTML(elem_id="ps-source"):
            return events.submission
    raise TypeError(f"no check for values of {component!r}")


def _forget(blocks: gr.Blocks, session: str) -> None:
    """Removes what Gradio keeps of a page that is closed: by itself it never would."""
    queue, holder = blocks._queue, blocks.state_holder
    queue.pending_messages_per_session.pop(session, None)
    queue.pending_event_ids_session.pop(session, None)
    holder.session_data.pop(session, None)
    holder.time_last_used.pop(session, None)


def _blocks(
    client: ApiClient, uploads: UploadStore, visits: Visits, limits: PageLimits
) -> gr.Blocks:
    page = gr.Blocks(
        title="Paraserve",
        analytics_enabled=False,
        fill_width=True,
    )
    with page:
        # The first holds all that is visible; the others are the script's connection to Python.
        _script_part("page")
        offer = _script_part("offer", "ask")
        source = _script_part("source", "submit", "cancel")
        result = _script_part("result")
        # Only pages with a state have a heartbeat, and the heartbeat tells who is still there.
        gr.State(None)
        ask = _ask(client)
        page.load(ask, offer, result, **_QUIET)
        offer.ask(ask, offer, result, **_QUIET)
        running = source.submit(
            _start(client, uploads, visits),
            source,
            result,
            concurrency_limit=limits.max_running,
            trigger_mode="multiple",
            **_QUIET,
        )
        running.failure(None, js="() => paraserve.failed()")
        source.cancel(None, cancels=[running], api_visibility="private")
    return page


def _script_part(name: str, *events: str) -> gr.HTML:
    """Returns a component that the page's script fills.

    Args:
        name: of the part.
        events: that the script may trigger.
    """
    return gr.HTML(
        value=None,
        html_template=f'<div class="ps-{name}"></div>',
        js_on_load=f"paraserve.mount('{name}', element, props, trigger, watch); "
        + "".join(f"/* '{event}' */" for event in events),
        apply_default_css=False,
        elem_id=f"ps-{name}",
    )


def _ask(client: ApiClient) -> Callable[[str | None], Awaitable[Json]]:
    """Returns what Gradio runs when the page opens or the visitor enters a key."""

    async def ask(key: str | None) -> Json:
        key = (key or "").strip()
        result = ShownResult("", state="idle")
        try:
            offer = await client.offer(key)
            result.offer = replace(offer, jobs=await client.has_jobs(key))
        except ClientError as refusal:
            problem = problem_of(refusal, with_key=bool(key))
            result.fail(problem, refusal.message, refusal.retry_after_s)
        return result.shown()

    return ask


def _start(client: ApiClient, uploads: UploadStore, visits: Visits) -> Start:
    """Returns what Gradio runs for a recording: yields what to show of it."""

    async def start(
        submitted: Mapping[str, Any], request: gr.Request
    ) -> AsyncGenerator[Json | dict[str, Any]]:
        order = submitted["order"]
        submission = events.Submission(
            submitted["upload"],
            submitted["run"],
            submitted["key"],
            Order(**{**order, "stages": tuple(order["stages"])}),
        )
        session = request.session_hash or ""
        with visits.run(session) as left:
            pieces = transcribe_upload(client, uploads, session, submission, left)
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece
            # Gradio sends the last value again, whole, when a function ends: this one is empty.
            yield gr.skip()

    return start


def _theme() -> gr.themes.Base:
    # Fonts of the system: those of Gradio's themes come from elsewhere.
    return gr.themes.Base(
        primary_hue="teal",
        neutral_hue="slate",
        font=_FONTS,
        font_mono=_MONO,
        radius_size="md",
    )


def _head(limits: PageLimits) -> str:
    facts = json.dumps(
        {
            "texts": TEXTS,
            "maxUploadBytes": limits.max_upload_bytes,
            "maxAudioS": limits.max_audio_s,
            "liveCaptions": limits.live_captions,
            "maxHotwordsCharacters": events.MAX_HOTWORDS_CHARACTERS,
            "maxJobs": MAX_LISTED,
        },
        ensure_ascii=False,
    ).replace("<", "\\u003c")
    script = "\n".join(_asset(name) for name in _SCRIPTS)
    # As Gradio's `css`, every rule would be rewritten.
    return (
        f"<style>{_asset('page.css')}</style>"
        f"<script>window.paraserveFacts = {facts};\n{script}</script>"
    )


def _sample() -> bytes:
    return (resources.files("serve_app.packs.builtin") / "samples" / "demo.flac").read_bytes()


def _asset(name: str) -> str:
    return resources.files("serve_app.ui").joinpath("assets", name).read_text(encoding="utf-8")


def make_uploads(parent: Path, limits: UploadLimits) -> UploadStore:
    """Returns a store in a directory of its own, readable by its owner only."""
    parent.mkdir(parents=True, exist_ok=True)
    return UploadStore(Path(tempfile.mkdtemp(prefix="paraserve-ui-", dir=parent)), limits)


@asynccontextmanager
async def _cleaned(uploads: UploadStore, app: FastAPI) -> AsyncIterator[None]:
    """Removes all uploads when the page is stopped."""
    try:
        yield
    finally:
        uploads.close()
        shutil.rmtree(uploads.directory, ignore_errors=True)
