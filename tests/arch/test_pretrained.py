# SPDX-License-Identifier: Apache-2.0
import builtins
import collections
import functools
import json
import logging
import operator
import os
import pickle
import subprocess
import sys

import numpy as np
import paddle
import pytest
from hostile import Calls
from safetensors.numpy import save_file

from ppcls.arch import pretrained
from ppcls.arch.pretrained import PRETRAINED_URLS, load_pretrained, load_weights, read_weights
from ppcls.config.registry import ARCHS
from ppcls.utils.errors import StorageError
from ppcls.utils.storage import published


class Small(paddle.nn.Layer):
    head = ("out",)

    def __init__(self, class_num=3):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 4, 3)
        self.norm = paddle.nn.BatchNorm2D(4)
        self.out = paddle.nn.Linear(4, class_num)


@pytest.fixture
def small(fill_rule):
    return fill_rule(Small())


def arrays(model):
    return {key: tensor.numpy().copy() for key, tensor in model.state_dict().items()}


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for key, array in expected.items():
        assert found[key].dtype == array.dtype, key
        assert np.array_equal(found[key], array), key


# Reading


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pdparams_of_a_state_dict(small, tmp_path, protocol):
    paddle.save(small.state_dict(), str(tmp_path / "a.pdparams"), protocol=protocol)
    assert_equal(read_weights(tmp_path / "a.pdparams"), arrays(small))


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pdparams_of_plain_tensors_and_arrays(tmp_path, protocol):
    stored = collections.OrderedDict(
        tensor=paddle.arange(6).reshape([2, 3]),
        bfloat16=paddle.to_tensor([1.0, -2.5]).astype("bfloat16"),
        half=paddle.to_tensor([1.0]).astype("float16"),
        scalar=np.array(3.5),
        fortran=np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        big_endian=np.arange(3, dtype=">i4"),
        empty=np.zeros((0, 4), "float32"),
        flags=np.array([True, False]),
    )
    paddle.save(stored, str(tmp_path / "a.pdparams"), protocol=protocol)
    weights = read_weights(tmp_path / "a.pdparams")
    assert_equal(
        weights,
        {
            "tensor": np.arange(6).reshape(2, 3),
            "bfloat16": np.array([0x3F80, 0xC020], "uint16"),
            "half": np.array([1.0], "float16"),
            "scalar": np.array(3.5),
            "fortran": np.arange(6.0).reshape(2, 3),
            "big_endian": np.arange(3, dtype="int32"),
            "empty": np.zeros((0, 4), "float32"),
            "flags": np.array([True, False]),
        },
    )


def test_pdparams_with_the_module_names_of_numpy_1(small, tmp_path):
    pickled = pickle.dumps(arrays(small), protocol=2)
    assert b"numpy._core.multiarray" in pickled or b"numpy.core.multiarray" in pickled
    path = tmp_path / "a.pdparams"
    path.write_bytes(pickled.replace(b"cnumpy._core.", b"cnumpy.core."))
    assert_equal(read_weights(path), arrays(small))


def test_pdparams_with_an_array_cut_into_slices(tmp_path):
    whole = np.arange(12, dtype="float32").reshape(3, 4)
    stored = {
        "a@@.0": whole.ravel()[:8],
        "a@@.1": whole.ravel()[8:],
        "UnpackBigParamInfor@@": {"a": {"OriginShape": (3, 4), "slices": ["a@@.0", "a@@.1"]}},
        "StructuredToParameterName@@": {"a": "linear_0.w_0"},
    }
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(stored, protocol=2))
    assert_equal(read_weights(tmp_path / "a.pdparams"), {"a": whole})


def test_path_without_ending_prefers_a_directory_then_safetensors(small, tmp_path):
    base = tmp_path / "MobileNetV1_x0.25"
    paddle.save({"from": np.array([0.0])}, f"{base}.pdparams")
    assert read_weights(base)["from"] == 0
    save_file({"from": np.array([1.0])}, f"{base}.safetensors")
    assert read_weights(base)["from"] == 1
    with published(base, "checkpoint") as directory:
        save_file({"from": np.array([2.0])}, directory / "model.safetensors")
    assert read_weights(str(base))["from"] == 2


def test_averaged_weights_of_a_checkpoint_are_preferred_and_named(tmp_path, caplog):
    with published(tmp_path / "best", "checkpoint") as directory:
        save_file({"a": np.array([1.0]), "b": np.array([1.0])}, directory / "model.safetensors")
        save_file({"a": np.array([2.0])}, directory / "ema.safetensors")
    with caplog.at_level(logging.INFO, "ppcls"):
        weights = read_weights(tmp_path / "best")
    assert {key: float(value[0]) for key, value in weights.items()} == {"a": 2, "b": 1}
    assert "averaged weights (EMA) are used" in caplog.text


def test_altered_checkpoint_is_refused(tmp_path):
    with published(tmp_path / "best", "checkpoint") as directory:
        save_file({"a": np.array([1.0])}, directory / "model.safetensors")
    path = tmp_path / "best" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match="model.safetensors: altered"):
        read_weights(tmp_path / "best")


def test_safetensors_with_bfloat16(tmp_path):
    header = b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + np.array([0x3F80, 0xC020], "<u2").tobytes())
    assert_equal(read_weights(path), {"a": np.array([0x3F80, 0xC020], "uint16")})


@pytest.mark.parametrize("ending", ["pdparams", "safetensors"])
@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.7, 0.999])
def test_truncated_file_is_refused_by_name(small, tmp_path, ending, share):
    path = tmp_path / f"a.{ending}"
    if ending == "pdparams":
        paddle.save(small.state_dict(), str(path))
    else:
        save_file(arrays(small), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(StorageError, match=f"a.{ending}: cannot be read"):
        read_weights(path)


@pytest.mark.parametrize("ending", ["pdparams", "safetensors"])
def test_garbage_is_refused_whatever_it_is(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    random = np.random.RandomState(0)
    for content in [b"<html>log in</html>", *(random.bytes(n) for n in range(1, 200))]:
        path.write_bytes(content)
        with pytest.raises(StorageError, match=f"a.{ending}: cannot be read"):
            read_weights(path)


def test_every_flipped_byte_is_read_or_refused(small, tmp_path):
    path = tmp_path / "a.pdparams"
    paddle.save({"out.weight": small.out.weight, "out.bias": small.out.bias}, str(path))
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :])
        try:
            assert all(isinstance(array, np.ndarray) for array in read_weights(path).values())
        except StorageError as error:
            assert "a.pdparams" in str(error) and "\n" not in str(error)


def test_missing_weights_say_what_was_looked_for(tmp_path):
    with pytest.raises(StorageError, match=r"x: no such weights .*a directory, x.safetensors, x.pdparams"):
        read_weights(tmp_path / "x")


def test_another_ending_is_refused(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"")
    with pytest.raises(StorageError, match=r"files that end in .safetensors or .pdparams"):
        read_weights(tmp_path / "x.pth")


@pytest.mark.parametrize(
    "stored", [[1], {"epoch": 3}, {1: np.ones(2)}, {"a": {"b": np.ones(2)}}, {"a": np.array([object()])}]
)
def test_pickle_without_weights_is_refused(tmp_path, stored):
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(stored, protocol=2))
    with pytest.raises(StorageError, match="a.pdparams: cannot be read"):
        read_weights(tmp_path / "a.pdparams")


# Pickles that want to run something


def hostile_objects(marker):
    command = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w')"
    return {
        "os.system": Calls(os.system, command),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "open": Calls(open, str(marker), "w"),
        "subprocess": Calls(subprocess.call, ["touch", str(marker)]),
        "getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "partial": Calls(Calls(functools.partial, os.system, command)),
        "attrgetter": Calls(Calls(operator.attrgetter, "system")),
        "paddle_dense_tensor": Calls(eval, "data", {"data": 1}),
        "numpy_load": Calls(np.load, str(marker), None, True),
        "numpy_save": Calls(np.save, str(marker), np.ones(1)),
        "numpy_fromfile": Calls(np.fromfile, __file__),
        "numpy_vectorize": Calls(np.vectorize, os.system),
        "map": Calls(list, Calls(map, os.system, [command])),
        "module": Calls(__import__, "this"),
        "nested_class": Calls(builtins.type, "X", (), {}),
        "layer": Calls(paddle.nn.Linear, 2, 2),
    }


@pytest.mark.parametrize("place", ["value", "key_of_a_table", "in_a_list", "in_an_object_array", "whole"])
@pytest.mark.parametrize("kind", list(hostile_objects("x")))
def test_hostile_pickle_runs_nothing(tmp_path, kind, place):
    marker = tmp_path / "marker"
    value = hostile_objects(marker)[kind]
    stored = {
        "value": {"out.weight": value},
        "key_of_a_table": {"StructuredToParameterName@@": {"a": value}},
        "in_a_list": {"out.weight": [np.ones(2), [value]]},
        "in_an_object_array": {"out.weight": np.array([value, None], dtype=object)},
        "whole": value,
    }[place]
    path = tmp_path / "a.pdparams"
    path.write_bytes(pickle.dumps(stored, protocol=2))
    with pytest.raises(StorageError, match=r"neither a plain container nor an array|not a number type"):
        read_weights(path)
    assert not marker.exists()


def assembled(*opcodes):
    return b"\x80\x02" + b"".join(opcodes) + b"."


@pytest.mark.parametrize(
    "content",
    [
        assembled(b"cposix\nsystem\n", b"(X\x02\x00\x00\x00id", b"tR"),
        assembled(b"(X\x02\x00\x00\x00idios\nsystem\n"),
        assembled(b"(cos\nsystem\nX\x02\x00\x00\x00ido"),
        assembled(b"c__builtin__\neval\n(X\x01\x00\x00\x001tR"),
        assembled(b"cnumpy\ntesting\n"),
        assembled(b"cnumpy\ndtype.__class__\n"),
        b"\x80\x04\x8c\x08builtins\x8c\x0etuple.__class__\x93.",
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile\x93.",
        b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__base__\x93.",
        assembled(b"\x82\x01"),
        assembled(b"X\x01\x00\x00\x00aQ"),
    ],
)
def test_other_ways_to_name_a_callable_are_refused(tmp_path, content):
    (tmp_path / "a.pdparams").write_bytes(content)
    with pytest.raises(StorageError, match="a.pdparams: cannot be read"):
        read_weights(tmp_path / "a.pdparams")


@pytest.mark.parametrize(
    "named",
    [b"numpy\nndarray", b"numpy\ndtype", b"numpy.core.multiarray\n_reconstruct", b"_codecs\nencode"]
    + [b"builtins\ntuple", b"builtins\nbytes", b"collections\nOrderedDict"],
)
def test_state_set_on_an_allowed_name_changes_nothing(small, tmp_path, named):
    state = b"(N}X\x0b\x00\x00\x00__setitem__K\x01sX\x07\x00\x00\x00__new__K\x01stb"
    (tmp_path / "a.pdparams").write_bytes(assembled(b"c" + named + b"\n", state))
    with pytest.raises(StorageError):
        read_weights(tmp_path / "a.pdparams")
    paddle.save(small.state_dict(), str(tmp_path / "b.pdparams"))
    assert_equal(read_weights(tmp_path / "b.pdparams"), arrays(small))


def test_codec_other_than_latin1_is_refused(tmp_path):
    content = assembled(b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR")
    (tmp_path / "a.pdparams").write_bytes(content)
    with pytest.raises(StorageError, match="codec 'rot13'"):
        read_weights(tmp_path / "a.pdparams")


def test_array_with_less_data_than_its_shape_is_refused(tmp_path):
    pickled = pickle.dumps({"a": np.zeros((2, 3), "float32")}, protocol=2)
    (tmp_path / "a.pdparams").write_bytes(pickled.replace(b"K\x02K\x03\x86", b"K\x02K\x09\x86"))
    with pytest.raises(StorageError, match=r"shape \[2, 9\] with data for 6 values"):
        read_weights(tmp_path / "a.pdparams")


def test_refusal_names_what_the_file_asks_for(tmp_path):
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps({"a": Calls(eval, "1")}, protocol=4))
    with pytest.raises(StorageError, match=r"a.pdparams: .*asks for builtins.eval, which is neither a plain container"):
        read_weights(tmp_path / "a.pdparams")


# Loading


def test_everything_matches(small):
    weights = arrays(small)
    model = Small()
    report = load_weights(model, weights, "x.pdparams")
    assert str(report) == "x.pdparams: 8 matched, 0 missing, 0 unexpected, 0 of another shape"
    assert_equal(arrays(model), weights)


def test_classifier_of_another_size_stays_as_it_is_and_is_reported(small):
    model = Small(class_num=7)
    before = arrays(model)
    report = load_weights(model, arrays(small), "weights/x.pdparams")
    assert str(report) == (
        "weights/x.pdparams: 6 matched, 0 missing, 0 unexpected, 2 of another shape"
        " (out.weight [4, 3] in the file, [4, 7] in the model; out.bias [3] in the file, [7] in the model)"
    )
    expected = {**arrays(small), "out.weight": before["out.weight"], "out.bias": before["out.bias"]}
    assert_equal(arrays(model), expected)


def changed(weights, drop=(), add=()):
    return {**{key: value for key, value in weights.items() if key not in drop}, **dict.fromkeys(add, np.ones(2))}


@pytest.mark.parametrize(
    ("drop", "add", "text"),
    [
        (["conv.bias"], [], r"7 matched, 1 missing \(conv.bias\), 0 unexpected"),
        ([], ["outer.weight"], r"8 matched, 0 missing, 1 unexpected \(outer.weight\)"),
        ([], ["a", "b", "c", "d", "e"], r"5 unexpected \(a, b, c, and 2 more\)"),
        (["conv.weight"], ["conv.w"], r"1 missing \(conv.weight\), 1 unexpected \(conv.w\)"),
    ],
)
def test_mismatch_beyond_the_head_is_refused_and_changes_nothing(small, drop, add, text):
    model = Small()
    before = arrays(model)
    with pytest.raises(StorageError, match=text + r".*only the classifier head \(out\) may differ") as caught:
        load_weights(model, changed(arrays(small), drop, add), "x")
    assert "\n" not in str(caught.value)
    assert_equal(arrays(model), before)


def test_another_shape_beyond_the_head_is_refused(small):
    weights = {**arrays(small), "conv.weight": np.ones((4, 3, 5, 5), "float32")}
    with pytest.raises(StorageError, match=r"conv.weight \[4, 3, 5, 5\] in the file, \[4, 3, 3, 3\] in the model"):
        load_weights(Small(), weights, "x")


def test_allow_none_refuses_another_head(small):
    with pytest.raises(StorageError, match="every name has to match"):
        load_weights(Small(class_num=7), arrays(small), "x", allow="none")


def test_allow_all_takes_what_matches(small):
    model = Small()
    report = load_weights(model, changed(arrays(small), ["conv.bias"], ["other"]), "x", allow="all")
    assert (report.num_matched, report.missing, report.unexpected) == (7, ("conv.bias",), ("other",))
    assert np.array_equal(model.conv.weight.numpy(), small.conv.weight.numpy())


@pytest.mark.parametrize("allow", ["head", "all", "none"])
def test_nothing_matched_is_always_refused(allow):
    with pytest.raises(StorageError, match="0 matched.*is this a checkpoint of another architecture"):
        load_weights(Small(), {"a": np.ones(2)}, "x", allow=allow)


def test_types_are_converted_to_those_of_the_model(small):
    weights = {key: array.astype("float64") for key, array in arrays(small).items()}
    model = Small()
    load_weights(model, weights, "x")
    assert_equal(arrays(model), arrays(small))


def test_bfloat16_bits_fill_float32_and_bfloat16_parameters():
    bits = np.array([0x3F80, 0xC020, 0x0001], "uint16")
    for dtype in ("float32", "bfloat16"):
        model = paddle.nn.Layer()
        model.add_parameter("bias", model.create_parameter([3], dtype=dtype))
        load_weights(model, {"bias": bits}, "x")
        assert model.bias.dtype == getattr(paddle, dtype)
        expected = (bits.astype("uint32") << 16).view("float32")
        assert np.array_equal(model.bias.astype("float32").numpy(), expected)


def test_types_that_lose_meaning_are_refused(small):
    model = paddle.nn.Layer()
    model.register_buffer("index", paddle.arange(3))
    with pytest.raises(StorageError, match="x: index is float32 in the file, int64 in the model"):
        load_weights(model, {"index": np.ones(3, "float32")}, "x")


# Arch.pretrained


def test_densenet121_from_a_pdparams_file_is_exact(tmp_path, fill_rule, filled_value):
    path = tmp_path / "DenseNet121_pretrained.pdparams"
    source = fill_rule(ARCHS["DenseNet121"](class_num=10))
    paddle.save(source.state_dict(), str(path))
    for place in (path, path.with_suffix("")):
        model = ARCHS["DenseNet121"](class_num=10, pretrained=str(place))
        assert_equal(arrays(model), {key: filled_value(key, t.shape) for key, t in model.state_dict().items()})


def test_other_number_of_classes_is_logged_in_one_line(tmp_path, small, caplog):
    paddle.save(small.state_dict(), str(tmp_path / "a.pdparams"))
    with caplog.at_level(logging.INFO, "ppcls"):
        load_pretrained(Small(class_num=5), "Small", str(tmp_path / "a.pdparams"))
    (message,) = caplog.messages
    assert message.startswith(
        f"{tmp_path}/a.pdparams: 6 matched, 0 missing, 0 unexpected, 2 of another shape (out.weight"
    )


def test_published_weights_come_from_the_table(tmp_path, small, monkeypatch):
    paddle.save(small.state_dict(), str(tmp_path / "a.pdparams"))
    asked = []
    monkeypatch.setattr(pretrained, "local_path", lambda url: asked.append(url) or tmp_path / "a.pdparams")
    model = load_pretrained(Small(), "DenseNet169", True)
    assert asked == ["https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/DenseNet169_pretrained.pdparams"]
    assert_equal(arrays(model), arrays(small))


def test_table_equals_the_published_one(reference):
    urls = json.loads((reference / "pretrained_urls.json").read_text())["urls"]
    assert {name: urls[name] for name in PRETRAINED_URLS} == PRETRAINED_URLS
    assert set(PRETRAINED_URLS) == {name for name in urls if name.startswith("DenseNet")}


def test_unpublished_weights_are_refused():
    with pytest.raises(ValueError, match="no published weights for Small; give Arch.pretrained a path"):
        load_pretrained(Small(), "Small", True)
    with pytest.raises(ValueError, match="no published SSLD weights for DenseNet121"):
        load_pretrained(Small(), "DenseNet121", True, use_ssld=True)


def test_ssld_without_published_weights_is_said_to_have_no_effect(caplog):
    load_pretrained(Small(), "Small", False, use_ssld=True)
    assert "use_ssld" in caplog.text and "no effect" in caplog.text


def test_not_pretrained_changes_nothing():
    model = Small()
    before = arrays(model)
    assert load_pretrained(model, "Small", False) is model
    assert_equal(arrays(model), before)


def test_reading_weights_does_not_import_what_a_file_names(tmp_path):
    (tmp_path / "a.pdparams").write_bytes(assembled(b"cturtledemo.clock\nmain\n"))
    with pytest.raises(StorageError, match="turtledemo.clock.main"):
        read_weights(tmp_path / "a.pdparams")
    assert "turtledemo" not in sys.modules
