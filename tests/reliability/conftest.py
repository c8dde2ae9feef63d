# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that kill trainings."""

import pytest
from forked import Trainings


@pytest.fixture(scope="session")
def trainings():
    """Starts real processes of ``tools/train.py``."""
    with Trainings() as trainings:
        yield trainings
