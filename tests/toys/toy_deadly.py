# SPDX-License-Identifier: Apache-2.0
"""An operation that ends the process at one image."""

import os

from ppcls.config.registry import TRANSFORMS
from ppcls.data.transforms import Transform


@TRANSFORMS.register
class Deadly(Transform):
    """Abort at the image whose pixels have this sum."""

    def __init__(self, total: int) -> None:
        self.total = total

    def apply(self, image, params):
        if int(image.sum()) == self.total:
            os.abort()
        return image
