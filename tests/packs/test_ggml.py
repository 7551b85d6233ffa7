from pathlib import Path

import numpy as np
import pytest

from serve_app.core.errors import PackCorrupt
from serve_app.packs import PackStore, resolve
from serve_app.packs.download import fetch_from_hub
from serve_app.packs.ggml import check_whisper, find_whisper
from serve_app.packs.inspection import list_packs, verify
from serve_app.packs.pack import open_pack
from serve_app.packs.registry import Hub, HubSource, PackKind
from tests.fakes.ggml_file import WhisperShape, slaney_filters, write_ggml
from tests.packs.hub_fakes import FakeHub

SHAPE = WhisperShape(51_865, 1500, 64, 1, 4, 448, 64, 1, 4)


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A file with the parts of a model, and two tensors."""
    directory = tmp_path / "whisper"
    directory.mkdir()
    tensors = {
        "encoder.conv1.weight": np.zeros((64, 80, 3), np.float16),
        "encoder.conv1.bias": np.zeros(64, np.float16),
    }
    write_ggml(directory / "ggml-tiny.bin", SHAPE, [b"a", "好".encode()], tensors)
    return directory


def test_whole_file_is_a_pack(pack: Path) -> None:
    contents = open_pack(pack)
    assert contents.model_class == "Whisper"
    assert contents.weights.name == "ggml-tiny.bin"
    assert len(contents.checksum) == 64


def test_head_tells_the_shape(pack: Path) -> None:
    shape = check_whisper(pack / "ggml-tiny.bin", "tiny")
    assert (shape.audio_layers, shape.text_layers, shape.num_mels) == (4, 4, 80)
    assert shape.multilingual


@pytest.mark.parametrize("missing_bytes", [1, 200, 30_000])
def test_file_that_was_cut_short_is_refused(pack: Path, missing_bytes: int) -> None:
    path = pack / "ggml-tiny.bin"
    path.write_bytes(path.read_bytes()[:-missing_bytes])
    with pytest.raises(PackCorrupt, match=r"ggml-tiny\.bin"):
        open_pack(pack)


def test_file_of_another_kind_is_refused(pack: Path) -> None:
    (pack / "ggml-tiny.bin").write_bytes(b"PK\3\4" + bytes(100))
    with pytest.raises(PackCorrupt, match="not a ggml model file"):
        open_pack(pack)


def test_gguf_is_refused_with_the_alternative(pack: Path) -> None:
    (pack / "ggml-tiny.bin").rename(pack / "tiny.gguf")
    (pack / "tiny.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(PackCorrupt, match="does not read"):
        open_pack(pack)


def test_directory_in_funasrs_format_is_none_of_these(pack: Path) -> None:
    (pack / "config.yaml").write_text("model: Paraformer\n")
    assert find_whisper(pack) is None


def test_pack_of_the_operators_own_is_resolved_and_verified(pack: Path, tmp_path: Path) -> None:
    store = PackStore(tmp_path / "store")
    assert resolve(f"dir:{pack}", store, fetch=False).model_class == "Whisper"
    assert verify(f"dir:{pack}", store).ok


def test_hub_is_asked_for_the_one_file(pack: Path, hub: FakeHub, tmp_path: Path) -> None:
    hub.origin = pack
    (pack / "README.md").write_text("not of the pack")
    scratch, content = tmp_path / "scratch", tmp_path / "content"
    scratch.mkdir()
    content.mkdir()
    source = HubSource(Hub.HUGGING_FACE, "org/name", files=("ggml-tiny.bin",))
    fetch_from_hub("pack", source, scratch, content)
    assert hub.calls[-1].allow_patterns == ["ggml-tiny.bin"]
    assert [path.name for path in content.iterdir()] == ["ggml-tiny.bin"]


def test_registered_pack_is_fetched_and_listed(pack: Path, hub: FakeHub, tmp_path: Path) -> None:
    (pack / "ggml-tiny.bin").rename(pack / "ggml-base.bin")
    hub.origin = pack
    store = PackStore(tmp_path / "store")
    assert resolve("whisper-base", store).model_class == "Whisper"
    (listed,) = [status for status in list_packs(store) if status.name == "whisper-base"]
    assert listed.kind is PackKind.WHISPER_GGML
    assert listed.present
    assert listed.checksum is not None


def test_filters_have_equal_area_and_end_at_half_the_sample_rate() -> None:
    filters = slaney_filters(80)
    assert filters.shape == (80, 201)
    assert filters[:, 0].max() == 0
    areas = filters[40:].sum(axis=1)
    np.testing.assert_allclose(areas, areas.mean(), rtol=0.1)
