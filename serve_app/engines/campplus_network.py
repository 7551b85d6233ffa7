"""The network of CAM++: a residual convolutional head and densely connected TDNN layers.

A window has a fixed number of frames, so that every shape but the number of windows is fixed.
Activations are channels-last: the head's are images of mel bands by frames, the TDNN's are rows,
one per window and frame, whose 1x1 convolutions are matrix products.

When the network is loaded, each batch normalization that follows a convolution is folded into
its weights.

Source: Wang et al., "CAM++: A Fast and Efficient Network for Speaker Verification Using
Context-Aware Masking", arXiv:2303.00332; the network and the names of its parameters are those
of FunASR 1.4.16, `models/campplus/`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from serve_app.engines.paraformer.onednn import has_onednn, product, require_bfloat16
from serve_app.scheduling.preemption import yield_point

_NUM_BANDS = 80
_HEAD_CHANNELS = 32
_HEAD_BANDS = _NUM_BANDS // 8
# (layers, dilation) of the three dense blocks.
_BLOCKS = ((12, 1), (24, 2), (16, 2))
# Windows that are computed together: more cost memory and gain nothing.
_GROUP = 8
# The masks pool frames in segments of this many; a window of 148 frames, halved, is one segment.
_POOLED_FRAMES = 100
# The layout of packed weights is the same from 64 rows on.
_PACKED_ROWS = 1024


@dataclass(frozen=True, slots=True)
class CampplusSize:
    """Dimensions, by their names in the pack's `model_conf`.

    Attributes:
        embedding_size: values of an embedding.
        growth_rate: channels that a dense layer adds.
        bn_size: channels inside of a dense layer, as a multiple of growth_rate.
        init_channels: channels before the first dense block.
    """

    embedding_size: int = 192
    growth_rate: int = 32
    bn_size: int = 4
    init_channels: int = 128


class _BatchNormRelu(nn.Module):
    """`get_nonlinear("batchnorm-relu")` of FunASR, which has no parameters for the ReLU."""

    def __init__(self, channels: int, *, affine: bool = True) -> None:
        super().__init__()
        self.batchnorm = nn.BatchNorm1d(channels, affine=affine)


class _Residual(nn.Module):
    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, (stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, channels, 1, (stride, 1), bias=False),
                nn.BatchNorm2d(channels),
            )


class _Head(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = nn.Sequential(_Residual(channels, 2), _Residual(channels, 1))
        self.layer2 = nn.Sequential(_Residual(channels, 2), _Residual(channels, 1))
        self.conv2 = nn.Conv2d(channels, channels, 3, (2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)


class _Tdnn(nn.Module):
    def __init__(self, input_size: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(input_size, channels, 5, stride=2, padding=2, bias=False)
        self.nonlinear = _BatchNormRelu(channels)


class _Mask(nn.Module):
    def __init__(self, input_size: int, channels: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(input_size, channels, 3, bias=False)
        self.linear1 = nn.Conv1d(input_size, input_size // 2, 1)
        self.linear2 = nn.Conv1d(input_size // 2, channels, 1)


class _DenseLayer(nn.Module):
    def __init__(self, input_size: int, inner: int, channels: int) -> None:
        super().__init__()
        self.nonlinear1 = _BatchNormRelu(input_size)
        self.linear1 = nn.Conv1d(input_size, inner, 1, bias=False)
        self.nonlinear2 = _BatchNormRelu(inner)
        self.cam_layer = _Mask(inner, channels)


class _Transit(nn.Module):
    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.nonlinear = _BatchNormRelu(input_size)
        self.linear = nn.Conv1d(input_size, input_size // 2, 1, bias=False)


class _Embedding(nn.Module):
    def __init__(self, input_size: int, embedding_size: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(input_size, embedding_size, 1, bias=False)
        self.nonlinear = _BatchNormRelu(embedding_size, affine=False)


class CampplusCheckpoint(nn.Module):
    """The layout of FunASR's checkpoint; `Campplus` computes with it."""

    def __init__(self, size: CampplusSize) -> None:
        super().__init__()
        self.head = _Head(_HEAD_CHANNELS)
        channels = size.init_channels
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        stages["tdnn"] = _Tdnn(_HEAD_CHANNELS * _HEAD_BANDS, channels)
        for number, (num_layers, _) in enumerate(_BLOCKS, 1):
            block = nn.Module()
            for layer in range(num_layers):
                dense = _DenseLayer(channels, size.bn_size * size.growth_rate, size.growth_rate)
                block.add_module(f"tdnnd{layer + 1}", dense)
                channels += size.growth_rate
            stages[f"block{number}"] = block
            stages[f"transit{number}"] = _Transit(channels)
            channels //= 2
        stages["out_nonlinear"] = _BatchNormRelu(channels)
        stages["dense"] = _Embedding(2 * channels, size.embedding_size)
        self.xvector = nn.Sequential(stages)


class _Norm:
    """A batch normalization as a factor and an addend per channel, float64."""

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        mean, variance = cast(torch.Tensor, norm.running_mean), cast(torch.Tensor, norm.running_var)
        self.factor = (variance.double() + norm.eps).rsqrt()
        self.addend = -mean.double() * self.factor
        if norm.affine:
            self.factor = self.factor * norm.weight.double()
            self.addend = self.addend * norm.weight.double() + norm.bias.double()


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a layer runs, and the dtype of its products."""

    device: torch.device
    dtype: torch.dtype

    @property
    def exact(self) -> _Target:
        return _Target(self.device, torch.float32)

    @property
    def has_onednn(self) -> bool:
        return self.device.type == "cpu" and has_onednn()

    def tensor(self, values: torch.Tensor) -> torch.Tensor:
        return values.detach().to(self.device, self.dtype)


class _Conv:
    """A 2-D convolution in channels-last layout, with the normalization after it.

    Args:
        weight: [out, in, height, width].
        norm: after the convolution, if any.
        target: where it runs.
        stride, padding, dilation: along height and width.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        norm: _Norm | None,
        target: _Target,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
    ) -> None:
        self._bias: torch.Tensor | None = None
        if norm is not None:
            weight = weight.double() * norm.factor[:, None, None, None]
            self._bias = target.tensor(norm.addend)
        self._weight = target.tensor(weight).contiguous(memory_format=torch.channels_last)
        self._stride, self._padding, self._dilation = stride, padding, dilation
        self._fused = target.has_onednn

    def __call__(self, images: torch.Tensor, then: str = "none") -> torch.Tensor:
        """Convolves images [n, in, height, width]; `then` may be "relu"."""
        if self._fused:
            convolution = torch.ops.mkldnn._convolution_pointwise
            found: torch.Tensor = convolution(
                images,
                self._weight,
                self._bias,
                self._padding,
                self._stride,
                self._dilation,
                1,
                then,
                [],
                "",
            )
            return found
        found = functional.conv2d(
            images, self._weight, self._bias, self._stride, self._padding, self._dilation
        )
        return found.relu_() if then == "relu" else found

    def add_relu(self, images: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Returns the ReLU of the sum of the convolution and `other`."""
        if self._fused:
            convolution = torch.ops.mkldnn._convolution_pointwise.binary
            found: torch.Tensor = convolution(
                images,
                other,
                self._weight,
                self._bias,
                self._padding,
                self._stride,
                self._dilation,
                1,
                "add",
                1.0,
                "relu",
                [],
                "",
            )
            return found
        return self(images).add_(other).relu_()


class _ResidualBlock:
    def __init__(self, block: _Residual, stride: int, target: _Target) -> None:
        down = (stride, 1)
        self._conv1 = _Conv(block.conv1.weight, _Norm(block.bn1), target, down)
        self._conv2 = _Conv(block.conv2.weight, _Norm(block.bn2), target)
        self._shortcut: _Conv | None = None
        if len(block.shortcut):
            conv, norm = cast(tuple[nn.Conv2d, nn.BatchNorm2d], tuple(block.shortcut))
            self._shortcut = _Conv(conv.weight, _Norm(norm), target, down, (0, 0))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        kept = images if self._shortcut is None else self._shortcut(images)
        return self._conv2.add_relu(self._conv1(images, "relu"), kept)


class _Linear:
    """A matrix product of rows; its result has the dtype of the product.

    Args:
        weight: [out, in].
        bias: [out].
        target: where it runs, and the dtype of the product.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, target: _Target) -> None:
        self._weight, self._bias = target.tensor(weight), target.tensor(bias)
        self._fused = target.has_onednn
        self._dtype = target.dtype
        if self._fused:
            # In the order in which the kernels read it.
            reorder = torch.ops.mkldnn._reorder_linear_weight
            self._weight = reorder(self._weight.contiguous(), _PACKED_ROWS)

    def __call__(self, rows: torch.Tensor, then: str = "none") -> torch.Tensor:
        """[n, in] -> [n, out]; `then` may be "relu"."""
        if self._fused:
            return product(rows.to(self._dtype), self._weight, self._bias, then)
        found = functional.linear(rows.to(self._dtype), self._weight, self._bias)
        return found.relu_() if then == "relu" else found


class _NormLinear:
    """A normalization, a ReLU and a 1x1 convolution; after it possibly both again.

    In float32, `relu(s * x + b)` is computed as `s * clamp(x) + b` with the bound `-b / s`,
    from below for s > 0 and from above for s < 0: `s` and `b` move into the weights, and one
    pass over the activations is left. In bfloat16 this would round values that are far from
    zero.
    """

    def __init__(
        self, before: _Norm, linear: nn.Conv1d, after: _Norm | None, target: _Target
    ) -> None:
        weight = linear.weight.double().flatten(1)
        bias = weight.new_zeros(len(weight))
        self._clamps = target.dtype == torch.float32 and bool((before.factor != 0).all())
        if self._clamps:
            bound = -before.addend / before.factor
            low = torch.where(before.factor > 0, bound, -torch.inf)
            high = torch.where(before.factor > 0, torch.inf, bound)
            self._low, self._high = target.exact.tensor(low), target.exact.tensor(high)
            bias = weight @ before.addend
            weight = weight * before.factor
        else:
            self._factor = target.exact.tensor(before.factor)
            self._addend = target.exact.tensor(before.addend)
        if after is not None:
            weight = weight * after.factor[:, None]
            bias = bias * after.factor + after.addend
        self._then = "none" if after is None else "relu"
        self._linear = _Linear(weight, bias, target)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        if self._clamps:
            rows = torch.clamp(rows, self._low, self._high)
        else:
            rows = torch.addcmul(self._addend, rows, self._factor).relu_()
        return self._linear(rows, self._then)


class _MaskedDense:
    """A dense layer: frames through a bottleneck and a convolution, masked by their context."""

    def __init__(self, layer: _DenseLayer, dilation: int, target: _Target) -> None:
        before, after = _Norm(layer.nonlinear1.batchnorm), _Norm(layer.nonlinear2.batchnorm)
        self._bottleneck = _NormLinear(before, layer.linear1, after, target)
        cam = layer.cam_layer
        self._local = _Conv(
            cam.linear_local.weight[:, :, None],
            None,
            target,
            padding=(0, dilation),
            dilation=(1, dilation),
        )
        # The context is the mean of the window plus that of the segment, which are the same.
        weight = cam.linear1.weight.flatten(1) * 2
        self._context = _Linear(weight, cast(torch.Tensor, cam.linear1.bias), target.exact)
        weight = cam.linear2.weight.flatten(1)
        self._mask = _Linear(weight, cast(torch.Tensor, cam.linear2.bias), target.exact)

    def __call__(self, rows: torch.Tensor, num_windows: int, out: torch.Tensor) -> None:
        """Writes the new channels of rows [n * frames, in] to `out`, [n * frames, new]."""
        windows = _by_window(self._bottleneck(rows), num_windows)
        mask = self._mask(self._context(windows.mean(1, dtype=torch.float32), "relu")).sigmoid_()
        found = self._local(windows.transpose(1, 2)[:, :, None])[:, :, 0].transpose(1, 2)
        torch.mul(found, mask[:, None], out=_by_window(out, num_windows))


class _DenseBlock:
    """Dense layers, each of which sees the channels of all before it, and the transit after."""

    def __init__(
        self, layers: list[_DenseLayer], dilation: int, transit: _NormLinear, target: _Target
    ) -> None:
        self._layers = [_MaskedDense(layer, dilation, target) for layer in layers]
        self._growth = layers[0].cam_layer.linear_local.out_channels
        self._transit = transit

    def __call__(self, rows: torch.Tensor, num_windows: int) -> torch.Tensor:
        size = rows.shape[1]
        stacked = rows.new_empty(len(rows), size + self._growth * len(self._layers))
        stacked[:, :size] = rows
        for layer in self._layers:
            yield_point()
            layer(stacked[:, :size], num_windows, stacked[:, size : size + self._growth])
            size += self._growth
        return self._transit(stacked)


class Campplus:
    """Computes embeddings of windows.

    Args:
        checkpoint: loaded.
        device: to compute on.
        dtype: of the products, `float32` or `bfloat16`; sums along the network are float32.

    Raises:
        ConfigurationError: this CPU would emulate bfloat16.
    """

    def __init__(
        self, checkpoint: CampplusCheckpoint, device: torch.device, dtype: str = "float32"
    ) -> None:
        target = _Target(device, torch.float32)
        if dtype == "bfloat16":
            require_bfloat16()
            target = _Target(device, torch.bfloat16)
        self._device = device
        head, xvector = checkpoint.head, checkpoint.xvector
        self._dtype = target.dtype
        # The features are too far from zero for bfloat16.
        self._conv1 = _Conv(head.conv1.weight, _Norm(head.bn1), target.exact)
        self._residuals = [
            _ResidualBlock(cast(_Residual, block), 2 - index, target)
            for layer in (head.layer1, head.layer2)
            for index, block in enumerate(layer)
        ]
        self._conv2 = _Conv(head.conv2.weight, _Norm(head.bn2), target, (2, 1))
        tdnn = cast(_Tdnn, xvector.tdnn)
        # Its input channels are those of the head by band: a convolution over all bands.
        weight = tdnn.linear.weight.view(
            -1, _HEAD_CHANNELS, _HEAD_BANDS, tdnn.linear.weight.shape[2]
        )
        norm = _Norm(tdnn.nonlinear.batchnorm)
        self._tdnn = _Conv(weight, norm, target, (1, 2), (0, 2))
        self._blocks = [
            _block_of(xvector, number, dilation, target)
            for number, (_, dilation) in enumerate(_BLOCKS, 1)
        ]
        embedding = cast(_Embedding, xvector.dense)
        norm = _Norm(embedding.nonlinear.batchnorm)
        weight = embedding.linear.weight.double().flatten(1) * norm.factor[:, None]
        self.embedding_size = len(weight)
        self._embedding = _Linear(weight, norm.addend, target.exact)

    def embed(self, features: torch.Tensor) -> torch.Tensor:
        """Returns embeddings of length 1, float32 [n, embedding_size] on the CPU.

        Args:
            features: of windows, float32 [n, frames, 80] with at most 200 frames, n > 0.
        """
        starts = range(0, len(features), _GROUP)
        groups = [self._embed(features[start : start + _GROUP]) for start in starts]
        return functional.normalize(torch.cat(groups)).cpu()

    def _embed(self, features: torch.Tensor) -> torch.Tensor:
        images = features.to(self._device).transpose(1, 2)[:, None]
        images = self._conv1(images.contiguous(memory_format=torch.channels_last), "relu")
        images = images.to(self._dtype)
        for residual in self._residuals:
            yield_point()
            images = residual(images)
        images = self._tdnn(self._conv2(images, "relu"), "relu")
        rows = images[:, :, 0].transpose(1, 2).flatten(0, 1).float()
        for block in self._blocks:
            rows = block(rows, len(features))
        std, mean = torch.std_mean(_by_window(rows, len(features)), dim=1)
        return self._embedding(torch.cat((mean, std), dim=1))


def _by_window(rows: torch.Tensor, num_windows: int) -> torch.Tensor:
    """[n * frames, channels] -> [n, frames, channels], without a copy."""
    return rows.view(num_windows, -1, rows.shape[1])


def _block_of(xvector: nn.Sequential, number: int, dilation: int, target: _Target) -> _DenseBlock:
    layers = cast(list[_DenseLayer], list(getattr(xvector, f"block{number}").children()))
    transit = cast(_Transit, getattr(xvector, f"transit{number}"))
    after = None
    if number == len(_BLOCKS):
        after = _Norm(cast(_BatchNormRelu, xvector.out_nonlinear).batchnorm)
    # Its rounding would go into all channels of the next block.
    before = _Norm(transit.nonlinear.batchnorm)
    exact = _NormLinear(before, transit.linear, after, target.exact)
    return _DenseBlock(layers, dilation, exact, target)
