"""The routes, and the ASGI application that the settings configure."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cache

from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serve_app import __version__
from serve_app.api import flow_control, job_schemas, openapi, response_schemas
from serve_app.api.admission import AdmissionGate
from serve_app.api.auth import (
    AllowAll,
    AuthenticationMiddleware,
    Authenticator,
    KeyDefaults,
    KeyFile,
)
from serve_app.api.docs_page import add_docs, add_document, add_page_redirect
from serve_app.api.errors import error_response, on_http_exception, on_validation_error
from serve_app.api.fetching import Fetcher, HttpFetcher
from serve_app.api.front import CanonicalMiddleware, FrontMiddleware
from serve_app.api.job_creation import JobBackend
from serve_app.api.job_routes import JobParts, add_job_routes, job_parts
from serve_app.api.limits import (
    ApiLimits,
    key_limits_of,
    limits_of,
    num_spare_connections,
    shared_key_limits_of,
)
from serve_app.api.models import ServedModels
from serve_app.api.parameters import parse_parameters
from serve_app.api.remote_audio import BotocoreSigner, UrlPolicy
from serve_app.api.request_log import NoObserver, RequestObserver
from serve_app.api.response_headers import EXPOSED_HEADERS, TRANSCRIPTIONS_PATH
from serve_app.api.response_models import Health, ModelList, Readiness
from serve_app.api.service import TranscriptionService
from serve_app.api.transcription import TranscriptionHandler
from serve_app.api.upload import UploadReader
from serve_app.api.usage import NoMeter, UsageMeter
from serve_app.api.webhook_urls import WebhookPolicy, WebhookSecretNames
from serve_app.core.errors import ParaserveError
from serve_app.settings import AudioUrlSettings, HttpSettings, Settings

_PREFLIGHT_HOLDS_S = 600
_METHODS = ("GET", "HEAD", "POST")
_METHODS_WITH_JOBS = (*_METHODS, "DELETE", "PATCH")


@dataclass(frozen=True, slots=True)
class AccessRules:
    """Hosts and origins from which the service accepts requests.

    Attributes:
        allowed_hosts: accepted Host names; empty for any.
        cors_origins: origins whose web pages may call it from a browser.
    """

    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()


def build_api(
    service: TranscriptionService,
    limits: ApiLimits,
    logger: logging.Logger,
    *,
    authenticator: Authenticator | None = None,
    fetcher: Fetcher | None = None,
    observer: RequestObserver | None = None,
    access: AccessRules = AccessRules(),
    jobs: JobBackend | None = None,
) -> FastAPI:
    """Returns the ASGI application over a service.

    Args:
        service: transcribes.
        limits: of the requests.
        logger: gets one line per request.
        authenticator: checks API keys; None to accept every request.
        fetcher: fetches recordings from URLs; None to reject them.
        observer: observes the queue and the end of each request.
        access: hosts and origins that are accepted.
        jobs: store and files of jobs; None to serve none.
    """
    observer = observer or NoObserver()
    authenticator = authenticator or AllowAll()
    gate = AdmissionGate(limits.in_flight, limits.max_retry_after_s)
    observer.watch(gate.statistics, authenticator.stale_s)
    upload_reader = UploadReader(limits, fetcher)
    meter = NoMeter() if jobs is None else jobs.meter
    handler = TranscriptionHandler(service, limits, gate, upload_reader, logger, observer, meter)
    parts = None if jobs is None else job_parts(service, limits, gate, upload_reader, jobs, logger)
    app = FastAPI(
        title="Paraserve",
        version=__version__,
        description="Long Mandarin speech to punctuated, timed text.",
        redirect_slashes=False,
        # FastAPI would generate the document for each request.
        openapi_url=None,
        # FastAPI's own pages load their scripts from the internet.
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(parts),
    )
    app.add_middleware(
        AuthenticationMiddleware,
        authenticator=authenticator,
        logger=logger,
        observer=observer,
    )
    if access.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=access.cors_origins,
            allow_methods=_METHODS if jobs is None else _METHODS_WITH_JOBS,
            allow_headers=("*",),
            expose_headers=EXPOSED_HEADERS,
            max_age=_PREFLIGHT_HOLDS_S,
        )
    app.add_middleware(CanonicalMiddleware)
    # The last one is the outermost.
    app.add_middleware(
        FrontMiddleware, logger=logger, observer=observer, allowed_hosts=access.allowed_hosts
    )
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.post(
        TRANSCRIPTIONS_PATH,
        summary="Transcribe a recording",
        operation_id="createTranscription",
        tags=["audio"],
        openapi_extra=openapi.TRANSCRIPTION_REQUEST,
        responses=response_schemas.TRANSCRIPTION_RESPONSES,
        response_model=None,
    )(handler.transcribe)

    if parts is not None:
        add_job_routes(app, parts, logger)
    write = app.openapi
    requests = {} if jobs is None else job_schemas.REQUEST_SCHEMAS
    answers = {} if jobs is None else job_schemas.answer_schemas()
    # Cached: repeated requests for it would delay transcriptions.
    app.openapi = cache(  # type: ignore[method-assign]
        lambda: openapi.document(write(), requests, answers)
    )
    _add_models(app, service)
    _add_health(app, service)
    add_docs(app)
    add_document(app)
    return app


def _lifespan(parts: JobParts | None) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Returns what closes the store of the jobs when the application stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        if parts is not None:
            await parts.close()

    return lifespan


def _add_models(app: FastAPI, service: TranscriptionService) -> None:
    served_models = ServedModels(service)

    @app.get(
        "/v1/models",
        summary="List the models that are served",
        operation_id="listModels",
        tags=["models"],
        openapi_extra=openapi.PROTECTED,
        responses=response_schemas.MODEL_LIST_RESPONSES,
        response_model=None,
    )
    async def list_models() -> ModelList:
        return {"object": "list", "data": await served_models.models()}

    @app.get(
        "/v1/models/{name:path}",
        summary="Describe a model",
        operation_id="retrieveModel",
        tags=["models"],
        openapi_extra=openapi.PROTECTED,
        responses=response_schemas.MODEL_RESPONSES,
        response_model=None,
    )
    async def get_model(name: str) -> Response:
        try:
            parse_parameters({"model": [name]}, service.offer)
        except ParaserveError as error:
            return error_response(error)
        return JSONResponse(await served_models.model(name))


def _add_health(app: FastAPI, service: TranscriptionService) -> None:
    @app.get(
        "/health",
        summary="The same as /healthz",
        operation_id="health",
        tags=["health"],
        responses=response_schemas.HEALTH_RESPONSES,
        response_model=None,
    )
    @app.get(
        "/healthz",
        summary="Whether the process answers",
        operation_id="healthz",
        tags=["health"],
        responses=response_schemas.HEALTH_RESPONSES,
        response_model=None,
    )
    async def health() -> Health:
        return {"status": "ok"}

    @app.get(
        "/readyz",
        summary="Whether every deployment has warmed up",
        operation_id="readiness",
        tags=["health"],
        responses=response_schemas.READINESS_RESPONSES,
        response_model=None,
    )
    async def ready() -> Response:
        try:
            stages = await service.readiness()
        except ParaserveError as error:
            return error_response(error)
        answer: Readiness = {
            "status": "ready",
            "stages": {
                entry.stage: {
                    "device": entry.device,
                    "pack": entry.pack,
                    "checksum": entry.checksum,
                    "dtype": entry.dtype,
                }
                for entry in stages
            },
        }
        return JSONResponse(answer)


def assemble_api(
    service: TranscriptionService,
    settings: Settings,
    logger: logging.Logger,
    observer: RequestObserver | None = None,
) -> FastAPI:
    """Returns the application over a service.

    Raises:
        ConfigurationError: keys are required but cannot be read, or a package is missing.
    """
    flow_control.enable()
    app = build_api(
        service,
        limits_of(settings),
        logger,
        authenticator=authenticator_of(settings, logger),
        fetcher=_fetcher(settings.audio_url),
        observer=observer,
        access=access_rules(settings.http),
        jobs=_jobs(settings, logger) if settings.jobs.enabled else None,
    )
    if settings.ui.enabled:
        add_page_redirect(app, settings.ui.route_prefix, settings.ui.root_path)
    return app


def _jobs(settings: Settings, logger: logging.Logger) -> JobBackend:
    """Opens the store and the files of jobs; neither is asked for anything yet."""
    # Its packages are only there with the extra `jobs`.
    from serve_app.jobs.opening import open_files, open_store

    store = open_store(settings.jobs)
    return JobBackend(
        store,
        open_files(settings.jobs),
        UsageMeter(store, logger),
        WebhookPolicy(settings.jobs),
        WebhookSecretNames(settings.jobs.webhook_secrets_file, logger),
        settings.jobs.max_upload_bytes,
        max_watchers=num_spare_connections(settings),
    )


def access_rules(http: HttpSettings) -> AccessRules:
    """Returns the hosts and origins that the settings accept."""
    # Health checks use the address that it listens on.
    hosts = (*http.allowed_hosts, http.host) if http.allowed_hosts else ()
    return AccessRules(hosts, http.cors_origins)


def authenticator_of(settings: Settings, logger: logging.Logger) -> Authenticator:
    """Returns what checks the API keys of the settings.

    Raises:
        ConfigurationError: keys are required but cannot be read.
    """
    settings.auth.check()
    limits = key_limits_of(settings)
    if settings.auth.keys_file is None or not settings.auth.demanded:
        return AllowAll(limits)
    defaults = KeyDefaults(
        limits,
        shared_key_limits_of(settings),
        settings.auth.keys_grace_s,
        counts_usage=settings.jobs.enabled,
    )
    return KeyFile(settings.auth.keys_file, defaults, logger)


def _fetcher(settings: AudioUrlSettings) -> Fetcher | None:
    if not settings.enabled:
        return None
    signer = BotocoreSigner(settings) if settings.s3_sign else None
    return HttpFetcher(settings, UrlPolicy(settings, signer))
