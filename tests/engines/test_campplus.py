from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch

from serve_app.core.errors import DeviceUnavailable, PackCorrupt, PackIncomplete
from serve_app.core.records import Pcm
from serve_app.core.speakers import Embeddings, speaker_windows
from serve_app.engines.campplus import CampplusEngine
from serve_app.engines.cpu_features import multiplies_bfloat16
from serve_app.packs import PackContents, open_pack
from tests.fakes.funasr_reference import REFERENCE_MARKS
from tests.fakes.signals import speech_like
from tests.fakes.small_campplus import SMALL, write_small_campplus

WINDOW = 24_000


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> PackContents:
    directory = tmp_path_factory.mktemp("campplus")
    write_small_campplus(directory)
    return open_pack(directory, "small")


@pytest.fixture(scope="module")
def engine(pack: PackContents) -> CampplusEngine:
    return CampplusEngine(pack)


@pytest.fixture(scope="module")
def pieces() -> list[Pcm]:
    """Pieces whose windows start at frames and between them, and too short ones."""
    lengths = [WINDOW, WINDOW + 160, WINDOW + 161, 5 * WINDOW, 3 * WINDOW + 16, 400, 1, WINDOW - 1]
    return [speech_like(length, seed=length) for length in lengths]


def test_each_window_of_the_grid_gets_an_embedding_of_length_1(
    engine: CampplusEngine, pieces: list[Pcm]
) -> None:
    for pcm, embeddings in zip(pieces, engine.embed(pieces), strict=True):
        assert embeddings.shape == (len(speaker_windows(len(pcm))), SMALL.embedding_size)
        assert embeddings.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-6)
        assert engine.cost(len(pcm)) == len(embeddings)


def test_nothing_gets_no_embedding(engine: CampplusEngine) -> None:
    assert engine.embed([]) == []
    silent = engine.embed([np.zeros(0, np.int16), np.zeros(WINDOW, np.int16)])
    assert [len(embeddings) for embeddings in silent] == [0, 1]


def test_a_window_does_not_depend_on_its_batch(engine: CampplusEngine, pieces: list[Pcm]) -> None:
    together = engine.embed(pieces)
    for pcm, embeddings in zip(pieces, together, strict=True):
        np.testing.assert_allclose(engine.embed([pcm])[0], embeddings, atol=1e-6)
    for reverse, embeddings in zip(engine.embed(pieces[::-1]), together[::-1], strict=True):
        np.testing.assert_allclose(reverse, embeddings, atol=1e-6)


def test_a_window_has_the_embedding_of_its_samples_alone(
    engine: CampplusEngine, pieces: list[Pcm]
) -> None:
    for pcm, embeddings in zip(pieces, engine.embed(pieces), strict=True):
        for (start, end), embedding in zip(speaker_windows(len(pcm)), embeddings, strict=True):
            alone = engine.embed([pcm[start:end]])[0]
            np.testing.assert_allclose(alone[0], embedding, atol=1e-5)


def test_a_short_piece_is_padded_with_silence(engine: CampplusEngine) -> None:
    short = speech_like(WINDOW // 2, seed=1)
    padded = np.concatenate((short, np.zeros(WINDOW // 2, np.int16)))
    np.testing.assert_allclose(engine.embed([short])[0], engine.embed([padded])[0], atol=1e-6)


def test_samples_that_cannot_be_written_are_read(engine: CampplusEngine) -> None:
    pcm = speech_like(WINDOW, seed=2)
    pcm.flags.writeable = False  # as Ray hands arrays over
    assert engine.embed([pcm])[0].shape == (1, SMALL.embedding_size)


@pytest.mark.parametrize(
    ("key", "value"), [("feat_dim", 40), ("output_level", "frame"), ("config_str", "relu")]
)
def test_another_network_is_refused(pack: PackContents, key: str, value: object) -> None:
    conf = {**pack.config["model_conf"], key: value}
    with pytest.raises(PackCorrupt, match=key):
        CampplusEngine(replace(pack, config={**pack.config, "model_conf": conf}))


def test_another_model_class_is_refused(pack: PackContents) -> None:
    with pytest.raises(PackCorrupt, match="CAMPPlus"):
        CampplusEngine(replace(pack, model_class="ERes2NetV2"))


def test_a_checkpoint_of_other_sizes_is_refused(pack: PackContents) -> None:
    conf = {**pack.config["model_conf"], "embedding_size": 512}
    with pytest.raises(PackCorrupt, match="shape"):
        CampplusEngine(replace(pack, config={**pack.config, "model_conf": conf}))


@pytest.mark.parametrize("changed", ["missing", "unknown"])
def test_a_checkpoint_with_other_parameters_is_refused(tmp_path: Path, changed: str) -> None:
    write_small_campplus(tmp_path)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    if changed == "missing":
        del state["xvector.block2.tdnnd24.cam_layer.linear2.bias"]
    else:
        state["xvector.block2.tdnnd25.linear1.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(PackIncomplete if changed == "missing" else PackCorrupt, match="tdnnd2"):
        CampplusEngine(open_pack(tmp_path))


def test_unavailable_device_is_refused(pack: PackContents) -> None:
    with pytest.raises(DeviceUnavailable):
        CampplusEngine(pack, "cuda:99")


@pytest.mark.skipif(not multiplies_bfloat16(), reason="this CPU has no AVX512-BF16")
def test_bfloat16_gives_almost_the_same_embeddings(
    pack: PackContents, engine: CampplusEngine, pieces: list[Pcm]
) -> None:
    halved = CampplusEngine(pack, dtype="bfloat16").embed(pieces)
    for exact, rounded in zip(engine.embed(pieces), halved, strict=True):
        assert cosines(exact, rounded).min() >= 0.999


def cosines(first: Embeddings, second: Embeddings) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = (first * second).sum(axis=1)
    return found


def funasr_embeddings(pack: PackContents, pcm: Pcm) -> Embeddings:
    """What FunASR's CAMPPlus gives for the windows that FunASR makes of a piece."""
    from funasr.models.campplus.model import CAMPPlus
    from funasr.models.campplus.utils import extract_feature, sv_chunk

    model = CAMPPlus(**pack.config["model_conf"]).eval()
    model.load_state_dict(torch.load(pack.weights, weights_only=True), strict=True)
    windows = sv_chunk([[0.0, len(pcm) / 16_000, (pcm / 32_768).astype(np.float32)]])
    assert [(round(s * 16_000), round(e * 16_000)) for s, e, _ in windows] == speaker_windows(
        len(pcm)
    )
    with torch.inference_mode():
        features = extract_feature([torch.from_numpy(samples) for _, _, samples in windows])[0]
        found: Embeddings = torch.nn.functional.normalize(model(features)).numpy()
    return found


class TestFunasr:
    pytestmark = REFERENCE_MARKS

    @pytest.mark.parametrize("num_samples", [WINDOW, 4 * WINDOW + 72, WINDOW // 3])
    def test_a_small_network_gives_funasrs_embeddings(
        self, pack: PackContents, engine: CampplusEngine, num_samples: int
    ) -> None:
        pcm = speech_like(num_samples, seed=3)
        ours, theirs = engine.embed([pcm])[0], funasr_embeddings(pack, pcm)
        assert cosines(ours, theirs).min() >= 0.99999

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_the_published_model_gives_funasrs_embeddings_of_real_recordings(
        self, campplus_pack: PackContents, vad_example: Path, asr_example: Path, dtype: str
    ) -> None:
        if dtype == "bfloat16" and not multiplies_bfloat16():
            pytest.skip("this CPU has no AVX512-BF16")
        engine = CampplusEngine(campplus_pack, dtype=dtype)
        least = 0.99999 if dtype == "float32" else 0.9995
        for path in (asr_example, vad_example):
            pcm: Pcm = soundfile.read(path, dtype="int16")[0]
            ours, theirs = engine.embed([pcm])[0], funasr_embeddings(campplus_pack, pcm)
            assert len(ours) == len(theirs) > 3
            assert cosines(ours, theirs).min() >= least
