"""CT-Transformer on the CPU: labels each word with the punctuation mark after it.

Source: Chen et al., "Controllable Time-Delay Transformer for Real-Time Punctuation
Prediction and Disfluency Detection", arXiv:2003.01309; the network and the names
of its parameters are those of FunASR 1.4.16, `models/ct_transformer/model.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from serve_app.core.errors import PackCorrupt
from serve_app.engines.devices import check_dtype, open_device
from serve_app.engines.embedding import empty_embedding
from serve_app.engines.paraformer.onednn import use_bfloat16, use_onednn
from serve_app.engines.paraformer.packing import PackedSequences
from serve_app.engines.paraformer.replacing import release_checkpoint
from serve_app.engines.paraformer.sanm import SanmEncoder, SanmShape
from serve_app.packs.pack import PackContents, load_into

_UNKNOWN = "<unk>"
_NO_MARK = frozenset({"_", _UNKNOWN})
_REMEDY = "Use a CT-Transformer pack such as ct-punc"


class CtTransformerNet(nn.Module):
    """Embedding, SAN-M encoder, linear classifier."""

    def __init__(
        self, vocabulary_size: int, embedding_size: int, shape: SanmShape, num_marks: int
    ) -> None:
        super().__init__()
        self.embed = empty_embedding(vocabulary_size, embedding_size)
        self.encoder = SanmEncoder(embedding_size, shape)
        self.decoder = nn.Linear(shape.size, num_marks)

    def forward(self, ids: torch.Tensor, layout: PackedSequences) -> torch.Tensor:
        """Returns logits [layout.total, num_marks] of word ids, int64 [layout.total]."""
        logits: torch.Tensor = self.decoder(self.encoder(self.embed(ids), layout))
        return logits


class CtTransformerEngine:
    """Labels words; implements `core.ports.Punctuator`.

    The texts of a batch are packed without padding, and a text's labels do not depend on the rest
    of its batch.

    Args:
        pack: a ct-punc pack.
        device: `cpu`, `cuda` or `cuda:1`, as in PyTorch.
        dtype: of the encoder's matrix products: `float32` is exact, `bfloat16` needs a CPU with
            AVX512-BF16 or AMX.

    Raises:
        PackIncomplete, PackCorrupt: the pack cannot be used.
        DeviceUnavailable: the device is not on this machine.
        ConfigurationError: the dtype is unknown, or unsupported on this device or CPU.
    """

    max_in_flight = 1
    is_reentrant = True

    def __init__(self, pack: PackContents, device: str = "cpu", dtype: str = "float32") -> None:
        conf = config_section(pack, "model_conf")
        marks = [str(mark) for mark in conf.get("punc_list") or ()]
        if pack.model_class != "CTTransformer" or not marks:
            raise PackCorrupt(
                pack.name, "its model is not a CTTransformer with a punc_list", _REMEDY
            )
        self._device = open_device(device)
        check_dtype(dtype, self._device, ("float32", "bfloat16"))
        self._labels = ["" if mark in _NO_MARK else mark for mark in marks]
        self._ids = {word: i for i, word in enumerate(pack.tokens)}
        self._unknown_id = self._ids.get(_UNKNOWN, 0)
        with torch.device("meta"):
            net = CtTransformerNet(
                len(pack.tokens),
                int(conf.get("embed_unit", 128)),
                encoder_shape_of(pack),
                len(marks),
            )
        load_into(net, pack)
        self._net = net.to(self._device)
        if dtype == "bfloat16":
            use_bfloat16(self._net.encoder)
            release_checkpoint(self._net.encoder)
        elif self._device.type == "cpu":
            use_onednn(self._net.encoder.encoders)
        # The first pass reads the mapped weights and selects kernels.
        self.label([[_UNKNOWN]])

    @torch.inference_mode()
    def label(self, batch: Sequence[Sequence[str]]) -> list[list[str]]:
        """Returns the mark after each word; see `core.ports.Punctuator`."""
        layout = PackedSequences([len(words) for words in batch], self._device)
        if layout.total == 0:
            return [[] for _ in batch]
        get, unknown = self._ids.get, self._unknown_id
        ids = torch.tensor([get(word, unknown) for words in batch for word in words])
        best = self._net(ids.to(self._device), layout).argmax(dim=1).tolist()
        labels = [self._labels[i] for i in best]
        return [labels[start:end] for start, end in layout.spans]


def config_section(pack: PackContents, key: str) -> Mapping[str, Any]:
    """Returns a section of config.yaml.

    Raises:
        PackCorrupt: it is missing.
    """
    section = pack.config.get(key)
    if not isinstance(section, dict):
        raise PackCorrupt(pack.name, f"config.yaml has no `{key}:`", _REMEDY)
    return section


def encoder_shape_of(pack: PackContents) -> SanmShape:
    """Returns the sizes of the encoder.

    Raises:
        PackCorrupt: the encoder is not supported.
    """
    conf = config_section(pack, "encoder_conf")
    # Any other encoder would load without an error and label incorrectly.
    if pack.config.get("encoder") != "SANMEncoder" or conf.get("input_layer") != "pe":
        raise PackCorrupt(
            pack.name, "its encoder is not a SANMEncoder with input_layer pe", _REMEDY
        )
    return SanmShape(
        size=int(conf.get("output_size", 256)),
        num_heads=int(conf.get("attention_heads", 4)),
        feed_forward_size=int(conf.get("linear_units", 2048)),
        num_blocks=int(conf.get("num_blocks", 6)),
        kernel_size=int(conf.get("kernel_size", 11)),
        # FunASR's spelling.
        kernel_shift=int(conf.get("sanm_shfit", 0)),
    )
