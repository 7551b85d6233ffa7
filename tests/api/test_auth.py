"""API keys: who is let in, and how the file is followed."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from serve_app.api.auth import AllowAll, KeyDefaults, KeyFile
from serve_app.core.errors import (
    ConfigurationError,
    KeyNotAllowed,
    KeysUnavailable,
    Unauthenticated,
)
from serve_app.scheduling.admission import Limits
from serve_app.settings.keys import KeyEntry, KeyLimits, add_key, hash_of, new_key, read_keys

LOGGER = logging.getLogger("tests.auth")


def add(path: Path, name: str = "team-a", **more: object) -> str:
    key = new_key()
    add_key(path, KeyEntry.model_validate({"name": name, "sha256": hash_of(key), **more}))
    return key


def ring(path: Path, defaults: KeyDefaults = KeyDefaults()) -> KeyFile:  # noqa: B008 - frozen
    return KeyFile(path, defaults, LOGGER)


class Watch:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def watched_ring(path: Path, watch: Watch, grace_s: float = 60.0) -> KeyFile:
    return KeyFile(path, KeyDefaults(grace_s=grace_s), LOGGER, monotonic=watch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def test_key_names_its_caller_with_weight_and_limits(path: Path) -> None:
    key = add(path, weight=3.0, limits=KeyLimits(max_running=2))
    defaults = KeyDefaults(Limits(max_running=9, max_bytes=5000))
    caller = ring(path, defaults).caller_of(f"Bearer {key}")
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


@pytest.mark.parametrize(
    "content", ["", "\n# nothing\n", "keys: [", "keys: 5", "keys: [{name: a}]", "other: 1", "5"]
)
def test_broken_file_keeps_the_keys_and_is_logged_once(
    path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    key = add(path)
    keys = ring(path)
    path.write_text(content)
    for _ in range(3):
        assert keys.caller_of(f"Bearer {key}").name == "team-a"
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize("content", [None, "", "keys: ["])
def test_keys_outlive_a_lost_file_for_a_bounded_time_only(
    path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    key = add(path)
    saved = path.read_text()
    watch = Watch()
    keys = watched_ring(path, watch)
    assert keys.stale_s() == 0
    os.unlink(path)
    if content is not None:
        path.write_text(content)
    watch.now_s += 59
    assert keys.caller_of(f"Bearer {key}").name == "team-a"
    assert keys.stale_s() == pytest.approx(59)
    watch.now_s += 2
    for _ in range(3):
        with pytest.raises(KeysUnavailable):
            keys.caller_of(f"Bearer {key}")
    assert keys.stale_s() == pytest.approx(61)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    path.write_text(saved)
    assert keys.caller_of(f"Bearer {key}").name == "team-a"
    assert keys.stale_s() == 0


def test_lost_file_is_detected_and_logged_without_any_request(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(path)
    watch = Watch()
    keys = watched_ring(path, watch)
    os.unlink(path)
    watch.now_s += 100
    assert keys.stale_s() == pytest.approx(100)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_revoking_all_keys_takes_effect_at_once_and_is_logged(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = add(path)
    keys = ring(path)
    path.write_text("keys: []\n")
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            keys.caller_of(f"Bearer {key}")
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_file_that_could_not_be_read_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = add(path)
    watch = Watch()
    keys = watched_ring(path, watch)
    second = add(path, "team-b")

    def fail(path: Path) -> tuple[KeyEntry, ...]:
        raise ConfigurationError("keys file: input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("serve_app.api.auth.read_keys", fail)
        keys.caller_of(f"Bearer {key}")
    watch.now_s += 2
    assert keys.caller_of(f"Bearer {second}").name == "team-b"
    assert keys.stale_s() == 0


def test_one_key_beside_others_leaves_room_for_them(path: Path) -> None:
    defaults = KeyDefaults(Limits(max_waiting=5), Limits(12, 48))
    first = add(path)
    keys = ring(path, defaults)
    assert keys.caller_of(f"Bearer {first}").limits == Limits(max_waiting=5)
    second = add(path, "team-b", limits=KeyLimits(max_running=16))
    assert keys.caller_of(f"Bearer {first}").limits == Limits(12, 5)
    assert keys.caller_of(f"Bearer {second}").limits == Limits(16, 5)


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
    assert AllowAll().caller_of("Bearer sk-of-some-client").name == "anonymous"
