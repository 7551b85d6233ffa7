"""What may be loaded, and what a run without a URL starts."""

from __future__ import annotations

import pytest

from loadtests.serving import RemoteRefused, check_local, own_settings


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000", "http://127.9.9.9"],
)
def test_loopback_is_allowed(url: str) -> None:
    check_local(url)


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.1:8000", "http://example.com", "http://localhost.test.com", "nonsense"],
)
def test_other_machine_is_refused_unless_allowed(url: str) -> None:
    with pytest.raises(RemoteRefused, match="--allow-remote"):
        check_local(url)
    check_local(url, allow_remote=True)


def test_own_service_listens_on_loopback_and_takes_long_recordings() -> None:
    settings = own_settings(("admission.max_running=2",))
    assert settings.http.host == "127.0.0.1"
    assert settings.audio.max_upload_bytes >= 200 * 2**20
    assert settings.admission.max_running == 2
