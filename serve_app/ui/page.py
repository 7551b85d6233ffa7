"""The page: Gradio's components, their events, and the application that serves them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
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

from serve_app.ui import events
from serve_app.ui.client import ApiClient, ApiOffer
from serve_app.ui.form import MAX_HOTWORDS_CHARACTERS, ChoiceForm
from serve_app.ui.gate import PageGate, Visits
from serve_app.ui.receiving import UploadRoute
from serve_app.ui.results import Json
from serve_app.ui.sessions import SessionLimits, Sessions
from serve_app.ui.texts import TEXTS
from serve_app.ui.transcribing import transcribe_upload
from serve_app.ui.uploads import UploadLimits, UploadStore

_FONTS = ("system-ui", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif")
_MONO = ("ui-monospace", "Consolas", "monospace")
_SOURCE_ID = "ps-source"

Start: TypeAlias = Callable[..., AsyncGenerator[Json]]


@dataclass(frozen=True, slots=True)
class PageLimits:
    """Bounds of the page.

    Attributes:
        max_running: recordings sent to the API at once.
        max_waiting: events in line behind them.
        max_upload_bytes: of one file.
        sessions: of pages that are open.
    """

    max_running: int
    max_waiting: int
    max_upload_bytes: int
    sessions: SessionLimits = field(default_factory=SessionLimits)


def build_page(
    client: ApiClient, uploads: UploadStore, limits: PageLimits, root_path: str | None = None
) -> FastAPI:
    """Returns the ASGI application of the page.

    Args:
        client: of the API.
        uploads: where recordings lie; one page in a process.
        limits: of the page.
        root_path: of the page as browsers see it, if that is not what the server says.
    """
    # No file is to reach Gradio; if one did, it would lie here. The only way to tell Gradio.
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
        css=_asset("page.css"),
        head=_head(limits),
    )
    # Gradio checks the paths of files that requests name only if it was launched, and what is
    # mounted never is. The gate lets no such file through; this is the second lock.
    blocks.has_launched = True
    app.add_middleware(
        PageGate,
        functions=_functions(blocks),
        uploads=uploads,
        upload_route=UploadRoute(uploads, client, limits.max_upload_bytes),
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
        TypeError: nobody has said so for this kind of component.
    """
    match component:
        case gr.State():
            return events.nothing
        case gr.HTML(elem_id=element):
            return events.upload if element == _SOURCE_ID else events.language
        case gr.Textbox(max_length=longest):
            return events.text(longest or MAX_HOTWORDS_CHARACTERS)
        case gr.Dropdown():
            return events.choice
        case gr.CheckboxGroup():
            return events.choices
    raise TypeError(f"no check for values of {type(component).__name__}")


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
        header = _script_part("header", "language")
        with gr.Row(elem_id="ps-columns"):
            with gr.Column(scale=2, min_width=320, elem_id="ps-order"):
                source = _script_part("source", "submit", "cancel")
                form = ChoiceForm(client)
                _script_part("actions")
            with gr.Column(scale=3, min_width=360):
                result = _script_part("result")
        _connect_form(page, form, header, result)
        start = _start(client, uploads, visits, form)
        _connect_runs(start, limits, form, source, result)
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


def _connect_form(page: gr.Blocks, form: ChoiceForm, header: gr.HTML, result: gr.HTML) -> None:
    loaded = [form.offer, *form.fields, result]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    asked: dict[str, Any] = {
        "fn": form.load,
        "inputs": [header, form.key],
        "outputs": loaded,
        **quiet,
    }
    page.load(js="(language, key) => [paraserve.language(), key]", **asked)
    form.key.submit(**asked)
    form.key.blur(**asked)
    header.language(
        form.translate,
        [header, form.offer, form.key, form.model, form.stages],
        form.fields,
        **quiet,
    )
    form.model.change(form.choose_model, [form.offer, form.model], form.hotwords, **quiet)


def _start(client: ApiClient, uploads: UploadStore, visits: Visits, form: ChoiceForm) -> Start:
    """Returns what Gradio runs for a recording: yields what to show of it."""

    async def start(
        upload: object,
        key: str | None,
        model: str | None,
        stages: list[str] | None,
        hotwords: str | None,
        offer: ApiOffer | None,
        request: gr.Request,
    ) -> AsyncGenerator[Json]:
        order = form.order(offer, model or "", stages, hotwords or "")
        session = request.session_hash or ""
        with visits.run(session) as left:
            pieces = transcribe_upload(
                client, uploads, session, upload, order, (key or "").strip(), left
            )
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece

    return start


def _connect_runs(
    start: Start, limits: PageLimits, form: ChoiceForm, source: gr.HTML, result: gr.HTML
) -> None:
    running = source.submit(
        start,
        [source, *form.fields, form.offer],
        result,
        concurrency_limit=limits.max_running,
        show_progress="hidden",
        api_visibility="private",
    )
    running.failure(None, js="() => paraserve.failed()")
    source.cancel(None, cancels=[running], api_visibility="private")


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
        {"texts": TEXTS, "maxUploadBytes": limits.max_upload_bytes}, ensure_ascii=False
    ).replace("<", "\\u003c")
    script = "\n".join(
        _asset(name) for name in ("waveform.js", "source.js", "result.js", "page.js")
    )
    return f"<script>window.paraserveFacts = {facts};\n{script}</script>"


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
