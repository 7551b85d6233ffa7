"""The engine against FunASR itself, one utterance a call, token by token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from serve_app.core.records import Pcm, Recognition
from serve_app.engines.features import apply_cmvn, lfr, log_mel
from serve_app.engines.paraformer import detokenize
from serve_app.engines.paraformer.cpu import ParaformerEngine
from serve_app.engines.paraformer.network import ParaformerNet, parse_shape, unused_prefixes
from serve_app.engines.paraformer.packing import PackedSequences
from serve_app.packs.pack import load_into, open_pack
from tests.fakes.funasr_reference import REFERENCE_MARKS, Heard, Reference
from tests.fakes.signals import speech_like
from tests.fakes.tiny_packs import TinyParaformer, write_paraformer

pytestmark = REFERENCE_MARKS

BUILTIN = Path(__file__).parents[3] / "serve_app" / "packs" / "builtin"

TINY = (
    TinyParaformer(),
    TinyParaformer(size=64, num_heads=8, feed_forward_size=96, num_blocks=4, seed=7),
    TinyParaformer(
        size=48,
        num_blocks=3,
        num_decoder_blocks=4,
        num_attention_blocks=2,
        kernel_size=7,
        kernel_shift=2,
        seed=3,
    ),
    TinyParaformer("BiCifParaformer", seed=1),
    TinyParaformer("BiCifParaformer", upsample_type="cnn", use_cif1_cnn=True, seed=5),
    TinyParaformer("SeacoParaformer", seed=2),
)


@pytest.fixture(scope="module")
def pack_dir() -> Path:
    return BUILTIN / "paraformer-demo"


@pytest.fixture(scope="module")
def segments() -> list[Pcm]:
    """Cuts of speech, concatenations of them, and sounds that are no speech."""
    recording, rate_hz = soundfile.read(BUILTIN / "samples" / "demo.flac", dtype="int16")
    assert rate_hz == 16_000
    generator = np.random.default_rng(20)

    def cut(longest_s: float) -> Pcm:
        length = int(generator.uniform(0.15, longest_s) * 16_000)
        start = int(generator.integers(0, len(recording) - length))
        samples: Pcm = recording[start : start + length]
        return samples

    cuts = [cut(3.0) for _ in range(10)] + [cut(12.0) for _ in range(8)]
    joined = [np.concatenate([cut(4.0), cut(4.0)]) for _ in range(6)]
    noises = [speech_like(length, length) for length in (1_600, 24_000)]
    return [*cuts, *joined, *noises, recording[: 25 * 16_000]]


def _text(recognition: object) -> str:
    assert isinstance(recognition, Recognition)
    return "".join(token.text for token in recognition.tokens)


def test_engine_equals_funasr_on_one_utterance_in_any_batch(
    pack_dir: Path, segments: list[Pcm]
) -> None:
    pack = open_pack(pack_dir)
    reference = Reference(pack_dir)
    expected = [reference.hear(pcm).text for pcm in segments]
    engine = ParaformerEngine(pack)
    assert sum(len(text) for text in expected) > 100
    generator = np.random.default_rng(5)
    for largest in (1, 4, 9, len(segments)):
        order = generator.permutation(len(segments))
        for first in range(0, len(order), largest):
            indices = order[first : first + largest]
            batch = [segments[index] for index in indices]
            assert [_text(item) for item in engine.transcribe(batch)] == [
                expected[index] for index in indices
            ]
            assert [_shown(pack.tokens, ids) for ids in engine.token_ids(batch)] == [
                expected[index] for index in indices
            ]


def _shown(tokens: tuple[str, ...], ids: list[int]) -> str:
    return "".join(tokens[token_id] for token_id in ids if tokens[token_id] != "<unk>")


@pytest.mark.parametrize("tiny", TINY, ids=lambda tiny: f"{tiny.model_class}-{tiny.seed}")
def test_random_weights_give_the_same_result_as_in_funasr(
    tmp_path: Path, tiny: TinyParaformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The model's own times, before they are moved to where the signal begins and ends.
    monkeypatch.setattr(detokenize, "snap_to_speech_edges", lambda pcm, spans, **_: spans)
    directory = write_paraformer(tmp_path / "tiny", tiny)
    reference = Reference(directory)
    engine = ParaformerEngine(open_pack(directory))
    batch = [speech_like(length, length) for length in (40_000, 3_000, 80_000, 1_500, 23_456)]
    encode = _encoder(directory)
    for pcm, recognition in zip(batch, engine.transcribe(batch), strict=True):
        features, frames = encode(pcm)
        torch.testing.assert_close(frames, reference.encode(features), atol=1e-4, rtol=0)
        heard = reference.hear(pcm)
        assert _text(recognition) == heard.text
        assert isinstance(recognition, Recognition)
        if _all_shown(engine, pcm, recognition):
            _assert_same_times(recognition, heard, len(pcm) // 16)


def _encoder(directory: Path) -> Callable[[Pcm], tuple[torch.Tensor, torch.Tensor]]:
    pack = open_pack(directory)
    shape = parse_shape(pack)
    net = ParaformerNet(shape)
    load_into(net, pack, ignore_prefixes=unused_prefixes(pack))
    cmvn = torch.from_numpy(pack.cmvn)

    def encode(pcm: Pcm) -> tuple[torch.Tensor, torch.Tensor]:
        samples = torch.from_numpy(pcm.astype(np.float32))
        features = apply_cmvn(lfr(log_mel(samples), shape.lfr_m, shape.lfr_n), cmvn)
        return features, net.encoder(features, PackedSequences([len(features)], features.device))

    return encode


def _all_shown(engine: ParaformerEngine, pcm: Pcm, recognition: Recognition) -> bool:
    # FunASR takes <unk> out of the text but leaves its time in, so that all
    # later tokens have the time of their predecessor.
    return len(engine.token_ids([pcm])[0]) == len(recognition.tokens)


def _assert_same_times(recognition: Recognition, heard: Heard, duration_ms: int) -> None:
    assert len(recognition.tokens) == len(heard.times_ms)
    for token, (start_ms, end_ms) in zip(recognition.tokens, heard.times_ms, strict=True):
        # FunASR's times leave the chunk at its ends, and lose 1 ms to truncation.
        assert token.start_ms == pytest.approx(min(max(start_ms, 0), duration_ms), abs=1)
        assert token.end_ms == pytest.approx(min(max(end_ms, 0), duration_ms), abs=1)
