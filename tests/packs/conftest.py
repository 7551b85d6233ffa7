from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from serve_app.packs import PackContents, PackStore
from serve_app.packs.integrity import MANIFEST_NAME
from tests.packs.hub_fakes import FakeHub


@pytest.fixture
def store(tmp_path: Path) -> PackStore:
    """An empty store."""
    return PackStore(tmp_path / "store")


@pytest.fixture
def pack_directory(vad_pack: PackContents, tmp_path: Path) -> Path:
    """A whole pack that a test may spoil; it has no record of its checksums."""
    copy = tmp_path / "a-pack"
    shutil.copytree(vad_pack.directory, copy)
    (copy / MANIFEST_NAME).unlink()
    return copy


@pytest.fixture
def hub(pack_directory: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """Both hubs' clients, holding `pack_directory` in every repository."""
    fake = FakeHub(pack_directory)
    monkeypatch.setitem(sys.modules, "modelscope", fake.modelscope())
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake.huggingface_hub("c0ffee"))
    return fake
