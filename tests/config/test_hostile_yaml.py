# SPDX-License-Identifier: Apache-2.0
"""Malicious and odd files: refused with file and line, at once, or read just as `yaml.safe_load` reads them."""

import os
import subprocess
import sys
import time

import pytest
import yaml

from ppcls import arch, loss, metric, optimizer  # noqa: F401
from ppcls.config import load_config
from ppcls.config.load import REPOSITORY
from ppcls.config.node import load_tree
from ppcls.data import all as data  # noqa: F401
from ppcls.utils.errors import ConfigError

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
RUN = "Global: {epochs: 1}\nArch: {name: DenseNet121}\nLoss:\n  Train:\n"
SCALE = "Infer:\n  PostProcess: Topk\n  transforms:\n    - NormalizeImage:\n        scale: "

# Each: the text, and a part of the message; {c} is a file that appears if something of the text is executed.
REFUSED = {
    "python_object_apply": ("a: 1\nb: !!python/object/apply:os.system ['touch {c}']\n", "x.yaml:2: not valid YAML"),
    "python_object_new": ("b: !!python/object/new:os.system ['touch {c}']\n", "x.yaml:1: not valid YAML"),
    "python_name": ("b: !!python/name:os.system\n", "x.yaml:1: not valid YAML"),
    "python_module": ("b: !!python/module:antigravity\n", "x.yaml:1: not valid YAML"),
    "python_tuple": ("b: !!python/tuple [1, 2]\n", "x.yaml:1: not valid YAML"),
    "python_object_mapping": ("b: !!python/object:os._Environ {data: 1}\n", "x.yaml:1: not valid YAML"),
    "unknown_tag": ("a: 1\nb: !mine 3\n", "x.yaml:2: not valid YAML"),
    "binary": ("b: !!binary aGk=\n", "x.yaml:1: not valid YAML"),
    "set": ("b: !!set {a, b}\n", "x.yaml:1: not valid YAML"),
    "scalar_called_mapping": ("b: !!map text\n", "x.yaml:1: not valid YAML"),
    "key_with_tag": ("!!python/name:os.system : 1\n", "x.yaml:1: not valid YAML"),
    "expression_as_scale": (RUN + "    - CELoss:\n" + SCALE + "__import__('os').system('touch {c}')\n", "x.yaml:10: "),
    "expression_as_section": ("__import__('os').system('touch {c}'):\n  a: 1\n", "there is no section"),
    "class_name_os_system": ("Global: {}\nArch: {name: os.system}\n", "x.yaml:2: Arch: unknown architecture"),
    "class_name_dunder": ("Global: {}\nArch: {name: __class__}\n", "x.yaml:2: Arch: unknown architecture"),
    "billion_laughs": (LAUGHS, "more than 100000 values"),
    "self_containing_list": ("b: 1\na: &a [*a]\n", "x.yaml:2: nested too deeply"),
    "self_containing_mapping": ("a: &a\n  b: *a\n", "x.yaml:1: nested too deeply"),
    "two_megabytes": ("# " + "x" * (2 << 20), "x.yaml: larger than"),
    "million_values": ("a: [" + "a," * 500_000 + "]", "more than 100000 values"),
    "depth_10000_flow": ("a: " + "[" * 10_000 + "]" * 10_000, "nested too deeply"),
    "depth_10000_mapping": ("a: " + "{a: " * 10_000 + "1" + "}" * 10_000, "nested too deeply"),
    "depth_100_block": ("".join(" " * n + "a:\n" for n in range(100)), "x.yaml:52: nested too deeply"),
    "million_digits": ("a: " + "9" * 1_000_000, "x.yaml:1: not valid YAML"),
    "sexagesimal_bomb": ("a: 1" + ":1" * 400_000, "x.yaml:1: not valid YAML"),
    "zero_byte": ("a: 1\nb: \0\n", "x.yaml:2: not valid YAML: the character #x0000"),
    "escape_character": ("a: \x1b[2J\n", "x.yaml:1: not valid YAML: the character #x001b"),
    "not_utf8": (b"a: \xff\xfe\n", "x.yaml: not UTF-8 text"),
    "utf16": ("a: 1\n".encode("utf-16"), "x.yaml: not UTF-8 text"),
    "tab_as_indent": ("a:\n\tb: 1\n", "x.yaml:2: not valid YAML"),
    "unclosed_quote": ("a: 'b\nc: 1\n", "not valid YAML"),
    "unclosed_bracket": ("a: [1\nb: 2\n", "x.yaml:2: not valid YAML"),
    "undefined_alias": ("a: 1\nb: *gone\n", "x.yaml:2: not valid YAML"),
    "impossible_date": ("a: 1\nb: 2001-13-45\n", "x.yaml:2: not valid YAML"),
    "duplicate_key": ("a: 1\nb: 2\na: 3\n", "x.yaml:3: 'a' stands here and at x.yaml:1"),
    "merge_key": ("a: &a {b: 1}\nc: {<<: *a}\n", "x.yaml:2: '<<' is not supported"),
    "two_documents": ("a: 1\n---\nb: 2\n", "x.yaml:2: not valid YAML: expected a single document"),
    "list_at_top": ("- a\n", "x.yaml:1: expected sections such as 'Global:' and 'Arch:', found a list"),
    "text_at_top": ("hello\n", "x.yaml:1: expected sections such as 'Global:' and 'Arch:', found the text 'hello'"),
    "list_as_key": ("? [a, b]\n: 1\n", "x.yaml:1: a key must be a word, found a list"),
    "mapping_as_key": ("{a: 1}: 2\n", "x.yaml:1: a key must be a word, found a mapping"),
    "null_as_key": ("~: 1\n", "x.yaml:1: a key must be a word, found nothing"),
    "empty": ("", "the section 'Global' is missing"),
    "image_file": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "x.yaml: not UTF-8 text"),
}


@pytest.mark.promise("F29")
@pytest.mark.parametrize("named_in", ["x.yaml", "base"])
@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_file_is_refused_soon_and_nothing_in_it_runs(write, tmp_path, case, named_in):
    text, expected = REFUSED[case]
    canary = tmp_path / "canary"
    name = write(text if isinstance(text, bytes) else text.replace("{c}", str(canary)).encode())
    if named_in == "base":
        name = write("_base_: x.yaml\n", "harmless.yaml")
    started = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_config(name)
    # What grows without bounds takes hours; this is seconds even on a machine that is busy with other things.
    assert time.process_time() - started < 30
    # A base file that cannot even be opened is named where it is asked for.
    assert all(problem.startswith(("x.yaml:", "harmless.yaml:")) for problem in caught.value.problems)
    assert expected in caught.value.problems[0]
    assert not canary.exists()
    assert len(str(caught.value)) < 2000


READ = {
    "byte_order_mark": b"\xef\xbb\xbfa: 1\n",
    "windows_line_ends": b"a: 1\r\nb:\r\n  - x\r\n",
    "dates": b"a: 2001-01-01\n",
    "sexagesimal": b"a: 1:30\nb: 190:20:30.15\n",
    "words_for_booleans": b"a: [yes, No, on, OFF, y, n]\n",
    "odd_numbers": b"a: [.inf, -.inf, 0x1F, 0b11, 1_000, 017, 1e3, 1.e+3]\n",
    "a_document_start_and_end": b"%YAML 1.1\n---\na: 1\n...\n",
    "expression": b"a: __import__('os').getcwd()\n",
    "anchors": b"a: &x [1, {b: 2}]\nc: *x\n",
    "block_text": b"a: |\n  one\n  two\nb: >\n  three\n  four\n",
    "chinese": "a: \u6570\u636e\u96c6\n".encode(),
    "explicit_types": b"a: !!str 1\nb: !!float 1\nc: !!int '3'\n",
    "no_line_end": b"a: 1",
}


@pytest.mark.parametrize("case", READ)
def test_an_odd_but_legal_file_is_read_as_safe_load_reads_it(write, case):
    assert load_tree(write(READ[case])).plain() == yaml.safe_load(READ[case])


def test_a_folder_in_place_of_a_file_is_refused(write, tmp_path):
    write("a: 1")
    with pytest.raises(ConfigError, match="this is a folder"):
        load_config(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_and_not_waited_for(write, tmp_path):
    write("a: 1")
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="there is no such file"):
        load_config("pipe.yaml")


def test_a_path_that_no_file_can_have_is_refused():
    with pytest.raises(ConfigError, match="there is no such file"):
        load_config("x" * 5000)


# Values of `-o Arch=`, refused when they are read or when they are checked.
VALUES = {
    "python_object_apply": "!!python/object/apply:os.system ['touch {c}']",
    "python_object_new": "!!python/object/new:os.system ['touch {c}']",
    "python_name": "!!python/name:os.system",
    "python_module": "!!python/module:antigravity",
    "python_object_within": "{name: DenseNet121, class_num: !!python/object/apply:os.system ['touch {c}']}",
    "unknown_tag": "!mine 3",
    "expression": "__import__('os').system('touch {c}')",
    "expression_as_number": "{name: DenseNet121, class_num: __import__('os').system('touch {c}')}",
    "class_name_os_system": "{name: os.system, command: 'touch {c}'}",
    "class_name_builtin": "{name: exec, source: 'open({c}, 1)'}",
    "laughs": f"[{', '.join(line.partition(': ')[2] for line in LAUGHS.splitlines())}]",
    "self_containing": "&a [*a]",
    "depth_10000": "[" * 10_000 + "]" * 10_000,
    "million_digits": "9" * 1_000_000,
    "duplicate_key": "{name: DenseNet121, name: DenseNet161}",
    "merge_key": "{<<: {name: DenseNet121}}",
    "two_documents": "a\n---\nb",
}


@pytest.mark.promise("F29")
@pytest.mark.parametrize("case", VALUES)
def test_an_override_is_as_safe_as_a_file(write, tmp_path, case):
    name = write("Global: {}\nArch: {name: DenseNet121}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(name, ["Arch=" + VALUES[case].replace("{c}", f"{tmp_path}/canary")])
    assert all(problem.startswith("-o Arch=") for problem in caught.value.problems)
    assert not (tmp_path / "canary").exists()


@pytest.mark.promise("F29")
def test_files_that_name_others_ten_times_are_refused(write):
    for index in range(10):
        write(f"_base_: [{', '.join([f'{index + 1}.yaml'] * 10)}]\n", f"{index}.yaml")
    write("Global: {}\n", "10.yaml")
    with pytest.raises(ConfigError, match=r"^9\.yaml:1: _base_: 10\.yaml: more than 100 files"):
        load_config("0.yaml")


MEASURED = """
import resource, sys
from ppcls.config import load_config
from ppcls.config.load import REPOSITORY
from ppcls.utils.errors import ConfigError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[1:]:
    try:
        load_config(name)
    except ConfigError:
        continue
    sys.exit(name)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.promise("F29")
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system counts in other units")
def test_files_made_to_fill_the_memory_do_not(write, tmp_path):
    cases = {name: REFUSED[name][0] for name in REFUSED if name.startswith(("billion", "million"))}
    cases["lists"] = "a: [" + "[]," * 300_000 + "]"
    for name, text in cases.items():
        write(text.encode(), name)
    with open(tmp_path / "50_megabytes", "wb") as file:
        file.truncate(50 << 20)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *cases, "50_megabytes"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200e6
