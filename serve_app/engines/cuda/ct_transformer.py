"""CT-Transformer on a CUDA device; implements `ports.Punctuator`."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from serve_app.core.errors import PackCorrupt
from serve_app.engines.ct_transformer import CtTransformerNet, config_section, encoder_shape_of
from serve_app.engines.cuda.buckets import Bucket, BucketPlan
from serve_app.engines.cuda.layers import Encoder, choose_kernels, linear
from serve_app.engines.cuda.options import GpuOptions, WarmUp, configure_device
from serve_app.engines.cuda.sequence_layout import lay_out
from serve_app.engines.cuda.streams import (
    MAX_IN_FLIGHT,
    BatchRun,
    DeviceStream,
    IntArray,
    Sizes,
    on_device,
)
from serve_app.engines.cuda.weights import RangeWatch, Watch, Weights
from serve_app.engines.devices import open_device
from serve_app.packs.pack import PackContents, load_into

_UNKNOWN = "<unk>"
_NO_MARK = frozenset({"_", _UNKNOWN})
_REMEDY = "Use a CT-Transformer pack such as ct-punc"
_ROWS_PER_TEXT = 20  # texts are windows of 20 words plus the rest of the previous window
_WARM_UP_WORDS = 200


class GpuCtTransformer:
    """Labels words; the texts of a batch are packed without padding and do not affect each other.

    `label` may be called by `max_in_flight` threads at a time.

    Args:
        pack: a ct-punc pack.
        options: device, type and limits; rows are words here.

    Raises:
        PackIncomplete, PackCorrupt: the pack cannot be used.
        DeviceUnavailable: the device is not on this machine.
        ConfigurationError: the dtype is unknown, or the model overflows it.
    """

    max_in_flight = MAX_IN_FLIGHT
    is_reentrant = False  # another call would wait for a slot

    def __init__(self, pack: PackContents, options: GpuOptions | None = None) -> None:
        options = GpuOptions() if options is None else options
        conf = config_section(pack, "model_conf")
        marks = [str(mark) for mark in conf.get("punc_list") or ()]
        if pack.model_class != "CTTransformer" or not marks:
            raise PackCorrupt(
                pack.name, "its model is not a CTTransformer with a punc_list", _REMEDY
            )
        self._labels = ["" if mark in _NO_MARK else mark for mark in marks]
        self._ids = {word: index for index, word in enumerate(pack.tokens)}
        self._unknown_id = self._ids.get(_UNKNOWN, 0)
        self._device = open_device(options.device)
        configure_device(self._device, options.memory_fraction)
        self._plan = BucketPlan(options.max_batch_rows, rows_per_sequence=_ROWS_PER_TEXT)
        with on_device(self._device):
            self._load(pack, int(conf.get("embed_unit", 128)), len(marks), options.torch_dtype)
            buckets = self._plan.buckets()
            self._stream = DeviceStream(
                self._device,
                torch.int32,
                _sizes(buckets[0]),
                self._compute,
                max_graphs=options.max_graphs,
            )
            self.warm_up = self._warm_up(buckets, options)

    def label(self, batch: Sequence[Sequence[str]]) -> list[list[str]]:
        """Returns the mark after each word; see `core.ports.Punctuator`.

        Raises:
            torch.cuda.OutOfMemoryError: the batch is too large for the free memory.
        """
        nonempty = [words for words in batch if words]
        best: list[str] = []
        if nonempty:
            lengths = [len(words) for words in nonempty]
            bucket = self._plan.fit(lengths)
            graph = bucket is not None
            if bucket is None:
                bucket = self._plan.exact_bucket(lengths)
            with on_device(self._device):
                best = self._run_bucket(bucket, nonempty, sum(lengths), graph)
        labels = iter(best)
        return [[next(labels) for _ in words] for words in batch]

    def _load(
        self, pack: PackContents, embedding_size: int, num_marks: int, dtype: torch.dtype
    ) -> None:
        shape = encoder_shape_of(pack)
        with torch.device("meta"):
            net = CtTransformerNet(len(pack.tokens), embedding_size, shape, num_marks)
        load_into(net, pack)
        weights = Weights(net.state_dict(), self._device, dtype)
        self._kernels = choose_kernels(self._device, dtype, shape)
        self._embedding = weights.tensor("embed.weight")
        self._encoder = Encoder(weights, shape, embedding_size, self._kernels)
        self._output = weights.linear("decoder", torch.float32)

    def _compute(
        self,
        bucket: Bucket,
        ids: torch.Tensor,
        lengths: torch.Tensor,
        results: torch.Tensor,
        watch: Watch | None = None,
    ) -> None:
        """See `streams.Compute`: int32 ids to one uint8 mark per word."""
        sequence_layout = lay_out(lengths, bucket.rows, bucket.longest)
        # Rows beyond the texts hold stale ids of another batch.
        known = ids[: bucket.rows].masked_fill(~sequence_layout.filled, 0)
        embedded = functional.embedding(known, self._embedding).float()
        encoded = self._encoder.forward(embedded, sequence_layout, watch)
        scores = linear(encoded.float(), self._output)
        results[: bucket.rows].copy_(scores.argmax(dim=1))

    def _run_bucket(
        self, bucket: Bucket, texts: list[Sequence[str]], num_words: int, graph: bool
    ) -> list[str]:
        get, unknown = self._ids.get, self._unknown_id

        def fill(ids: IntArray, lengths: npt.NDArray[np.int32]) -> None:
            lengths[: len(texts)] = [len(words) for words in texts]
            ids[:num_words] = [get(word, unknown) for words in texts for word in words]

        row = self._stream.run(BatchRun(bucket, _sizes(bucket), num_words, graph), fill)
        return [self._labels[mark] for mark in row[:num_words].tolist()]

    def _warm_up(self, buckets: list[Bucket], options: GpuOptions) -> WarmUp:
        started_s = time.perf_counter()
        watch = RangeWatch(options.torch_dtype)
        bucket = self._plan.exact_bucket([_WARM_UP_WORDS])
        ids = np.random.default_rng(0).integers(0, len(self._ids), bucket.rows)
        with torch.inference_mode():
            self._compute(
                bucket,
                torch.from_numpy(ids.astype(np.int32)).to(self._device),
                torch.tensor([_WARM_UP_WORDS], dtype=torch.int32, device=self._device),
                torch.zeros(bucket.rows, dtype=torch.uint8, device=self._device),
                watch,
            )
        watch.check_finite()
        graphs = options.max_graphs if self._device.type == "cuda" else 0
        for each in buckets[:graphs]:
            if time.perf_counter() - started_s > options.warm_up_s:
                break
            self._run_bucket(each, [[_UNKNOWN]], 1, graph=True)
        self.label([[_UNKNOWN]])
        return WarmUp(
            wall_s=time.perf_counter() - started_s,
            num_graphs=self._stream.num_graphs,
            num_buckets=len(buckets),
            headroom=watch.headroom,
            attention=getattr(self._kernels.attend, "__name__", "attention"),
            memory=getattr(self._kernels.fsmn_memory, "__name__", "memory"),
        )


def _sizes(bucket: Bucket) -> Sizes:
    return Sizes(bucket.rows, bucket.sequences, bucket.rows)
