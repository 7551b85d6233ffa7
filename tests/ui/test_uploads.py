from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.ui.uploads import UploadLost, UploadsFull, UploadStore


@pytest.fixture
def store(tmp_path: Path) -> UploadStore:
    directory = tmp_path / "store"
    directory.mkdir()
    return UploadStore(directory, 100)


def put(store: UploadStore, content: bytes = b"sounds", name: str = "run") -> Path:
    path = store.directory / "0123abcd" / name
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def test_taken_upload_has_no_name_any_more(store: UploadStore) -> None:
    path = put(store)
    with store.take(str(path)) as file:
        assert file.read() == b"sounds"
        assert not path.exists()
        assert not path.parent.exists()
    with pytest.raises(UploadLost):
        store.take(str(path))


@pytest.mark.parametrize("name", [None, 7, "", "/etc/passwd", "\0", "../../etc/passwd", "."])
def test_only_what_was_uploaded_can_be_taken(store: UploadStore, name: object) -> None:
    with pytest.raises(UploadLost):
        store.take(name)


def test_no_way_leads_out_of_the_store(store: UploadStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret" / "file"
    secret.parent.mkdir()
    secret.write_text("secret")
    folder = store.directory / "0123abcd"
    folder.mkdir()
    (folder / "link").symlink_to(secret)
    (store.directory / "away").symlink_to(secret.parent)
    inside = store.directory
    for name in (folder / "link", inside / "away" / "file", inside / ".." / "secret" / "file"):
        with pytest.raises(UploadLost):
            store.take(str(name))
    assert secret.exists()


def test_room_is_bounded_with_what_lies_there_and_what_comes(store: UploadStore) -> None:
    put(store, bytes(60))
    with store.reserve(40), pytest.raises(UploadsFull), store.reserve(1):
        pass
    with store.reserve(40):
        pass
