"""The web page as a separate Serve application: one replica that calls the API over HTTP."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from serve_app.api import flow_control
from serve_app.core.errors import ConfigurationError
from serve_app.deployments.options import as_deployment
from serve_app.settings import DeploymentSettings, HttpSettings, Settings

# Each open page holds a connection, and one more during a request.
_MAX_OPEN_REQUESTS = 2048
# Connections of open pages never end by themselves, so requests get this long to finish.
_SHUTDOWN_GRACE_S = 20.0
# An upload without a request is deleted after this time.
_KEEP_UPLOAD_S = 3600
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104


class PageReplica:
    """Gradio on a Serve replica.

    Args:
        settings: of the whole application.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __serve_build_asgi_app__(self) -> FastAPI:
        # Only the replica pays for Gradio's import.
        from serve_app.ui.client import ApiClient
        from serve_app.ui.page import PageLimits, build_page, make_uploads
        from serve_app.ui.uploads import UploadLimits

        flow_control.enable()
        ui = self._settings.ui
        max_upload_bytes = ui.max_upload_bytes or self._settings.audio.max_upload_bytes
        return build_page(
            ApiClient(
                ui.api_url or own_url(self._settings.http),
                self._settings.ingress.request_timeout_s,
            ),
            make_uploads(
                ui.upload_dir or Path(tempfile.gettempdir()),
                UploadLimits(
                    max_bytes=ui.max_stored_bytes,
                    max_bytes_per_visitor=max(max_upload_bytes, ui.max_stored_bytes // 4),
                    keep_s=_KEEP_UPLOAD_S,
                ),
            ),
            PageLimits(
                ui.max_running,
                ui.max_waiting,
                max_upload_bytes,
                max_audio_s=self._settings.audio.max_duration_s if ui.api_url is None else None,
                live_captions=self._settings.live.enabled,
            ),
            ui.root_path,
            self._settings.subtitles,
        )


def build_ui(settings: Settings) -> Application:
    """Returns the page as a Serve application for `ui.route_prefix`.

    It has one replica, because its queue and the results of its visitors are in memory.

    Raises:
        ConfigurationError: Gradio is not installed.
    """
    if find_spec("gradio") is None:
        raise ConfigurationError(
            "ui.enabled needs Gradio: pip install 'paraserve[ui]', or set ui.enabled to false"
        )
    size = DeploymentSettings(
        num_cpus=settings.ui.num_cpus,
        max_ongoing_requests=_MAX_OPEN_REQUESTS,
        graceful_shutdown_timeout_s=_SHUTDOWN_GRACE_S,
    )
    deployment = as_deployment(serve.ingress()(PageReplica), "Page", size, settings.log_level)
    return deployment.bind(settings)


def own_url(http: HttpSettings) -> str:
    """Returns the URL of the service's API for calls from its nodes."""
    host = _ANY_ADDRESS.get(http.host, f"[{http.host}]" if ":" in http.host else http.host)
    return f"http://{host}:{http.port}"
