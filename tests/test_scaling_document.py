# SPDX-License-Identifier: Apache-2.0
"""The example in docs/scaling.md is what its formulas give, and the formulas are of this model."""

import re
import runpy
from pathlib import Path

import pytest

from ppcls.arch.densenet import DenseNet121

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"
LINKS = {8: (100e9, 5e-6), 64: (12.5e9, 20e-6), 256: (12.5e9, 20e-6)}


@pytest.fixture(scope="module")
def formulas(tmp_path_factory):
    (code,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    path = tmp_path_factory.mktemp("formulas") / "formulas.py"
    path.write_text(code)
    return runpy.run_path(str(path))


def rows():
    """Each row of the example: its name, and what it says of each number of cards."""
    table = DOCUMENT.read_text().split("| 256 cards |\n|---|---|---|---|\n")[1].split("\n\n")[0]
    for line in table.splitlines():
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        yield name, dict(zip(LINKS, cells))


def test_every_figure_of_the_example_is_what_the_formulas_give(formulas):
    plans = {cards: formulas["plan"](cards, *link) for cards, link in LINKS.items()}
    assert [name for name, _ in rows()] == list(plans[8])
    for name, cells in rows():
        for cards, cell in cells.items():
            places = len(re.sub(r"^[\d,]+\.?", "", cell))
            assert cell == f"{plans[cards][name]:,.{places}f}", (name, cards)


def test_the_gradients_are_those_of_the_model(formulas):
    weights = sum(weight.size for weight in DenseNet121().parameters() if weight.trainable)
    assert formulas["GRADIENTS"] == pytest.approx(4 * weights, rel=2e-3)
