# SPDX-License-Identifier: Apache-2.0
"""A batch that does not fit into memory is computed in pieces, whose gradients sum up to those of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import paddle
from paddle import nn
from paddle.nn.layer.norm import _BatchNormBase

from ppcls.data.loader import Batch
from ppcls.engine.train_step import StepOutput
from ppcls.utils import dist
from ppcls.utils.errors import ConfigError
from ppcls.utils.logger import logger

OutOfMemory = Literal["halve", "stop"]

_SIGNS = ("resourceexhausted", "out of memory", "status_alloc_failed")
"""What Paddle and the libraries below it write when memory runs out and it is no ``MemoryError``, in small letters."""


class Pieces:
    """How many images are computed at once: all of a batch, until the memory proves too small.

    Args:
        size: at most so many from the start; None for the whole batch.
        on_out_of_memory: compute half as many at once from then on, or stop.
        whole_batch_losses: names of losses that are no means over images, which no piece can compute.

    Raises:
        ConfigError: a size, and losses that forbid it.
    """

    def __init__(
        self,
        size: int | None = None,
        on_out_of_memory: OutOfMemory = "halve",
        whole_batch_losses: Sequence[str] = (),
    ) -> None:
        self.asked = size
        self.size = size
        self.on_out_of_memory = on_out_of_memory
        self.whole_batch_losses = list(whole_batch_losses)
        if size is not None and self.whole_batch_losses:
            raise ConfigError(f"Global.micro_batch_size: {self._forbidden()}; remove it")

    def bounds(self, num_images: int) -> list[tuple[int, int]]:
        """Return the first image of each piece and the one behind its last; the pieces differ by one image at most."""
        size = min(self.size or num_images, num_images)
        num_pieces = -(-num_images // size)
        edges = [num_images * number // num_pieces for number in range(num_pieces + 1)]
        return list(zip(edges, edges[1:]))

    def halve(self, num_images: int, error: str, model: nn.Layer) -> None:
        """Compute half as many images at once as so far, and say so.

        Args:
            num_images: of a whole batch in this process.
            error: what the device said.
            model: the model; with batch norm more changes than the memory.

        Raises:
            ConfigError: it was a single image, or the settings do not want it.
        """
        now = max(end - start for start, end in self.bounds(num_images))
        text = f"out of memory with {now} image{'s' * (now > 1)} at once ({error})"
        if self.whole_batch_losses:
            raise ConfigError(f"{text}: {self._forbidden()}; make DataLoader.Train.sampler.batch_size smaller")
        if self.on_out_of_memory == "stop" or now == 1:
            raise ConfigError(f"{text}; {self.advice(now)}")
        is_first, self.size = self.size is None, now // 2
        logger.warning(
            "%s; from now on %d at once, and %d such pieces make the gradients of a batch of %d",
            *(text, self.size, len(self.bounds(num_images)), num_images),
        )
        if is_first and any(isinstance(layer, _BatchNormBase) for layer in model.sublayers()):
            logger.warning(
                "batch norm takes its mean and variance from the images of a piece: the result differs a little from "
                "that of whole batches"
            )

    def advice(self, num_images: int) -> str:
        """Return what to set when so many images at once are too many."""
        if num_images == 1:
            return "make the images or the model smaller"
        return f"write Global.micro_batch_size: {num_images // 2}, which keeps batch size and learning rate"

    def state_dict(self) -> dict[str, int | None]:
        """What a continued run has to know: the size found, and what the file asked for then; empty before that."""
        return {"asked": self.asked, "size": self.size} if self.size != self.asked else {}

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        """Go on with the size of a checkpoint, unless the file asks for another than it did then."""
        if state and state["asked"] == self.asked:
            self.size = state["size"]

    def _forbidden(self) -> str:
        names, is_one = ", ".join(self.whole_batch_losses), len(self.whole_batch_losses) == 1
        return f"{names} {'is' if is_one else 'are'} no mean over images, so a batch cannot be computed in pieces"


class TriedSizes:
    """Which batches have to be tried before several processes compute them together.

    In a backward the processes wait for each other's gradients, and one that runs out of memory there cannot take
    part any more. So the first batch of its size is computed by each process for itself, and thrown away.
    """

    def __init__(self) -> None:
        self._largest = 0

    def is_due(self, batch: Batch) -> bool:
        """Whether the batch is larger than any so far, and there are several processes; the same in all of them."""
        images, _ = batch
        if dist.world_size() == 1 or images.size <= self._largest:
            return False
        self._largest = images.size
        return True


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, in the words of Paddle, CUDA, cuDNN or cuBLAS."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _SIGNS)


def merged(outputs: Sequence[StepOutput], labels: paddle.Tensor) -> StepOutput:
    """Return what the whole batch gave: means weighted by the images of each piece, and all logits."""
    if len(outputs) == 1:
        return outputs[0]
    num_images = sum(output.num_samples for output in outputs)
    shares = [output.num_samples / num_images for output in outputs]

    def mean(values: Sequence[paddle.Tensor]) -> paddle.Tensor:
        return paddle.add_n([share * value.detach() for share, value in zip(shares, values)])

    return StepOutput(
        mean([output.loss for output in outputs]),
        {name: mean([output.parts[name] for output in outputs]) for name in outputs[0].parts},
        paddle.concat([output.logits for output in outputs]),
        labels,
        num_images,
    )
