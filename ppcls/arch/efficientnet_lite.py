# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite: EfficientNet (https://arxiv.org/abs/1905.11946) for phones and 8-bit arithmetic.

What is different is described by its authors in ``tensorflow/tpu``, ``models/official/efficientnet/lite``: no
squeeze-and-excitation, ReLU6 in place of swish, and the first and last layers are the same in all sizes.
"""

from __future__ import annotations

import math

import paddle
from paddle import nn
from paddle.nn import functional as F

from ppcls.arch.pretrained import load_pretrained
from ppcls.config.registry import ARCHS, Count, Share

# (blocks, kernel size, stride of the first block, expansion, output channels): table 1 of the paper.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32
TOP_CHANNELS = 1280


class ConvNorm(nn.Layer):
    """Convolution, batch norm and, if wanted, ReLU6.

    The padding is TensorFlow's, which published weights were trained with: at stride 2 an even image gets one more
    row below than above, and one more column right than left.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        fan_out = kernel_size**2 * out_channels // groups
        self.conv = nn.Conv2D(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding="SAME",
            groups=groups,
            weight_attr=nn.initializer.Normal(std=(2 / fan_out) ** 0.5),
            bias_attr=False,
        )
        self.norm = nn.BatchNorm2D(out_channels, momentum=0.99, epsilon=1e-3)
        self.relu = relu

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return the [N, out_channels, ceil(H / stride), ceil(W / stride)] feature maps."""
        x = self.norm(self.conv(x))
        return F.relu6(x) if self.relu else x


class InvertedResidual(nn.Layer):
    """Widen, convolve each channel by itself, narrow again; added to the input where both have one shape.

    Args:
        in_channels: feature maps of the input.
        out_channels: feature maps of the output.
        kernel_size: of the convolution of single channels.
        stride: of the same.
        expansion: how many times wider it is in the middle.
        drop_connect: share of the images of a training batch for which only the input passes, 0..1.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int, drop_connect: float
    ) -> None:
        super().__init__()
        width = in_channels * expansion
        self.expand = ConvNorm(in_channels, width, kernel_size=1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(width, width, kernel_size, stride, groups=width)
        self.project = ConvNorm(width, out_channels, kernel_size=1, relu=False)
        self.adds_input = stride == 1 and in_channels == out_channels
        self.drop_connect = drop_connect

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return the [N, out_channels, ceil(H / stride), ceil(W / stride)] feature maps."""
        new = self.project(self.depthwise(self.expand(x)))
        if not self.adds_input:
            return new
        if self.drop_connect:
            new = F.dropout(new, self.drop_connect, axis=0, training=self.training)
        return x + new


class EfficientNetLite(nn.Layer):
    """The EfficientNet-Lite family; images of any size, trained at that of each member.

    Args:
        width: what numbers of channels are multiplied with, but for those of the first and last convolution.
        depth: what numbers of blocks are multiplied with, but for those of the first and last stage.
        class_num: number of logits.
        dropout: share of the features that are dropped before the classifier in training, 0..1.
        drop_connect: "stochastic depth", 0..1: in training block i of n, counted from 0, is left out for i/n of this
            share of the images.
    """

    head = ("classifier",)

    def __init__(
        self,
        width: float = 1.0,
        depth: float = 1.0,
        class_num: int = 1000,
        dropout: float = 0.2,
        drop_connect: float = 0.2,
    ) -> None:
        super().__init__()
        sizes = [math.ceil(depth * stage[0]) for stage in STAGES]
        sizes[0], sizes[-1] = STAGES[0][0], STAGES[-1][0]
        num_blocks = sum(sizes)
        self.sizes = tuple(sizes)
        self.stem = ConvNorm(3, STEM_CHANNELS, kernel_size=3, stride=2)
        self.blocks = nn.Sequential()
        channels = STEM_CHANNELS
        for size, (_, kernel_size, stride, expansion, out_channels) in zip(sizes, STAGES):
            for index in range(size):
                self.blocks.append(
                    InvertedResidual(
                        channels,
                        scaled(out_channels, width),
                        kernel_size,
                        stride if index == 0 else 1,
                        expansion,
                        drop_connect * len(self.blocks) / num_blocks,
                    )
                )
                channels = scaled(out_channels, width)
        self.top = ConvNorm(channels, TOP_CHANNELS, kernel_size=1)
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.dropout = nn.Dropout(dropout)
        bound = class_num**-0.5
        self.classifier = nn.Linear(TOP_CHANNELS, class_num, weight_attr=nn.initializer.Uniform(-bound, bound))

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Return [N, class_num] logits of [N, 3, H, W] images."""
        x = self.pool(self.top(self.blocks(self.stem(images))))
        return self.classifier(self.dropout(paddle.flatten(x, start_axis=1)))

    def pytorch_names(self) -> tuple[dict[str, str], ...]:
        """Names of the layers in ``efficientnet_lite_pytorch`` and in ``timm``, each with the name here."""
        ported = {"_conv_stem": "stem.conv", "_bn0": "stem.norm"}
        timm = {"conv_stem": "stem.conv", "bn1": "stem.norm"}
        places = [(stage, index) for stage, size in enumerate(self.sizes) for index in range(size)]
        for number, ((stage, index), block) in enumerate(zip(places, self.blocks)):
            # Both leave out the convolution that would not widen; one keeps counting as if it were there.
            parts = (
                ["expand", "depthwise", "project"] if isinstance(block.expand, ConvNorm) else ["depthwise", "project"]
            )
            kinds = {"expand": "pw", "depthwise": "dw", "project": "pwl" if len(parts) == 3 else "pw"}
            for order, part in enumerate(parts):
                ours = f"blocks.{number}.{part}"
                ported[f"_blocks.{number}._{part}_conv"] = f"{ours}.conv"
                ported[f"_blocks.{number}._bn{3 - len(parts) + order}"] = f"{ours}.norm"
                timm[f"blocks.{stage}.{index}.conv_{kinds[part]}"] = f"{ours}.conv"
                timm[f"blocks.{stage}.{index}.bn{order + 1}"] = f"{ours}.norm"
        ported |= {"_conv_head": "top.conv", "_bn1": "top.norm", "_fc": "classifier"}
        timm |= {"conv_head": "top.conv", "bn2": "top.norm", "classifier": "classifier"}
        return ported, timm


def scaled(channels: int, width: float) -> int:
    """Channels times ``width``, to the nearest multiple of 8 that is not more than a tenth smaller."""
    wanted = channels * width
    nearest = max(8, int(wanted + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * wanted else nearest


@ARCHS.register
def EfficientNetLite0(
    class_num: Count = 1000,
    pretrained: bool | str = False,
    dropout: Share = 0.2,
    drop_connect: Share = 0.2,
) -> EfficientNetLite:
    """Return an EfficientNet-Lite0, 4.65 M parameters, for images of 224; arguments as in `EfficientNetLite`.

    YAML::

        Arch: {name: EfficientNetLite0, class_num: 1000}
    """
    model = EfficientNetLite(1.0, 1.0, class_num, dropout, drop_connect)
    return load_pretrained(model, "EfficientNetLite0", pretrained)


@ARCHS.register
def EfficientNetLite1(
    class_num: Count = 1000,
    pretrained: bool | str = False,
    dropout: Share = 0.2,
    drop_connect: Share = 0.2,
) -> EfficientNetLite:
    """Return an EfficientNet-Lite1, 5.42 M parameters, for images of 240; arguments as in `EfficientNetLite`."""
    model = EfficientNetLite(1.0, 1.1, class_num, dropout, drop_connect)
    return load_pretrained(model, "EfficientNetLite1", pretrained)


@ARCHS.register
def EfficientNetLite2(
    class_num: Count = 1000,
    pretrained: bool | str = False,
    dropout: Share = 0.3,
    drop_connect: Share = 0.2,
) -> EfficientNetLite:
    """Return an EfficientNet-Lite2, 6.09 M parameters, for images of 260; arguments as in `EfficientNetLite`."""
    model = EfficientNetLite(1.1, 1.2, class_num, dropout, drop_connect)
    return load_pretrained(model, "EfficientNetLite2", pretrained)


@ARCHS.register
def EfficientNetLite3(
    class_num: Count = 1000,
    pretrained: bool | str = False,
    dropout: Share = 0.3,
    drop_connect: Share = 0.2,
) -> EfficientNetLite:
    """Return an EfficientNet-Lite3, 8.20 M parameters, for images of 280; arguments as in `EfficientNetLite`."""
    model = EfficientNetLite(1.2, 1.4, class_num, dropout, drop_connect)
    return load_pretrained(model, "EfficientNetLite3", pretrained)


@ARCHS.register
def EfficientNetLite4(
    class_num: Count = 1000,
    pretrained: bool | str = False,
    dropout: Share = 0.3,
    drop_connect: Share = 0.2,
) -> EfficientNetLite:
    """Return an EfficientNet-Lite4, 13.0 M parameters, for images of 300; arguments as in `EfficientNetLite`."""
    model = EfficientNetLite(1.4, 1.8, class_num, dropout, drop_connect)
    return load_pretrained(model, "EfficientNetLite4", pretrained)
