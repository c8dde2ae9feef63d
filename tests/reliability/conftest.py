# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that kill trainings."""

import pytest
from forked import Trainings
from small_disk import At, small_disk


@pytest.fixture(scope="session")
def trainings():
    """Starts real processes of ``tools/train.py``."""
    with Trainings() as trainings:
        yield trainings


@pytest.fixture
def disk(tmp_path):
    """A disk of 1 MB."""
    with small_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def disturbed(toy_config):
    """Train into a folder while things happen: ``epoch_2=function`` does them at the end of that epoch."""
    from ppcls.engine import Engine
    from ppcls.utils.logger import stop_logging

    def run(output, *overrides, **functions):
        engine = Engine(toy_config(f"Global.output_dir={output}", *overrides))
        engine.parts.callbacks.insert(0, At(engine.parts.checkpointer, functions))
        try:
            return engine.train()
        finally:
            stop_logging()

    return run
