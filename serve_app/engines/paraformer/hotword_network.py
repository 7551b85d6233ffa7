"""The hotword branch of SeACo-Paraformer.

Source: Shi et al., "SeACo-Paraformer: A Non-Autoregressive ASR System with Flexible
and Effective Hotword Customization Ability" (2023), and the behavior of FunASR 1.4.16
at inference (`models/seaco_paraformer/model.py`, `_seaco_decode_with_ASF`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from serve_app.core.errors import PackCorrupt, PackError
from serve_app.engines.embedding import empty_embedding
from serve_app.engines.paraformer.network import sanm_shape
from serve_app.engines.paraformer.packing import ConvBuffer, PackedSequences
from serve_app.engines.paraformer.sanm import DecoderLayer, SanmDecoder, SanmShape
from serve_app.packs.pack import PackContents

_SCORING_LAYER = 5  # FunASR takes the attention of the sixth layer, whatever follows
_NUM_LSTM_LAYERS = 2
_NO_BIAS_DEFAULT = 8377
_REMEDY = "Choose a published SeACo pack"


@dataclass(frozen=True, slots=True)
class HotwordShape:
    """Sizes of the branch, from config.yaml.

    Attributes:
        size: width of all layers.
        decoder: layers that attend to the hotwords.
        num_attention_blocks: number of those layers.
        bidirectional: whether the bias encoder is bidirectional.
        no_bias_id: the entry for a token without a hotword.
        vocabulary_size: number of scored entries.
    """

    size: int
    decoder: SanmShape
    num_attention_blocks: int
    bidirectional: bool
    no_bias_id: int
    vocabulary_size: int


class HotwordNet(nn.Module):
    """Bias encoder, hotword attention and output layer, named as in checkpoints."""

    def __init__(self, shape: HotwordShape) -> None:
        super().__init__()
        size = shape.size
        self.shape = shape
        # Shared with the training of the decoder, hence the name.
        self.decoder = nn.Module()
        self.decoder.embed = nn.Sequential(empty_embedding(shape.vocabulary_size, size))
        self.bias_encoder = nn.LSTM(
            size,
            size,
            _NUM_LSTM_LAYERS,
            batch_first=True,
            bidirectional=shape.bidirectional,
        )
        self.lstm_proj = nn.Linear(2 * size, size) if shape.bidirectional else None
        self.seaco_decoder = SanmDecoder(shape.decoder, shape.num_attention_blocks, 1)
        del self.seaco_decoder.output_layer
        self.hotword_output_layer = nn.Linear(size, shape.vocabulary_size)

    def embed(self, words: Sequence[Sequence[int]]) -> torch.Tensor:
        """Returns one vector per word, float32 [words, size].

        Args:
            words: ids of each word, none empty.
        """
        device = self.hotword_output_layer.weight.device
        table = self.decoder.get_submodule("embed")
        embedded = [table(torch.tensor(tuple(word), device=device)) for word in words]
        packed, _ = self.bias_encoder(pack_sequence(embedded, enforce_sorted=False))
        hidden, lengths = pad_packed_sequence(packed, batch_first=True)
        if self.lstm_proj is not None:
            hidden = self.lstm_proj(hidden)
        last = lengths.to(device) - 1
        chosen: torch.Tensor = hidden[torch.arange(len(words), device=device), last]
        return chosen

    def score_words(
        self, states: torch.Tensor, lengths: Sequence[int], words: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Returns the total attention of each utterance's tokens to each of its words.

        Args:
            states: the recognizer's decoder output, the utterances end to end, [tokens, size].
            lengths: tokens of each utterance.
            words: from `embed`, for each utterance, [words, size].

        Returns:
            For each utterance, float32 [words].
        """
        tokens = PackedSequences(lengths, states.device)
        layout = PackedSequences([len(vectors) for vectors in words], states.device)
        packed = torch.cat(list(words))
        conv_buffer = self.shape.decoder.conv_buffer(tokens)
        layers = self.seaco_decoder.decoders
        last = min(_SCORING_LAYER, len(layers) - 1)
        hidden = states.clone()
        for layer in layers[:last]:
            hidden = layer(hidden, packed, tokens, layout, conv_buffer)
        layer = layers[last]
        assert isinstance(layer, DecoderLayer)  # noqa: S101 - ours
        return _attention(layer, hidden, packed, tokens, layout, conv_buffer)

    def forward(
        self,
        embeddings: torch.Tensor,
        states: torch.Tensor,
        lengths: Sequence[int],
        words: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Scores the vocabulary for each token by the hotwords of its own utterance.

        Args:
            embeddings: the acoustic embeddings, the utterances end to end, [tokens, size].
            states: the recognizer's decoder output, [tokens, size].
            lengths: tokens of each utterance.
            words: from `embed`, for each utterance, [words, size].

        Returns:
            Log-probabilities, float32 [tokens, vocabulary_size].
        """
        tokens = PackedSequences([*lengths, *lengths], states.device)
        layout = PackedSequences([len(vectors) for vectors in (*words, *words)], states.device)
        attended = self.seaco_decoder.represent(
            torch.cat([embeddings, states]), torch.cat([*words, *words]), tokens, layout
        )
        merged = attended[: len(embeddings)] + attended[len(embeddings) :]
        return torch.log_softmax(self.hotword_output_layer(merged).float(), dim=-1)


def _attention(
    layer: DecoderLayer,
    rows: torch.Tensor,
    words: torch.Tensor,
    tokens: PackedSequences,
    layout: PackedSequences,
    conv_buffer: ConvBuffer,
) -> list[torch.Tensor]:
    """Returns the cross-attention weight of each word, [words] per utterance.

    Modifies `rows` in place.
    """
    memory, norm2, source, norm3 = layer.self_attn, layer.norm2, layer.src_attn, layer.norm3
    if memory is None or norm2 is None or source is None or norm3 is None:
        raise TypeError("a layer without memory or attention")
    hidden = memory(rows, norm2(layer.feed_forward(layer.norm1(rows))), conv_buffer)
    query = source.linear_q(norm3(hidden))
    key = source.linear_k_v(words).chunk(2, dim=1)[0]
    queries, keys = (
        packed.view(len(packed), source.num_heads, -1).transpose(0, 1) for packed in (query, key)
    )
    scale = math.sqrt(queries.shape[2])
    return [
        torch.softmax(
            queries[:, start:end] @ keys[:, first:past].transpose(1, 2) / scale, dim=-1
        ).sum(dim=(0, 1))
        for (start, end), (first, past) in zip(tokens.spans, layout.spans, strict=True)
    ]


def parse_hotword_shape(pack: PackContents) -> HotwordShape:
    """Reads the branch's sizes from config.yaml.

    Raises:
        PackError: an option is not implemented.
        PackCorrupt: values are missing or invalid.
    """
    model = pack.config.get("model_conf") or {}
    kind = model.get("bias_encoder_type", "lstm")
    if kind != "lstm" or pack.config.get("seaco_decoder") != "ParaformerSANMDecoder":
        raise PackError(pack.name, f"hotwords by {kind} are not implemented", _REMEDY)
    try:
        size = int(model["inner_dim"])
        conf = pack.config["seaco_decoder_conf"]
        return HotwordShape(
            size=size,
            decoder=sanm_shape(size, conf, kernel_size=21),
            num_attention_blocks=int(conf.get("att_layer_num", 6)),
            bidirectional=bool(model.get("bias_encoder_bid", False)),
            no_bias_id=int(model.get("NO_BIAS", _NO_BIAS_DEFAULT)),
            vocabulary_size=len(pack.tokens),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PackCorrupt(
            pack.name, f"config.yaml lacks a value of the hotword branch: {error!r}", _REMEDY
        ) from error
