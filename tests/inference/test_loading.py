from __future__ import annotations

import pytest

from serve_app.audio import AudioLimits
from serve_app.core.errors import DeviceUnavailable
from serve_app.engines.cuda.options import GpuOptions
from serve_app.inference import loading
from serve_app.inference.loading import segmentation_options
from serve_app.packs import PackContents
from serve_app.settings import Settings
from serve_app.transcript.segmentation import SegmentationOptions


def _on_gpu(num_gpus: float) -> Settings:
    section = {"device": "cuda:0", "deployment": {"num_gpus": num_gpus}}
    return Settings.model_validate(
        {
            "profile": "demo",
            "offline": True,
            "recognizer": {**section, "max_batch_frames": 20_000},
            "punctuator": {**section, "max_batch_words": 9_000},
        }
    )


class _Asked:
    """Stands in for an engine and remembers what it was asked for."""

    max_in_flight = 2
    is_reentrant = False
    warm_up = "warm"

    def __init__(self, pack: PackContents, options: GpuOptions) -> None:
        self.options = options


def test_unavailable_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    for load in (loading.load_recognizer, loading.load_punctuator):
        with pytest.raises(DeviceUnavailable, match="cuda:0"):
            load(_on_gpu(0.5))


@pytest.mark.parametrize(("num_gpus", "fraction"), [(0.25, 0.25), (1.0, 1.0), (2.0, 1.0)])
def test_memory_fraction_is_the_gpu_share_of_the_replica(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    num_gpus: float,
    fraction: float,
) -> None:
    monkeypatch.setattr("serve_app.engines.cuda.paraformer.GpuParaformer", _Asked)
    monkeypatch.setattr("serve_app.engines.cuda.ct_transformer.GpuCtTransformer", _Asked)
    caplog.set_level("INFO")
    settings = _on_gpu(num_gpus)
    recognizer = loading.load_recognizer(settings)
    punctuator = loading.load_punctuator(settings)
    assert isinstance(recognizer.engine, _Asked)
    assert isinstance(punctuator.engine, _Asked)
    assert recognizer.engine.options.max_batch_rows == 20_000
    assert punctuator.engine.options.max_batch_rows == 9_000
    for loaded in (recognizer, punctuator):
        assert isinstance(loaded.engine, _Asked)
        assert loaded.engine.options.memory_fraction == fraction
        assert loaded.readiness.device == "cuda:0"
    assert "recognizer on cuda:0: warm" in caplog.text


def test_segmentation_takes_the_settings_of_audio_and_segmenter() -> None:
    settings = Settings.model_validate(
        {
            "audio": {"max_duration_s": 60, "min_duration_s": 1, "decode_block_s": 2},
            "segmenter": {"max_segment_s": 20, "max_group_s": 10, "gather_s": 5},
        }
    )
    assert segmentation_options(settings) == SegmentationOptions(
        limits=AudioLimits(max_duration_s=60, min_duration_s=1, block_s=2),
        max_segment_s=20,
        max_group_s=10,
        gather_s=5,
    )
