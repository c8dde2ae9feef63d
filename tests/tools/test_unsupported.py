# SPDX-License-Identifier: Apache-2.0
"""A device or number format that is not there is refused in one line, before any data is looked for."""

import paddle
import pytest
import toys

from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.utils.cli import run
from ppcls.utils.device import available_devices

pytestmark = pytest.mark.promise("F23")


@pytest.fixture
def ends(tmp_path, capsys):
    """Run a verb on data that does not exist; gives the exit code and the last line of stderr."""

    def go(verb, *overrides):
        config = toys.write_yaml(tmp_path, tmp_path / "no_data")
        with pytest.raises(SystemExit) as ended:
            run(lambda: getattr(Engine(load_config(config, overrides)), verb)())
        told = capsys.readouterr().err
        assert "Traceback" not in told
        return ended.value.code, told.splitlines()[-1]

    return go


@pytest.mark.parametrize("verb", ["train", "eval"])
@pytest.mark.parametrize("device", ["gpu", "gpu:7", "xpu", "npu:1", "abacus", "cpu:1", ""])
def test_a_device(device, verb, ends):
    if device.partition(":")[0] in {name.partition(":")[0] for name in available_devices()} - {"cpu"}:
        pytest.skip(f"there is {device}")
    there = ", ".join(available_devices())
    told = f"Global.device: '{device}' is not on this machine; there is {there}"
    assert ends(verb, f"Global.device='{device}'") == (2, told)


@pytest.mark.parametrize("level", ["O1", "O2"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("verb", ["train", "eval"])
def test_a_small_type(verb, dtype, level, ends):
    if paddle.get_device() != "cpu":
        pytest.skip("there is an accelerator")
    code, line = ends(verb, f"AMP={{level: {level}, dtype: {dtype}, use_fp16_test: true}}")
    assert code == 2
    assert line.endswith(
        f"does not compute in {dtype} on cpu; write AMP.use_amp: false, or AMP.level: O0 for float32 with the same "
        "loss scaling"
    )


def test_without_them_the_missing_data_is_what_is_said(ends):
    assert ends("train")[0] == 3
