# SPDX-License-Identifier: Apache-2.0
"""Secrets in the environment and in addresses do not reach any file that a run writes, nor what it prints."""

import http.server
import shutil
import threading

import pytest
import toys

CANARY = "CANARY5f1e0c"


@pytest.fixture
def address(trained):
    """The address of the toy run's weights and data, with a password, a signature and a server behind it."""
    folder = trained.parent / "served"
    folder.mkdir()
    shutil.copy(trained / "output" / "best_model" / "model.safetensors", folder / "weights.safetensors")
    shutil.make_archive(str(folder / "data"), "zip", trained / "data")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield lambda name: f"http://me:{CANARY}@127.0.0.1:{server.server_port}/{name}?signature={CANARY}"
        server.shutdown()
        thread.join()
    shutil.rmtree(folder)


@pytest.mark.promise("F33")
def test_secrets_reach_no_file_of_a_run(tmp_path, trained, address, process, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "DB_PASSWORD"):
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("PPCLS_CACHE", str(tmp_path / "cache"))
    config = toys.write_yaml(tmp_path, trained / "data")
    (tmp_path / "toy.yaml").rename(tmp_path.parent / f"{tmp_path.name}.yaml")  # the one file that may have it
    config = tmp_path.parent / f"{tmp_path.name}.yaml"
    text = config.read_text().replace(f"image_root: {trained / 'data'}", f"image_root: '{address('data.zip')}'")
    config.write_text(text)
    weights = f"Global.pretrained_model={address('weights.safetensors')}"
    printed = []
    for tool, *arguments in (
        ("train", "-o", weights, "-o", "Global.epochs=1"),
        ("eval", "-o", weights),
        ("export_model", "-o", weights),
        ("infer", "-o", weights),
        ("check_config", "-o", weights, "--print"),
        ("eval", "-o", weights.replace("weights", "missing")),
    ):
        done = process(tool, "-c", config, *arguments)
        assert done.returncode == (5 if "missing" in arguments[1] else 0), done.stderr
        printed += [done.stdout, done.stderr]
    (tmp_path / "printed").write_text("".join(printed))
    done = process("plot_curves", tmp_path / "output", "-o", tmp_path / "curves.png")
    assert done.returncode == 0, done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"train.log", "eval.log", "config.yaml", "train.jsonl", "inference.yml"} <= {path.name for path in files}
    assert [str(path) for path in files if CANARY.encode() in path.read_bytes() or CANARY in path.name] == []
