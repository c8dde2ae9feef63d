# SPDX-License-Identifier: Apache-2.0
"""A new bundle takes the place of the old one while requests are answered; a bad one does not."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from ppcls.deploy.bundle import manifest_sha256
from ppcls.serve.model import ServedModel
from ppcls.serve.service import Service
from ppcls.utils.errors import PpclsError

logger = logging.getLogger(__name__)


class Reloader:
    """Replaces the model of a service by what its directory holds now.

    Args:
        directory: the bundle; may be a link that is turned to another.
        load: reads and tries a bundle.
        service: whose model is replaced.
        after_load: called when a bundle was read, whatever came of it; a library that was loaded with it may have
            taken signals.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        load: Callable[[], ServedModel],
        service: Service,
        after_load: Callable[[], None],
    ) -> None:
        self.directory, self._load, self._service, self._after_load = directory, load, service, after_load
        self._refused = ""
        self._lock = asyncio.Lock()

    async def watch(self, seconds: float) -> None:
        """Look at the manifest so often, and take what is new; never returns."""
        while True:
            await asyncio.sleep(seconds)
            digest = await asyncio.to_thread(manifest_sha256, self.directory)
            # Without a manifest it is being replaced. What was refused once is not read again and again.
            if digest not in ("", self._refused, self._service.model.sha256):
                await self.reload()

    async def reload(self) -> None:
        """Read the bundle and try it, beside the one that answers; swap if it is good, say why in one line if not."""
        async with self._lock:
            digest = await asyncio.to_thread(manifest_sha256, self.directory)
            metrics = self._service.metrics
            try:
                model = await asyncio.to_thread(self._load)
            except Exception as error:  # noqa: BLE001 (whatever is wrong with it, the old one goes on)
                self._refused = digest
                says = str(error) if isinstance(error, (PpclsError, OSError)) else f"{type(error).__name__}: {error}"
                logger.error("the bundle is not reloaded, the one before answers on: %s", says.replace("\n", "; "))
                metrics.reloads.labels("refused").inc()
                return
            finally:
                self._after_load()
            before, self._service.model = self._service.model, model
            self._refused = ""
            metrics.reloads.labels("swapped").inc()
            is_same = "the same bundle" if before.sha256 == model.sha256 else f"bundle {model.sha256[:12]}"
            logger.info("reloaded: %s answers from now on (%s)", is_same, model.classifier.description)
