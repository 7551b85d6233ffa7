from __future__ import annotations

import base64
from pathlib import Path

import pytest
import standardwebhooks
import yaml

from serve_app.core.errors import ConfigurationError
from serve_app.settings.keys import read_keys
from serve_app.settings.webhook_secrets import (
    add_webhook_secret,
    drop_old_webhook_secret,
    new_webhook_secret,
    read_webhook_secrets,
    rotate_webhook_secret,
    secret_bytes,
)

GOOD = "whsec_" + base64.b64encode(b"k" * 24).decode()
LEAKED = "bGVha2VkLXNlY3JldC1vZi1zb21lYm9keQ"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "webhook-secrets.yaml"


def test_new_secret_is_one_of_standard_webhooks() -> None:
    secret = new_webhook_secret()
    assert len(secret_bytes(secret)) == 32
    assert standardwebhooks.Webhook(secret)._whsecret == secret_bytes(secret)


def test_first_secret_makes_a_file_that_only_its_owner_reads(file: Path) -> None:
    secret = add_webhook_secret(file, "team-a")
    other = add_webhook_secret(file, "team-b")
    assert read_webhook_secrets(file) == {"team-a": (secret,), "team-b": (other,)}
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_rights_of_a_file_stay_as_they_are(file: Path) -> None:
    file.write_text("secrets: []")
    file.chmod(0o640)
    add_webhook_secret(file, "team-a")
    assert file.stat().st_mode & 0o777 == 0o640


def test_link_to_a_file_stays_a_link(file: Path) -> None:
    link = file.with_name("link.yaml")
    link.symlink_to(file)
    secret = add_webhook_secret(link, "team-a")
    assert link.is_symlink()
    assert read_webhook_secrets(file) == {"team-a": (secret,)}


def test_rotation_puts_the_new_secret_first_and_keeps_the_old_one(file: Path) -> None:
    old = add_webhook_secret(file, "team-a")
    new = rotate_webhook_secret(file, "team-a")
    assert read_webhook_secrets(file) == {"team-a": (new, old)}
    assert drop_old_webhook_secret(file, "team-a")
    assert read_webhook_secrets(file) == {"team-a": (new,)}
    assert not drop_old_webhook_secret(file, "team-a")


def test_second_rotation_waits_until_the_old_secret_is_dropped(file: Path) -> None:
    add_webhook_secret(file, "team-a")
    current = rotate_webhook_secret(file, "team-a")
    with pytest.raises(ConfigurationError, match="--drop-old"):
        rotate_webhook_secret(file, "team-a")
    newest = rotate_webhook_secret(file, "team-a", drop_old=True)
    assert read_webhook_secrets(file) == {"team-a": (newest, current)}


def test_key_with_a_secret_gets_no_other_by_mistake(file: Path) -> None:
    add_webhook_secret(file, "team-a")
    with pytest.raises(ConfigurationError, match="--rotate"):
        add_webhook_secret(file, "team-a")


def test_key_without_a_secret_has_none_to_rotate_or_drop(file: Path) -> None:
    for change in (rotate_webhook_secret, drop_old_webhook_secret):
        with pytest.raises(ConfigurationError, match="team-a has no webhook secret"):
            change(file, "team-a")


@pytest.mark.parametrize("name", ["", "a b", "a" * 65, "schlüssel"])
def test_name_that_no_key_has_is_refused_before_the_file_changes(file: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="name of a key"):
        add_webhook_secret(file, name)
    assert not file.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "is empty"),
        ("secrets", "the file"),
        ({"secrets": [{"name": "a", "secrets": []}]}, "secrets.0.secrets"),
        ({"secrets": [{"name": "a", "secrets": [GOOD] * 3}]}, "secrets.0.secrets"),
        ({"secrets": [{"name": "a", "secrets": [LEAKED]}]}, "secrets.0.secrets.0: a secret is"),
        ({"secrets": [{"name": "a", "secrets": [f"whsec_{LEAKED}!"]}]}, "secrets.0.secrets.0"),
        ({"secrets": [{"name": "a", "secrets": ["whsec_c2hvcnQ="]}]}, "24 to 64 bytes"),
        ({"secrets": [{"name": "a", "secrets": LEAKED}]}, "secrets.0.secrets"),
        ({"secrets": [{"name": "a", "secrets": [GOOD], LEAKED: 1}]}, "secrets.0: has an unknown"),
        ({LEAKED: []}, "the file: has an unknown name"),
        ({"secrets": [{"name": f"{LEAKED} a", "secrets": [GOOD]}]}, "secrets.0.name"),
        ({"secrets": [{"name": "a", "secrets": [GOOD]}] * 2}, "the same name twice"),
    ],
)
def test_faulty_file_is_refused_without_repeating_a_secret(
    file: Path, content: object, reason: str
) -> None:
    file.write_text(yaml.safe_dump(content) if content is not None else "")
    with pytest.raises(ConfigurationError) as caught:
        read_webhook_secrets(file)
    assert reason in str(caught.value)
    assert LEAKED not in str(caught.value)
    assert GOOD not in str(caught.value)


def test_keys_file_does_not_repeat_a_key_in_the_place_of_a_name(file: Path) -> None:
    file.write_text(yaml.safe_dump({"keys": [{"name": "a", "sha256": "0" * 64, LEAKED: True}]}))
    with pytest.raises(ConfigurationError, match=r"keys\.0: has an unknown name") as caught:
        read_keys(file)
    assert LEAKED not in str(caught.value)


def test_file_that_cannot_be_read_or_written_is_named(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_webhook_secrets(file)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        add_webhook_secret(file / "below" / "it.yaml", "team-a")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is not YAML"):
        read_webhook_secrets(file)
