"""Requests in the one form that the routes know: no slash at the end, and GET for HEAD."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class CanonicalMiddleware:
    """Serves paths with a slash at the end, and HEAD wherever there is GET.

    A redirect to the path without the slash would lose a POST's body with some clients.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = str(scope["path"])
        root = f"{scope.get('root_path', '')}/"
        if path.endswith("/") and path != root:
            scope = {**scope, "path": path.rstrip("/") or root}
        if scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        # The server goes on by its own scope: to it, this is an answer without a body.
        scope = {**scope, "method": "GET"}

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app(scope, receive, send_without_body)
