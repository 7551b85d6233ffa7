from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from serve_app.inference.fingerprint import output_settings_of, weights_checksum
from serve_app.inference.loading import load_recognizer
from serve_app.modeltools.onnx_export import export
from serve_app.packs import PackContents
from serve_app.settings import Settings
from tests.fakes.tiny_packs import tiny_paraformer


def with_decoder(pack: PackContents, sha256: str) -> PackContents:
    section = {**pack.config["paraformer_onnx"], "decoder_sha256": sha256}
    return replace(pack, config={**pack.config, "paraformer_onnx": section})


def test_checksum_of_an_onnx_pack_covers_both_graphs(tmp_path: Path) -> None:
    source = tiny_paraformer(tmp_path / "source")
    pack = export(source, tmp_path / "onnx")
    assert weights_checksum(source) == source.checksum
    assert weights_checksum(with_decoder(pack, "0" * 64)) != weights_checksum(pack)
    assert weights_checksum(replace(pack, checksum="0" * 64)) != weights_checksum(pack)


def test_readiness_has_the_output_settings() -> None:
    settings = Settings.model_validate({"profile": "asr-only", "recognizer": {"dtype": "int8"}})
    readiness = load_recognizer(settings).readiness
    assert readiness.output_settings == output_settings_of(settings, "asr")
    assert ("recognizer.dtype", '"int8"') in readiness.output_settings


@pytest.mark.parametrize("engine", ["paraformer", "onnx"])
def test_settings_of_drafts_are_ignored_without_drafts(engine: str) -> None:
    def values(**recognizer: object) -> object:
        section = {"engine": engine, **recognizer}
        return output_settings_of(Settings.model_validate({"recognizer": section}), "asr")

    assert values(hybrid={"refine_empty": False}, whisper={"language": "auto"}) == values()
