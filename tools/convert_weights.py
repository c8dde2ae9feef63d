# SPDX-License-Identifier: Apache-2.0
"""Rewrite weights of another framework, or of PaddleClas, as a file that Global.pretrained_model takes."""

import argparse
import os
import sys

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

from ppcls.utils.cli import run  # noqa: E402

EXAMPLES = """examples:
  python tools/convert_weights.py --arch EfficientNetLite0 efficientnet_lite0.safetensors lite0.safetensors
  python tools/convert_weights.py --arch DenseNet121 --class_num 10 torchvision_densenet121.safetensors d121.safetensors
  python tools/convert_weights.py --arch DenseNet121 DenseNet121_pretrained.pdparams d121.safetensors

A PyTorch checkpoint (.pth, .pt, .bin) is a program as well as data and is not read; where PyTorch is installed and the
file is trusted, safetensors.torch.save_file(torch.load(FILE, weights_only=True), "weights.safetensors") rewrites it.

exit code: 0 done, 2 arguments that do not fit together, 5 weights that cannot be read or that are of another model."""
ENDING = ".safetensors"
PICKLES = (".pth", ".pt", ".bin", ".tar", ".ckpt", ".pkl")


def main() -> None:
    """Read the command line, then convert."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", required=True, metavar="NAME", help="the architecture; tools/list.py has their names")
    parser.add_argument("--class_num", type=int, metavar="N", help="classes that the weights tell apart, if unusual")
    parser.add_argument(
        "source", metavar="SOURCE", help="a .safetensors or .pdparams file, with any of the known names"
    )
    parser.add_argument("target", metavar="TARGET", help="the .safetensors file to write; it must not exist yet")
    arguments = parser.parse_args()
    if arguments.class_num is not None and arguments.class_num < 1:
        parser.error(f"--class_num: at least 1; got {arguments.class_num}")
    if not arguments.target.endswith(ENDING):
        parser.error(f"{arguments.target}: weights are written as {ENDING}; give it that ending")
    if arguments.source.endswith(PICKLES):
        parser.error(
            f"{arguments.source}: a PyTorch checkpoint can run code when read; rewrite it as {ENDING} (see --help)"
        )
    if os.path.lexists(arguments.target):
        parser.error(f"{arguments.target}: is there already; choose another name, or remove it")
    convert(arguments.arch, arguments.class_num, arguments.source, arguments.target)


def convert(arch: str, class_num, source: str, target: str) -> None:
    """Read ``source`` into the architecture and write its state dict to ``target``."""
    # Slow to import, so --help and mistakes on the command line are answered first.
    from safetensors.numpy import save

    import ppcls.arch  # noqa: F401  (registers the architectures)
    from ppcls.arch.convert import count_parameters, load_foreign, state_arrays
    from ppcls.arch.pretrained import read_weights
    from ppcls.config.problem import suggestion
    from ppcls.config.registry import ARCHS
    from ppcls.utils.errors import ConfigError
    from ppcls.utils.storage import write_bytes

    if arch not in ARCHS:
        raise ConfigError(f"--arch: there is no architecture '{arch}'{suggestion(arch, ARCHS)}")
    weights = read_weights(source)
    model = ARCHS[arch]() if class_num is None else ARCHS[arch](class_num=class_num)
    report = load_foreign(model, weights, source)
    write_bytes(target, save(state_arrays(model)))
    print(f"{target}: {arch}, {report.num_matched} arrays, {count_parameters(model):,} parameters")


if __name__ == "__main__":
    run(main)
