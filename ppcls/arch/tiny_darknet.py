# SPDX-License-Identifier: Apache-2.0
"""Tiny Darknet: 16 convolutions, no fully connected layer (https://pjreddie.com/darknet/tiny-darknet/)."""

from __future__ import annotations

import paddle
from paddle import nn

from ppcls.arch.pretrained import load_pretrained
from ppcls.config.registry import ARCHS, Count

# (kernel size, output channels) of each convolution; a 2x2 max pool stands between the groups.
GROUPS = (
    ((3, 16),),
    ((3, 32),),
    ((1, 16), (3, 128), (1, 16), (3, 128)),
    ((1, 32), (3, 256), (1, 32), (3, 256)),
    ((1, 64), (3, 512), (1, 64), (3, 512), (1, 128)),
)


class ConvNormLeaky(nn.Layer):
    """Convolution that keeps the resolution, batch norm, leaky ReLU with slope 0.1."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2D(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias_attr=False)
        self.norm = nn.BatchNorm2D(out_channels)
        self.activation = nn.LeakyReLU(0.1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return the [N, out_channels, H, W] feature maps."""
        return self.activation(self.norm(self.conv(x)))


@ARCHS.register
class TinyDarkNet(nn.Layer):
    """Tiny Darknet, 1.04 M parameters at 1000 classes; images of at least 16 x 16 pixels.

    Args:
        class_num: number of logits.
        pretrained: weights to start from; see `load_pretrained`.

    YAML::

        Arch: {name: TinyDarkNet, class_num: 10}
    """

    head = ("classifier",)

    def __init__(self, class_num: Count = 1000, pretrained: bool | str = False) -> None:
        super().__init__()
        self.features = nn.Sequential()
        channels = 3
        for number, group in enumerate(GROUPS, start=1):
            if number > 1:
                self.features.add_sublayer(f"pool{number - 1}", nn.MaxPool2D(kernel_size=2, stride=2))
            for index, (kernel_size, width) in enumerate(group, start=1):
                self.features.add_sublayer(f"conv{number}_{index}", ConvNormLeaky(channels, width, kernel_size))
                channels = width
        self.classifier = nn.Conv2D(channels, class_num, kernel_size=1)
        load_pretrained(self, "TinyDarkNet", pretrained)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Return [N, class_num] logits of [N, 3, H, W] images."""
        return self.classifier(self.features(images)).mean(axis=[2, 3])
