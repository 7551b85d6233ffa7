"""HTTP middleware that Ray Serve runs before its own request handling.

Ray finds `http_middlewares` by the environment variable `IMPORT_PATH_VARIABLE` in its
proxies and in all replicas: images, Serve configs and the chart name this path, so it
stays. Request heads are checked here, before Ray uses them as metric labels.
"""

from __future__ import annotations

import logging

from starlette.middleware import Middleware

from serve_app.api import websocket_server
from serve_app.api.draining import DrainMiddleware, counter_of_process
from serve_app.api.flow_control import FlowControlMiddleware
from serve_app.api.front import FrontMiddleware

IMPORT_PATH_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
IMPORT_PATH = "serve_app.api.flow.http_middlewares"
_LOGGER_NAME = "ray.serve.paraserve"


def http_middlewares() -> list[Middleware]:
    """Returns the middleware that Ray Serve runs before its own request handling.

    Ray asks for it before it starts its servers.
    """
    websocket_server.install()
    # The last one is the outermost.
    return [
        Middleware(FlowControlMiddleware),
        Middleware(FrontMiddleware, logger=logging.getLogger(_LOGGER_NAME)),
        Middleware(DrainMiddleware, counter=counter_of_process()),
    ]
