"""API keys: who is let in, and how the file is followed."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from serve_app.api.auth import Everybody, KeyRing
from serve_app.core.errors import ConfigurationError, KeyNotAllowed, Unauthenticated
from serve_app.core.limits import Limits
from serve_app.settings.keys import KeyEntry, KeyLimits, add_key, hash_of, new_key, read_keys

LOGGER = logging.getLogger("tests.auth")


def add(path: Path, name: str = "team-a", **more: object) -> str:
    key = new_key()
    add_key(path, KeyEntry.model_validate({"name": name, "sha256": hash_of(key), **more}))
    return key


def ring(path: Path, defaults: Limits | None = None) -> KeyRing:
    return KeyRing(path, defaults or Limits(), LOGGER)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def test_key_names_its_caller_with_weight_and_limits(path: Path) -> None:
    key = add(path, weight=3.0, limits=KeyLimits(max_running=2))
    caller = ring(path, Limits(max_running=9, max_bytes=5000)).caller_of(f"Bearer {key}")
    assert (caller.name, caller.weight) == ("team-a", 3.0)
    assert caller.limits == Limits(max_running=2, max_bytes=5000)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer sk-other", "Bearer psk_wrong"]
)
def test_missing_or_unknown_key_is_unauthenticated(path: Path, header: str | None) -> None:
    add(path)
    with pytest.raises(Unauthenticated):
        ring(path).caller_of(header)


def test_disabled_and_expired_keys_are_not_allowed(path: Path) -> None:
    disabled = add(path, "off", disabled=True)
    expired = add(path, "old", expires=datetime.now(UTC) - timedelta(seconds=1))
    later = add(path, "new", expires=datetime.now(UTC) + timedelta(days=1))
    keys = ring(path)
    for key, reason in ((disabled, "disabled"), (expired, "expired")):
        with pytest.raises(KeyNotAllowed, match=reason):
            keys.caller_of(f"Bearer {key}")
    assert keys.caller_of(f"Bearer {later}").name == "new"


def test_two_keys_of_one_name_are_both_good(path: Path) -> None:
    first, second = add(path), add(path)
    keys = ring(path)
    assert {keys.caller_of(f"Bearer {key}").name for key in (first, second)} == {"team-a"}


def test_changed_file_is_taken_up(path: Path) -> None:
    first = add(path)
    keys = ring(path)
    second = add(path, "team-b")
    assert keys.caller_of(f"Bearer {second}").name == "team-b"
    path.write_text("keys: []\n")
    with pytest.raises(Unauthenticated):
        keys.caller_of(f"Bearer {first}")


@pytest.mark.parametrize("content", ["keys: [", "keys: 5", "keys: [{name: a}]", "other: 1", "5"])
def test_broken_file_keeps_the_keys_and_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    key = add(path)
    keys = ring(path)
    path.write_text(content)
    for _ in range(3):
        assert keys.caller_of(f"Bearer {key}").name == "team-a"
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_file_that_vanishes_keeps_the_keys(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = add(path)
    keys = ring(path)
    os.unlink(path)
    assert keys.caller_of(f"Bearer {key}").name == "team-a"
    assert len(caplog.records) == 1


def test_start_without_a_usable_file_is_refused(path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"keys\.yaml"):
        ring(path)


def test_neither_key_nor_hash_is_in_the_file_s_messages_or_logs(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = add(path)
    keys = ring(path)
    secret = hash_of(key)
    assert key not in path.read_text()
    assert secret not in repr(read_keys(path))
    path.write_text(path.read_text().replace("name: team-a", "name: 'a b'"))
    with pytest.raises(ConfigurationError) as refusal:
        read_keys(path)
    keys.caller_of(f"Bearer {key}")
    told = str(refusal.value) + "".join(str(record.__dict__) for record in caplog.records)
    assert secret not in told
    assert key not in told


def test_same_hash_twice_is_refused(path: Path) -> None:
    add(path)
    path.write_text(path.read_text() + path.read_text().removeprefix("keys:\n"))
    with pytest.raises(ConfigurationError, match="twice"):
        read_keys(path)


def test_new_file_is_its_owner_s_alone(path: Path) -> None:
    add(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_everybody_may_come_in_where_keys_are_off() -> None:
    assert Everybody().caller_of("Bearer sk-of-some-client").name == "anonymous"
