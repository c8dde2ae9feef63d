# SPDX-License-Identifier: Apache-2.0
"""DenseNet: every layer of a block sees the outputs of all layers before it (https://arxiv.org/abs/1608.06993).

State-dict keys are PaddleClas's, so its published weights load as they are. Layers take Paddle's automatic
internal names, so that several DenseNets live in one process.
"""

from __future__ import annotations

import paddle
from paddle import nn
from paddle.nn import functional as F

from ppcls.arch.pretrained import load_pretrained
from ppcls.config.registry import ARCHS, Count, Share


class ConvNormRelu(nn.Layer):
    """The stem's order: convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__()
        self._conv = nn.Conv2D(in_channels, out_channels, kernel_size, stride, padding, bias_attr=False)
        self._batch_norm = nn.BatchNorm2D(out_channels)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return the [N, out_channels, H', W'] feature maps."""
        return F.relu(self._batch_norm(self._conv(x)))


class NormReluConv(nn.Layer):
    """The order inside the blocks: batch norm, ReLU, convolution ("pre-activation")."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0) -> None:
        super().__init__()
        self._batch_norm = nn.BatchNorm2D(in_channels)
        self._conv = nn.Conv2D(in_channels, out_channels, kernel_size, padding=padding, bias_attr=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return the [N, out_channels, H, W] feature maps."""
        return self._conv(F.relu(self._batch_norm(x)))


class DenseLayer(nn.Layer):
    """A 1x1 bottleneck and a 3x3 convolution whose ``growth_rate`` new maps are appended to the input."""

    def __init__(self, in_channels: int, growth_rate: int, bn_size: int, dropout: float) -> None:
        super().__init__()
        self.bn_ac_func1 = NormReluConv(in_channels, bn_size * growth_rate, kernel_size=1)
        self.bn_ac_func2 = NormReluConv(bn_size * growth_rate, growth_rate, kernel_size=3, padding=1)
        # PaddleClas: this mode scales by 1 - p at inference instead of by 1 / (1 - p) in training.
        self.dropout = nn.Dropout(dropout, mode="downscale_in_infer") if dropout else None

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return ``x`` and the new maps, [N, in_channels + growth_rate, H, W]."""
        new = self.bn_ac_func2(self.bn_ac_func1(x))
        if self.dropout is not None:
            new = self.dropout(new)
        return paddle.concat([x, new], axis=1)


class Transition(nn.Layer):
    """Halve the channels with a 1x1 convolution and the resolution with an average pool."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv_ac_func = NormReluConv(in_channels, in_channels // 2, kernel_size=1)
        self.pool = nn.AvgPool2D(kernel_size=2, stride=2)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return the [N, in_channels // 2, H // 2, W // 2] feature maps."""
        return self.pool(self.conv_ac_func(x))


class DenseNet(nn.Layer):
    """The DenseNet-BC family; images of at least 32 x 32 pixels, with ``small_images`` of at least 4 x 4.

    Args:
        block_sizes: number of dense layers in each block.
        stem_channels: feature maps after the first convolution.
        growth_rate: feature maps that each dense layer adds.
        bn_size: width of the bottlenecks, in multiples of ``growth_rate``.
        dropout: share of each dense layer's new values that are dropped in training, 0..1.
        class_num: number of logits.
        small_images: the form for CIFAR (section 4.2 of the paper): the stem is one 3x3 convolution that keeps the
            resolution, as normalization and ReLU come with the first dense layer.
    """

    head = ("out",)

    def __init__(
        self,
        block_sizes: tuple[int, ...],
        stem_channels: int = 64,
        growth_rate: int = 32,
        bn_size: int = 4,
        dropout: float = 0.0,
        class_num: int = 1000,
        small_images: bool = False,
    ) -> None:
        super().__init__()
        if small_images:
            self.conv1_func = nn.Conv2D(3, stem_channels, kernel_size=3, padding=1, bias_attr=False)
            self.pool2d_max = nn.Identity()
        else:
            self.conv1_func = ConvNormRelu(3, stem_channels, kernel_size=7, stride=2, padding=3)
            self.pool2d_max = nn.MaxPool2D(kernel_size=3, stride=2, padding=1)
        self._stages = []
        channels = stem_channels
        # Blocks count from 2 in the published keys: the stem is stage 1.
        for stage, size in enumerate(block_sizes, start=2):
            block = nn.Sequential()
            for index in range(1, size + 1):
                block.add_sublayer(f"conv{stage}_{index}", DenseLayer(channels, growth_rate, bn_size, dropout))
                channels += growth_rate
            self._append(f"db_conv_{stage}", block)
            if stage <= len(block_sizes):
                self._append(f"tr_conv{stage}_blk", Transition(channels))
                channels //= 2
        self.batch_norm = nn.BatchNorm2D(channels)
        self.pool2d_avg = nn.AdaptiveAvgPool2D(1)
        bound = channels**-0.5
        self.out = nn.Linear(channels, class_num, weight_attr=nn.initializer.Uniform(-bound, bound))

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Return [N, class_num] logits of [N, 3, H, W] images."""
        x = self.pool2d_max(self.conv1_func(images))
        for name in self._stages:
            x = getattr(self, name)(x)
        x = self.pool2d_avg(F.relu(self.batch_norm(x)))
        return self.out(paddle.flatten(x, start_axis=1))

    def pytorch_names(self) -> tuple[dict[str, str], ...]:
        """Names of the layers in torchvision and timm, each with the name here; they have no form for CIFAR."""
        if isinstance(self.conv1_func, nn.Conv2D):
            return ()
        names = {"features.conv0": "conv1_func._conv", "features.norm0": "conv1_func._batch_norm"}
        number = 0
        for stage in self._stages:
            if stage.startswith("db"):
                number += 1
                for index, name in enumerate(getattr(self, stage)._sub_layers, start=1):
                    theirs = f"features.denseblock{number}.denselayer{index}"
                    for part in (1, 2):
                        names[f"{theirs}.norm{part}"] = f"{stage}.{name}.bn_ac_func{part}._batch_norm"
                        names[f"{theirs}.conv{part}"] = f"{stage}.{name}.bn_ac_func{part}._conv"
            else:
                names[f"features.transition{number}.norm"] = f"{stage}.conv_ac_func._batch_norm"
                names[f"features.transition{number}.conv"] = f"{stage}.conv_ac_func._conv"
        return (names | {"features.norm5": "batch_norm", "classifier": "out"},)

    def _append(self, name: str, stage: nn.Layer) -> None:
        self.add_sublayer(name, stage)
        self._stages.append(name)


@ARCHS.register
def DenseNet100(
    class_num: Count = 10,
    pretrained: bool | str = False,
    bn_size: Count = 4,
    dropout: Share = 0.0,
) -> DenseNet:
    """Return a DenseNet-BC of 100 layers and growth 12 for CIFAR, 0.77 M parameters; arguments as in `DenseNet`.

    YAML::

        Arch: {name: DenseNet100, class_num: 10}
    """
    model = DenseNet((16, 16, 16), 24, 12, bn_size, dropout, class_num, small_images=True)
    return load_pretrained(model, "DenseNet100", pretrained)


@ARCHS.register
def DenseNet121(
    class_num: Count = 1000,
    pretrained: bool | str = False,
    use_ssld: bool = False,
    bn_size: Count = 4,
    dropout: Share = 0.0,
) -> DenseNet:
    """Return a DenseNet-121, 8.0 M parameters at 1000 classes; arguments as in `DenseNet` and `load_pretrained`."""
    model = DenseNet((6, 12, 24, 16), bn_size=bn_size, dropout=dropout, class_num=class_num)
    return load_pretrained(model, "DenseNet121", pretrained, use_ssld)


@ARCHS.register
def DenseNet161(
    class_num: Count = 1000,
    pretrained: bool | str = False,
    use_ssld: bool = False,
    bn_size: Count = 4,
    dropout: Share = 0.0,
) -> DenseNet:
    """Return a DenseNet-161, 28.7 M parameters at 1000 classes; arguments as in `DenseNet` and `load_pretrained`."""
    model = DenseNet((6, 12, 36, 24), 96, 48, bn_size=bn_size, dropout=dropout, class_num=class_num)
    return load_pretrained(model, "DenseNet161", pretrained, use_ssld)


@ARCHS.register
def DenseNet169(
    class_num: Count = 1000,
    pretrained: bool | str = False,
    use_ssld: bool = False,
    bn_size: Count = 4,
    dropout: Share = 0.0,
) -> DenseNet:
    """Return a DenseNet-169, 14.1 M parameters at 1000 classes; arguments as in `DenseNet` and `load_pretrained`."""
    model = DenseNet((6, 12, 32, 32), bn_size=bn_size, dropout=dropout, class_num=class_num)
    return load_pretrained(model, "DenseNet169", pretrained, use_ssld)


@ARCHS.register
def DenseNet201(
    class_num: Count = 1000,
    pretrained: bool | str = False,
    use_ssld: bool = False,
    bn_size: Count = 4,
    dropout: Share = 0.0,
) -> DenseNet:
    """Return a DenseNet-201, 20.0 M parameters at 1000 classes; arguments as in `DenseNet` and `load_pretrained`."""
    model = DenseNet((6, 12, 48, 32), bn_size=bn_size, dropout=dropout, class_num=class_num)
    return load_pretrained(model, "DenseNet201", pretrained, use_ssld)


@ARCHS.register
def DenseNet264(
    class_num: Count = 1000,
    pretrained: bool | str = False,
    use_ssld: bool = False,
    bn_size: Count = 4,
    dropout: Share = 0.0,
) -> DenseNet:
    """Return a DenseNet-264, 33.3 M parameters at 1000 classes; arguments as in `DenseNet` and `load_pretrained`."""
    model = DenseNet((6, 12, 64, 48), bn_size=bn_size, dropout=dropout, class_num=class_num)
    return load_pretrained(model, "DenseNet264", pretrained, use_ssld)
