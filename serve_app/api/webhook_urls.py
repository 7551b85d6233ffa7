"""Decides which `webhook_url` values a job may have, and reads the secrets that sign webhooks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from serve_app.api.auth import file_version
from serve_app.api.remote_audio import Target, is_listed, parse_target
from serve_app.core.errors import ConfigurationError, InvalidParameter, UrlNotAllowed
from serve_app.settings.jobs import JobSettings
from serve_app.settings.webhook_secrets import read_webhook_secrets

PARAM = "webhook_url"
_MAX_URL_CHARS = 2048


class WebhookPolicy:
    """Checks URLs before a job is created and again before each delivery.

    The addresses that a host name stands for are checked when a connection is made.

    Args:
        settings: hosts that webhooks may be sent to.
    """

    def __init__(self, settings: JobSettings) -> None:
        self._hosts = settings.webhook_hosts
        self._schemes = ("https", "http") if settings.webhook_allow_private else ("https",)

    def check(self, url: str) -> Target:
        """Returns the parts of a URL.

        Raises:
            InvalidParameter: it is not a URL, or webhooks are not sent there.
        """
        if len(url) > _MAX_URL_CHARS or not url.isprintable() or " " in url:
            raise InvalidParameter(PARAM, f"must be a URL of at most {_MAX_URL_CHARS} characters")
        try:
            target = parse_target(url, self._schemes)
        except InvalidParameter:
            raise InvalidParameter(PARAM, "is not a URL") from None
        except UrlNotAllowed as error:
            raise InvalidParameter(PARAM, f"is not allowed: {error.args[0]}") from None
        if "*" not in self._hosts and not is_listed(target, self._hosts):
            raise InvalidParameter(
                PARAM, "is not allowed: this service does not send webhooks to its host"
            )
        return target


class WebhookSecretNames:
    """Tells which keys have a secret; the file is read again when it changes.

    While a changed file cannot be used, the names of the last valid one stand.

    Args:
        path: of the file of webhook secrets; None if there is none.
        logger: told of a file that cannot be used.

    Raises:
        ConfigurationError: the file cannot be used.
    """

    def __init__(self, path: Path | None, logger: logging.Logger) -> None:
        self._path = path
        self._logger = logger
        self._version = None if path is None else file_version(path)
        self._secrets: Mapping[str, tuple[str, ...]] = {}
        if path is not None:
            self._secrets = read_webhook_secrets(path)

    def has(self, key: str) -> bool:
        """Returns whether a webhook of the key's jobs can be signed."""
        path = self._path
        if path is not None and (version := file_version(path)) != self._version:
            self._version = version
            try:
                self._secrets = read_webhook_secrets(path)
            except ConfigurationError as error:
                self._logger.error(
                    "the file of webhook secrets cannot be used; the last valid one stays in use",
                    extra={"error": str(error)},
                )
        return key in self._secrets
