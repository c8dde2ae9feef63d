# SPDX-License-Identifier: Apache-2.0
import io
import pickle

import numpy as np
import pytest

from ppcls.utils.unpickle import load_arrays


def test_containers_and_arrays_come_back():
    stored = {"labels": [3, 1], "data": np.arange(6, dtype=np.uint8).reshape(2, 3), "name": "a", "pair": (1, 2.5)}
    loaded = load_arrays(io.BytesIO(pickle.dumps(stored, protocol=2)))
    assert {key: value for key, value in loaded.items() if key != "data"} == {
        key: value for key, value in stored.items() if key != "data"
    }
    np.testing.assert_array_equal(loaded["data"], stored["data"])


def test_a_function_is_named_and_not_called():
    class Attack:
        def __reduce__(self):
            return print, ("called",)

    with pytest.raises(ValueError, match=r"asks for builtins\.print, which is neither"):
        load_arrays(io.BytesIO(pickle.dumps([Attack()])))


def test_lists_within_lists_that_share_their_items_take_no_time():
    nested = []
    for _ in range(100):
        nested = [nested, nested]
    loaded = load_arrays(io.BytesIO(pickle.dumps(nested)))
    assert loaded[0] is loaded[1]


def test_a_pickle_that_is_cut_off_is_an_error():
    with pytest.raises(ValueError):
        load_arrays(io.BytesIO(pickle.dumps([1, 2, 3])[:-4]))
