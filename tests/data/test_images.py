# SPDX-License-Identifier: Apache-2.0
"""Images that a person points at."""

from ppcls.data.images import find_images


def test_a_listed_path_may_contain_spaces_and_be_followed_by_a_label(tmp_path):
    for name in ("my photo 1.png", "plain.png"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("my photo 1.png\nmy photo 1.png 3\nplain.png 0\n\n")
    expected = [str(tmp_path / name) for name in ("my photo 1.png", "my photo 1.png", "plain.png")]
    assert find_images(str(tmp_path), str(tmp_path / "list.txt")) == expected
