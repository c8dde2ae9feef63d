# SPDX-License-Identifier: Apache-2.0
"""Pickles that want to run something, in every place where a file from elsewhere is read: none of them does."""

import builtins
import functools
import io
import operator
import os
import pickle
import subprocess
import zipfile

import numpy as np
import pytest
from hostile import Calls

from ppcls.arch.pretrained import read_weights
from ppcls.data import Cifar10
from ppcls.utils.errors import DataError, StorageError
from ppcls.utils.unpickle import load_arrays


def payloads(canary):
    """Thirty pickles that make the file ``canary`` when something reads them without care."""
    command, code = f"touch {canary}", f"open({str(canary)!r}, 'w')"
    text = command.encode()
    word = b"X" + len(text).to_bytes(4, "little") + text
    objects = {
        "os.system": Calls(os.system, command),
        "os.popen": Calls(os.popen, command),
        "os.mkdir": Calls(os.mkdir, str(canary)),
        "os.open": Calls(os.open, str(canary), os.O_CREAT),
        "subprocess.call": Calls(subprocess.call, ["touch", str(canary)]),
        "subprocess.Popen": Calls(subprocess.Popen, ["touch", str(canary)]),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "open": Calls(open, str(canary), "w"),
        "getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "partial": Calls(Calls(functools.partial, os.system, command)),
        "reduce": Calls(functools.reduce, os.system, [command]),
        "attrgetter": Calls(operator.attrgetter("system"), Calls(__import__, "os")),
        "methodcaller": Calls(operator.methodcaller("system", command), Calls(__import__, "os")),
        "map": Calls(list, Calls(map, os.system, [command])),
        "numpy.load": Calls(np.load, str(canary), None, True),
        "numpy.save": Calls(np.save, str(canary), np.ones(1)),
        "numpy.memmap": Calls(np.memmap, str(canary), "uint8", "w+", 0, 1),
        "numpy.vectorize": Calls(np.vectorize, os.system),
        "type": Calls(builtins.type, "X", (), {}),
        "pickle.loads": Calls(pickle.loads, pickle.dumps(Calls(os.system, command))),
        "zipfile": Calls(zipfile.ZipFile, str(canary), "w"),
        "list_in_list": [[Calls(os.system, command)]],
        "object_array": np.array([Calls(os.system, command), None], dtype=object),
    }
    found = {name: pickle.dumps({"data": value}, protocol=2) for name, value in objects.items()}
    found["whole"] = pickle.dumps(objects["os.system"])
    found["opcode_INST"] = b"(" + word + b"ios\nsystem\n."
    found["opcode_OBJ"] = b"(cos\nsystem\n" + word + b"o."
    found["opcode_NEWOBJ"] = b"\x80\x02csubprocess\nPopen\n" + word + b"\x85\x81."
    found["opcode_STACK_GLOBAL"] = b"\x80\x04\x8c\x02os\x8c\x06system\x93" + word + b"\x85R."
    found["state_of_a_class"] = (
        b"\x80\x02ccollections\nOrderedDict\n}X\x0b\x00\x00\x00__setitem__cos\nsystem\nsb" + word + b"\x85R."
    )
    assert len(found) == 30
    return found


def refused_weights(folder, content):
    (folder / "a.pdparams").write_bytes(content)
    with pytest.raises(StorageError, match=r"a\.pdparams: cannot be read"):
        read_weights(folder / "a.pdparams")


def refused_renamed_weights(folder, content):
    (folder / "a.safetensors").write_bytes(content)
    with pytest.raises(StorageError, match=r"a\.safetensors: cannot be read"):
        read_weights(folder / "a.safetensors")


def refused_pkl(folder, content):
    (folder / "a.pkl").write_bytes(content)
    with pytest.raises(StorageError, match="weights are read from files that end in"):
        read_weights(folder / "a.pkl")


def refused_cifar_batch(folder, content):
    (folder / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match="test_batch"):
        Cifar10(str(folder), "test")


def refused_cifar_names(folder, content):
    batch = {"data": np.zeros((1, 3072), np.uint8), "labels": [0]}
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    (folder / "batches.meta").write_bytes(content)
    with pytest.raises(DataError, match=r"batches\.meta"):
        Cifar10(str(folder), "test")


def refused_array_file(folder, content):
    """What the processes of an export hand to each other."""
    with pytest.raises(ValueError):
        np.load(io.BytesIO(content), allow_pickle=False)


PLACES = [
    refused_weights,
    refused_renamed_weights,
    refused_pkl,
    refused_cifar_batch,
    refused_cifar_names,
    refused_array_file,
]


@pytest.mark.promise("F30")
@pytest.mark.parametrize("refused", PLACES)
@pytest.mark.parametrize("name", payloads("x"))
def test_a_hostile_pickle_runs_nothing(tmp_path, name, refused):
    folder = tmp_path / "read"
    folder.mkdir()
    refused(folder, payloads(tmp_path / "canary")[name])
    assert not (tmp_path / "canary").exists()


def test_the_payloads_are_dangerous_to_others(tmp_path):
    canary = tmp_path / "canary"
    pickle.loads(payloads(canary)["os.system"])  # noqa: S301
    assert canary.exists()


def test_a_large_number_in_the_table_of_a_pickle_does_not_fill_the_memory():
    # The opcode LONG_BINPUT numbers the list 2**31 - 1; Python's faster reader makes a table of that length.
    content = b"\x80\x02]r\xff\xff\xff\x7fK\x01a."
    assert load_arrays(io.BytesIO(content)) == [1]
