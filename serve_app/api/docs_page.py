"""`/openapi.json`, and Swagger UI at `/docs`, which loads nothing from the internet.

Both are public and cacheable, so that HAProxy can answer instead of the replicas
(`serve_app.hosting.haproxy_launcher`).
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from html import escape
from importlib import resources
from string import Template

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'self'"
)
_FRESH_S = 60
_NO_SNIFF = {"X-Content-Type-Options": "nosniff"}
_OWN = "serve_app.api"
# Its package contains a build of Swagger UI; its code is not used.
_SWAGGER_UI = "fastapi_offline"
_ASSETS = {
    "start.js": (_OWN, "assets", "text/javascript"),
    "swagger-ui-bundle.js": (_SWAGGER_UI, "static", "text/javascript"),
    "swagger-ui.css": (_SWAGGER_UI, "static", "text/css"),
}


def add_page_redirect(app: FastAPI, page_path: str, root_path: str | None) -> None:
    """Redirects `/` to the web page.

    Args:
        app: the API.
        page_path: path of the web page on this server, such as /ui.
        root_path: path of the page as browsers see it, if a proxy serves it elsewhere.
    """

    @app.get("/", include_in_schema=False)
    async def to_page(request: Request) -> Response:
        root = request.scope.get("root_path", "").rstrip("/")
        return RedirectResponse(f"{root_path or root + page_path}/", 307)


def add_docs(app: FastAPI) -> None:
    """Adds the page and its files."""

    @app.get("/docs", include_in_schema=False)
    async def page(request: Request) -> Response:
        template = Template((resources.files(_OWN) / "assets" / "docs.html").read_text("utf-8"))
        # The page may be requested with a trailing slash, so it uses absolute paths.
        root = escape(request.scope.get("root_path", "").rstrip("/"))
        return HTMLResponse(
            template.substitute(root=root),
            headers={
                "Content-Security-Policy": _POLICY,
                "Cache-Control": f"public, max-age={_FRESH_S}",
                **_NO_SNIFF,
            },
        )

    @app.get("/docs/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in _ASSETS:
            raise HTTPException(404)
        package, folder, media_type = _ASSETS[name]
        headers = {"Cache-Control": "public, max-age=3600", **_NO_SNIFF}
        with resources.as_file(resources.files(package) / folder / name) as path:
            return FileResponse(path, media_type=media_type, headers=headers)


def add_document(app: FastAPI) -> None:
    """Adds the OpenAPI document, which is written once for each route prefix."""

    @cache
    def written(root: str) -> tuple[bytes, str]:
        document = app.openapi()
        if root:
            document = {**document, "servers": [{"url": root}]}
        content = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'

    @app.get("/openapi.json", include_in_schema=False)
    async def document(request: Request) -> Response:
        # Serve sets the route prefix; callers cannot.
        content, etag = written(request.scope.get("root_path", "").rstrip("/"))
        headers = {"Cache-Control": f"public, max-age={_FRESH_S}", "ETag": etag}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type="application/json", headers=headers)
