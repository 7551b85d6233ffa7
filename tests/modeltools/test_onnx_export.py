from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import yaml
from typer.testing import CliRunner

from serve_app.cli.models import models_app
from serve_app.core.errors import PackCorrupt, PackError, PackFetchFailed
from serve_app.engines.paraformer.onnx_pack import DECODER_NAME, ENCODER_NAME, read_onnx_shape
from serve_app.modeltools.onnx_export import export
from serve_app.packs import PackContents, PackStore, open_pack, resolve, verify
from serve_app.packs.integrity import BUILTIN_DIRECTORY, read_manifest
from tests.fakes.tiny_packs import TinyParaformer, tiny_paraformer


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> PackContents:
    return tiny_paraformer(
        tmp_path_factory.mktemp("source") / "pack", TinyParaformer("SeacoParaformer")
    )


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("name", [ENCODER_NAME, DECODER_NAME])
def test_graph_is_valid_onnx(source: PackContents, tmp_path: Path, dtype: str, name: str) -> None:
    pack = export(source, tmp_path / "onnx", dtype)
    onnx.checker.check_model(onnx.load(pack.directory / name))


def test_same_pack_gives_the_same_graphs(source: PackContents, tmp_path: Path) -> None:
    first, second = (export(source, tmp_path / name) for name in ("first", "second"))
    assert first.checksum == second.checksum
    assert read_onnx_shape(first) == read_onnx_shape(second)


def test_vocabulary_and_statistics_are_kept(source: PackContents, tmp_path: Path) -> None:
    pack = export(source, tmp_path / "onnx")
    assert pack.tokens == source.tokens
    assert pack.cmvn is not None
    assert source.cmvn is not None
    assert (pack.cmvn == source.cmvn).all()


def test_record_has_the_kind_and_every_file(source: PackContents, tmp_path: Path) -> None:
    pack = export(source, tmp_path / "onnx")
    manifest = read_manifest(pack.directory, pack.name)
    assert manifest is not None
    assert manifest.kind == "paraformer-onnx"
    assert source.checksum in manifest.source
    recorded = {file.path for file in manifest.files}
    assert recorded == {path.name for path in pack.directory.iterdir()} - {"paraserve-pack.json"}


def test_verify_passes_and_finds_a_changed_file(source: PackContents, tmp_path: Path) -> None:
    pack = export(source, tmp_path / "onnx")
    name = f"dir:{pack.directory}"
    assert verify(name, PackStore(tmp_path)).ok
    (pack.directory / "am.mvn").write_text("other")
    assert not verify(name, PackStore(tmp_path)).ok
    with pytest.raises(PackCorrupt, match=r"am\.mvn"):
        resolve(name, PackStore(tmp_path))


def test_int8_pack_is_a_third_of_the_size(tmp_path: Path) -> None:
    demo = open_pack(BUILTIN_DIRECTORY / "paraformer-demo")
    exact, eight_bits = (
        sum(
            path.stat().st_size
            for path in export(demo, tmp_path / dtype, dtype).directory.glob("*.onnx")
        )
        for dtype in ("float32", "int8")
    )
    assert eight_bits < exact / 3


def test_missing_section_is_a_corrupt_pack(source: PackContents, tmp_path: Path) -> None:
    pack = export(source, tmp_path / "onnx")
    config = {key: value for key, value in pack.config.items() if key != "paraformer_onnx"}
    (pack.directory / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(PackCorrupt, match="paraformer_onnx"):
        read_onnx_shape(open_pack(pack.directory))


def test_taken_directory_is_refused(source: PackContents, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PackFetchFailed, match="taken"):
        export(source, tmp_path)


def test_unknown_dtype_is_refused(source: PackContents, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="float32 or int8"):
        export(source, tmp_path / "onnx", "int4")


def test_pack_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="CTTransformer"):
        export(open_pack(BUILTIN_DIRECTORY / "ct-punc-demo"), tmp_path / "onnx")


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_command_exports_and_says_that_the_text_is_equal(tmp_path: Path, dtype: str) -> None:
    target = tmp_path / "onnx"
    arguments = ["export", "paraformer-demo", str(target), "--dtype", dtype]
    result = CliRunner().invoke(models_app, arguments)
    assert result.exit_code == 0, result.output
    assert "text equal (13 clips" in result.stdout
    assert open_pack(target).model_class == "ParaformerOnnx"


def test_command_reports_an_unknown_pack_in_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(models_app, ["export", "no-such-pack", str(tmp_path / "onnx")])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
