# SPDX-License-Identifier: Apache-2.0
"""Many texts in one buffer."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ppcls.data.texts import Joined, Texts

SOME = ["a.jpg", "", "图像 1.jpg", "b" * 100, "x\nsecond line", "broken \udcff"]


def test_texts_come_back_as_they_were():
    texts = Texts.of(SOME)
    assert list(texts) == SOME
    assert texts[-1] == SOME[-1] and texts[1:4] == SOME[1:4] and len(texts) == len(SOME)
    assert list(Texts.of([])) == []
    with pytest.raises(IndexError):
        texts[len(SOME)]


def test_joined_texts_are_those_of_all_parts():
    joined = Joined([Texts.of(SOME), Texts.of([]), Texts.of(["z", "y"])])
    assert list(joined) == [*SOME, "z", "y"]
    assert [joined[index] for index in range(len(joined))] == [*SOME, "z", "y"]
    assert joined.place(len(SOME)) == (2, 0) and joined.place(-1) == (2, 1) and joined.place(0) == (0, 0)
    assert joined[-2:] == ["z", "y"]


@pytest.mark.parametrize("longest", [1, 7, 8, 9, 40])
def test_digests_are_equal_for_equal_texts_only(longest):
    draw = random.Random(longest)
    some = ["".join(draw.choices("ab/", k=draw.randint(0, longest))) for _ in range(2000)]
    texts = [*some, *some[::-1], "", "a", "a\0", "a\0\0"]
    digests = Joined([Texts.of(texts[:100]), Texts.of(texts[100:])]).digests()
    assert digests.dtype == np.uint64
    by_digest = dict(zip(digests.tolist(), texts))
    assert all(by_digest[digest] == text for digest, text in zip(digests.tolist(), texts))
    assert len(by_digest) == len(set(texts))


def test_a_digest_depends_on_the_text_and_not_on_its_place():
    alone = [Texts.of([text]).digests()[0] for text in SOME]
    assert Texts.of(SOME).digests().tolist() == alone
