# SPDX-License-Identifier: Apache-2.0
"""Say what is installed, what this machine has, what of it is known not to work, and try the basics."""

import argparse
import json
import os
import sys
import tempfile

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

EXAMPLES = """examples:
  python tools/doctor.py
  python tools/doctor.py --json          # for programs, and to send along with a question

Each line is "ok|warning|error  what: figure; what to do". Values of environment variables are not shown.

exit code: 0 when there is no error, 2 when there is one."""
NOT_FIT = 2


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    return parser.parse_args()


def paddle_build() -> str:
    """What the installed Paddle was made for."""
    import paddle

    if paddle.is_compiled_with_cuda():
        return f"{paddle.__version__}, GPU build, CUDA {paddle.version.cuda()}, cuDNN {paddle.version.cudnn()}"
    if paddle.is_compiled_with_rocm():
        return f"{paddle.__version__}, GPU build, ROCm"
    return f"{paddle.__version__}, CPU build"


def learn(device: str) -> str:
    """Multiply and differentiate on a device, in whole numbers whose answer is known."""
    import numpy as np
    import paddle

    paddle.set_device(device)
    left = np.arange(6, dtype="float32").reshape(2, 3)
    right = np.arange(12, dtype="float32").reshape(3, 4)
    weight = paddle.to_tensor(right, stop_gradient=False)
    product = paddle.to_tensor(left) @ weight
    product.sum().backward()
    # The sum's derivative by each weight of a row is the sum of that column of the other factor.
    expected = np.repeat(left.sum(0)[:, None], 4, axis=1)
    if not np.array_equal(product.numpy(), left @ right) or not np.array_equal(weight.grad.numpy(), expected):
        raise ArithmeticError("a product or its gradient is wrong")
    return "forward and backward are right"


def decode() -> str:
    """Decode an image that was encoded here."""
    import cv2
    import numpy as np

    from ppcls.data.transforms.decoding import decode_image

    image = np.random.default_rng(0).integers(0, 256, [8, 12, 3], dtype=np.uint8)
    _, encoded = cv2.imencode(".png", image[:, :, ::-1])
    if not np.array_equal(decode_image(encoded.tobytes()), image):
        raise ValueError("a PNG file does not come out as it went in")
    return "a PNG file comes out as it went in"


def save() -> str:
    """Save a directory as checkpoints are saved, where outputs go unless told otherwise."""
    from pathlib import Path

    from ppcls.utils.storage import published, verify

    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=".") as folder:
        final = Path(folder, "saved")
        with published(final, "doctor") as partial:
            (partial / "file").write_bytes(b"ppcls")
        verify(final)
    return "written, flushed, renamed and verified in the current directory"


def findings():
    """Everything, in the order in which it is shown; what is quick and needs nothing comes first."""
    from ppcls import __version__
    from ppcls.utils.doctor import check_devices, check_that, machine_findings
    from ppcls.utils.packages import ERROR, OK, Finding, installed_packages

    reinstall = "pip install -r requirements.txt"
    cache = None
    try:
        from ppcls.utils.download import cache_dir
        from ppcls.utils.environment import commit

        source, cache = commit(), cache_dir()
        yield Finding(OK, "ppcls", f"{__version__}{f', commit {source}' if source else ''}", value=__version__)
    except ImportError as error:
        yield Finding(ERROR, "ppcls", f"{__version__}, cannot be used ({error})", reinstall, __version__)
    yield from machine_findings(installed_packages(), cache)
    build = check_that("Paddle", paddle_build, reinstall)
    yield build
    if build.level != ERROR:
        import paddle

        from ppcls.utils.device import available_devices

        devices = available_devices()
        is_gpu_build = paddle.is_compiled_with_cuda() or paddle.is_compiled_with_rocm()
        yield check_devices(devices, is_gpu_build, os.path.exists("/proc/driver/nvidia/version"))
        for device in devices:
            yield check_that(f"computing on {device}", lambda device=device: learn(device), "reinstall Paddle")
    yield check_that("decoding an image", decode, reinstall)
    yield check_that("saving", save, "change to a directory that can be written")


def main() -> int:
    """Look at everything and say so; gives the exit code."""
    options = arguments()
    found = []
    for finding in findings():
        found.append(finding)
        if not options.json:
            print(finding, flush=True)
    code = NOT_FIT if any(finding.level == "error" for finding in found) else 0
    if options.json:
        print(json.dumps({"exit_code": code, "findings": [finding._asdict() for finding in found]}, indent=1))
    return code


if __name__ == "__main__":
    # Not by `ppcls.utils.cli.run`, which needs packages that may be what is missing.
    try:
        raise SystemExit(main())
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
