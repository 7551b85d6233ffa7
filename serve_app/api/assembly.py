"""The ASGI application as the settings want it."""

from __future__ import annotations

import logging

from fastapi import FastAPI

from serve_app.api import flow_control
from serve_app.api.auth import Authenticator, Everybody, KeyDefaults, KeyRing
from serve_app.api.fetching import Fetcher, HttpFetcher
from serve_app.api.limits import key_limits_of, limits_of, shared_key_limits_of
from serve_app.api.remote_audio import BotocoreSigner, UrlPolicy
from serve_app.api.request_log import RequestObserver
from serve_app.api.routes import Doors, build_api
from serve_app.api.service import TranscriptionService
from serve_app.settings import AudioUrlSettings, HttpSettings, Settings


def assemble_api(
    service: TranscriptionService,
    settings: Settings,
    logger: logging.Logger,
    observer: RequestObserver | None = None,
) -> FastAPI:
    """Returns the application over a service.

    Raises:
        ConfigurationError: keys are demanded and cannot be read, or a package is missing.
    """
    flow_control.enable()
    return build_api(
        service,
        limits_of(settings),
        logger,
        authenticator=_authenticator(settings, logger),
        fetcher=_fetcher(settings.audio_url),
        observer=observer,
        doors=_doors(settings.http),
    )


def _doors(http: HttpSettings) -> Doors:
    # Whoever checks that it is up calls it by the address that it listens on.
    hosts = (*http.allowed_hosts, http.host) if http.allowed_hosts else ()
    return Doors(hosts, http.cors_origins)


def _authenticator(settings: Settings, logger: logging.Logger) -> Authenticator:
    settings.auth.check()
    limits = key_limits_of(settings)
    if settings.auth.keys_file is None or not settings.auth.demanded:
        return Everybody(limits)
    defaults = KeyDefaults(limits, shared_key_limits_of(settings), settings.auth.keys_grace_s)
    return KeyRing(settings.auth.keys_file, defaults, logger)


def _fetcher(settings: AudioUrlSettings) -> Fetcher | None:
    if not settings.enabled:
        return None
    signer = BotocoreSigner(settings) if settings.s3_sign else None
    return HttpFetcher(settings, UrlPolicy(settings, signer))
