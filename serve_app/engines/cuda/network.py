"""The Paraformer network from samples to tokens, as a function of static sizes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from serve_app.core.errors import PackError
from serve_app.engines.cuda.buckets import Bucket
from serve_app.engines.cuda.cif_fire import Predictor
from serve_app.engines.cuda.frontend import Frontend
from serve_app.engines.cuda.graphs import StaticBuffers
from serve_app.engines.cuda.hotword_bias import HotwordBias
from serve_app.engines.cuda.layers import Decoder, Encoder, choose_kernels
from serve_app.engines.cuda.readback import ReadbackLayout
from serve_app.engines.cuda.sequence_layout import lay_out
from serve_app.engines.cuda.timestamp_head import TimestampHead
from serve_app.engines.cuda.weights import Watch, Weights
from serve_app.engines.paraformer.hotword_tokenizer import takes_hotwords
from serve_app.engines.paraformer.network import (
    ParaformerNet,
    ParaformerShape,
    parse_shape,
    unused_prefixes,
)
from serve_app.packs.pack import PackContents, load_into


class GpuParaformerNet:
    """Encoder, predictor, decoder and timestamp head on one device.

    Args:
        pack: a Paraformer pack; its hotword branch is loaded if it has one.
        device: where it computes.
        dtype: of the matrix products.
        largest: the largest bucket.

    Raises:
        PackError: the pack cannot be run; see its message.
        ConfigurationError: a weight is beyond the dtype's range.
    """

    def __init__(
        self, pack: PackContents, device: torch.device, dtype: torch.dtype, largest: Bucket
    ) -> None:
        self.shape = parse_shape(pack)
        _check_unit_threshold(pack, self.shape)
        weights = Weights(_state(pack, self.shape), device, dtype)
        self.num_parameters = weights.num_parameters
        self.frontend = Frontend(
            torch.from_numpy(pack.cmvn), self.shape.lfr_m, self.shape.lfr_n, device
        )
        self.kernels = choose_kernels(device, dtype, self.shape.encoder)
        self._encoder = Encoder(weights, self.shape.encoder, self.shape.input_size, self.kernels)
        self._predictor = Predictor(weights, self.shape.predictor)
        self._decoder = Decoder(
            weights, self.shape.decoder, self.shape.num_attention_blocks, self.kernels
        )
        head, size = self.shape.timestamps, self.shape.encoder.size
        self._head: TimestampHead | None = None
        if head is not None:
            self._head = TimestampHead(weights, head, size)
            self._head_rows = StaticBuffers(largest.rows, size, torch.float32, device)
        self.hotword_bias: HotwordBias | None = None
        if takes_hotwords(pack):
            self.hotword_bias = HotwordBias(pack, device, largest, size, dtype, self._decoder.score)

    def layout(self, bucket: Bucket) -> ReadbackLayout:
        return ReadbackLayout(bucket, fine=self._head is not None)

    def compute(
        self,
        bucket: Bucket,
        samples: torch.Tensor,
        num_samples: torch.Tensor,
        results: torch.Tensor,
        watch: Watch | None = None,
    ) -> None:
        """Runs a batch; see `streams.Compute`.

        Args:
            bucket: static sizes.
            samples: int16, in the layout of `Frontend`.
            num_samples: int32 [bucket.sequences]; 0 for unused sequences.
            results: uint8, in the layout of `ReadbackLayout`.
            watch: called with the output of each layer; not within a graph.
        """
        lengths = self.frontend.lengths(num_samples)
        sequence_layout = lay_out(lengths, bucket.rows, bucket.longest)
        features = self.frontend.forward(samples, num_samples, sequence_layout)
        encoded = self._encoder.forward(features, sequence_layout, watch)
        frames = encoded.float()
        fired = self._predictor.fire(frames, sequence_layout, bucket.tokens)
        states = self._decoder.forward(
            fired.embeddings, encoded, fired.sequence_layout, sequence_layout, watch
        )
        ids, confidences = self._decoder.classify(states)
        if self.hotword_bias is not None:
            self.hotword_bias.save_rows(fired.embeddings, states)
        layout = self.layout(bucket)
        layout.write(results, fired.counts, fired.broken, ids, confidences)
        if self._head is None:
            layout.write_alphas(results, fired.alphas)
        else:
            source = (
                self._predictor.context(frames, sequence_layout)
                if self._head.after_context
                else frames
            )
            self._head_rows.first(bucket.rows).copy_(source)

    def finish(
        self, bucket: Bucket, num_samples: npt.NDArray[np.int32], results: torch.Tensor
    ) -> None:
        """Adds the weights of the timestamp head, if there is one; see `streams.Finish`."""
        if self._head is None:
            return
        lengths = np.array(
            [self.frontend.num_rows(int(count)) for count in num_samples], dtype=np.int32
        )
        fine = self._head.forward(self._head_rows.first(bucket.rows), lengths)
        self.layout(bucket).write_alphas(results, fine)


def _state(pack: PackContents, shape: ParaformerShape) -> Mapping[str, torch.Tensor]:
    """Returns the mapped and checked checkpoint by FunASR's parameter names."""
    with torch.device("meta"):
        net = ParaformerNet(shape)
    load_into(net, pack, ignore_prefixes=unused_prefixes(pack))
    return net.state_dict()


def _check_unit_threshold(pack: PackContents, shape: ParaformerShape) -> None:
    if shape.predictor.threshold != 1.0:
        raise PackError(
            pack.name,
            f"config.yaml asks for threshold: {shape.predictor.threshold} in predictor_conf, "
            "which the GPU engine does not implement",
            "Choose a pack with threshold: 1.0, or run it on the CPU",
        )
