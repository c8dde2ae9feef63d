# SPDX-License-Identifier: Apache-2.0
"""A small architecture, outside the package, as a user would write one; files name it through ``Global.imports``."""

from __future__ import annotations

from paddle import nn

from ppcls.arch.pretrained import load_pretrained
from ppcls.config.registry import ARCHS


@ARCHS.register
class ToyNet(nn.Layer):
    """Two convolutions, with batch norm or without, dropout, one linear layer."""

    head = ("classifier",)

    def __init__(
        self,
        class_num: int = 1000,
        width: int = 8,
        dropout: float = 0.2,
        pretrained: bool | str = False,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2D(3, width, 3, stride=2, padding=1, bias_attr=False),
            nn.BatchNorm2D(width) if batch_norm else nn.Identity(),
            nn.ReLU(),
            nn.Conv2D(width, 2 * width, 3, stride=2, padding=1, bias_attr=False),
            nn.BatchNorm2D(2 * width) if batch_norm else nn.Identity(),
            nn.ReLU(),
            nn.AdaptiveAvgPool2D(2),
            nn.Flatten(),
            nn.Dropout(dropout),
        )
        self.classifier = nn.Linear(8 * width, class_num)
        load_pretrained(self, "ToyNet", pretrained)

    def forward(self, x):
        return self.classifier(self.features(x))
