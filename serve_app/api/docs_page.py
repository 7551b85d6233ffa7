"""`/docs`: Swagger UI over the OpenAPI document, without anything from the internet."""

from __future__ import annotations

from importlib import resources

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from starlette.exceptions import HTTPException

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'self'"
)
_OWN = "serve_app.api"
# Its package holds a build of Swagger UI; nothing of its code is used.
_SWAGGER_UI = "fastapi_offline"
_ASSETS = {
    "start.js": (_OWN, "assets", "text/javascript"),
    "swagger-ui-bundle.js": (_SWAGGER_UI, "static", "text/javascript"),
    "swagger-ui.css": (_SWAGGER_UI, "static", "text/css"),
}


def add_docs(app: FastAPI) -> None:
    """Adds the page and what it loads; both lie beside `openapi.json`."""

    @app.get("/docs", include_in_schema=False)
    async def page() -> Response:
        headers = {"Content-Security-Policy": _POLICY}
        return _file(_OWN, "assets", "docs.html", "text/html", headers)

    @app.get("/docs/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in _ASSETS:
            raise HTTPException(404)
        package, folder, media_type = _ASSETS[name]
        return _file(package, folder, name, media_type, {"Cache-Control": "max-age=3600"})


def _file(
    package: str, folder: str, name: str, media_type: str, headers: dict[str, str]
) -> Response:
    with resources.as_file(resources.files(package) / folder / name) as path:
        return FileResponse(
            path, media_type=media_type, headers={**headers, "X-Content-Type-Options": "nosniff"}
        )
