# SPDX-License-Identifier: Apache-2.0
"""Servers for the tests, each stopped at the end."""

import pytest


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A bundle whose answers follow from a formula."""
    for name in ("aiohttp", "prometheus_client", "onnx", "onnxruntime"):
        pytest.importorskip(name)
    import toy_bundle

    return toy_bundle.write_bundle(tmp_path_factory.mktemp("bundle") / "toy")


@pytest.fixture(scope="session")
def slow_bundle(bundle):
    """The same with much to compute, and the same answers."""
    import toy_bundle

    return toy_bundle.write_bundle(bundle.with_name("slow"), work=5)


@pytest.fixture(scope="session")
def model(bundle):
    """The bundle as servers share it that do nothing to it."""
    from ppcls.serve.model import ServedModel

    return ServedModel(bundle, "onnxruntime", "cpu", 1, 8)


@pytest.fixture
def start(bundle):
    """Start a server in a thread, with limits by name."""
    from served import ThreadedServer

    from ppcls.serve.limits import Limits

    started = []

    def begin(directory=bundle, token=None, reload_seconds=0.0, model=None, **limits):
        server = ThreadedServer(directory, Limits(**limits), token, reload_seconds, model)
        started.append(server)
        return server

    yield begin
    for server in started:
        if server.thread.is_alive():
            server.stop()


@pytest.fixture(scope="module")
def server(bundle, model):
    """One server for tests that leave it as it is."""
    from served import ThreadedServer

    from ppcls.serve.limits import Limits

    running = ThreadedServer(bundle, Limits(max_request_bytes=1 << 20, max_pixels=1_000_000, max_images=8), model=model)
    yield running
    running.stop()


@pytest.fixture
def process(bundle, tmp_path):
    """Start ``tools/serve.py``, with options."""
    from served import ServerProcess

    started = []

    def begin(*options, directory=bundle, is_read=True):
        started.append(ServerProcess(directory, *options, log=tmp_path / f"stderr{len(started)}", is_read=is_read))
        return started[-1]

    yield begin
    for each in started:
        each.end()
