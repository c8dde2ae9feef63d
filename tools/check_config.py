# SPDX-License-Identifier: Apache-2.0
"""Check a YAML file without running it, or show all that it means."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppcls.utils.cli import config_parser, run  # noqa: E402

EXAMPLES = """examples:
  python tools/check_config.py -c configs/ImageNet/DenseNet/DenseNet121.yaml
  python tools/check_config.py -c configs/ImageNet/DenseNet/DenseNet121.yaml -o Global.epochs=3 --print

exit code: 0 when the file can be used, 2 when not; every mistake is one line on stderr with its file and line."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = config_parser(__doc__, EXAMPLES)
    parser.add_argument(
        "--print",
        action="store_true",
        help="show the whole file with every default filled in, where each value comes from, and where operations run",
    )
    return parser.parse_args()


def missing_files(config) -> Iterator[str]:
    """The lists and folders of images that are not on this machine: the file may be meant for another."""
    for name, settings in (("Train", config.DataLoader.Train), ("Eval", config.DataLoader.Eval)):
        for key in ("cls_label_path", "image_root", "data_file"):
            given = settings.dataset.source.kwargs.get(key) if settings else None
            for path in [given] if isinstance(given, str) else given or ():
                # What lies elsewhere, "://", or in an archive, "!/", is fetched when it is needed.
                if "://" not in path and not Path(path.partition("!/")[0]).exists():
                    where = settings.dataset.source.origins[key]
                    yield f"{where}: DataLoader.{name}.dataset.{key}: there is no {path} here"


def places(config) -> Iterator[str]:
    """Where the operations on images run, as comments behind the file."""
    from ppcls.data.pipeline import Pipeline
    from ppcls.engine.blame import blamed_on

    for name, settings in (("Train", config.DataLoader.Train), ("Eval", config.DataLoader.Eval)):
        if settings is None:
            continue
        source = settings.dataset.source
        with blamed_on(source, f"DataLoader.{name}.dataset"):
            pipeline = Pipeline([call() for call in source.kwargs.get("transform_ops") or ()])
        finishing = pipeline.finish().ops
        here = pipeline.ops[: len(pipeline.ops) - len(finishing)]
        batch_ops = [call.name for call in settings.dataset.batch_transform_ops or ()]
        yield f"# DataLoader.{name}: where each operation runs"
        yield f"#   in the workers, each image:    {_names(here)}"
        yield f"#   on the device, whole batches:  {_names([*finishing, *batch_ops])}"


def _names(ops) -> str:
    return ", ".join(op if isinstance(op, str) else type(op).__name__ for op in ops) or "nothing"


def main() -> None:
    """Check the file that the command line names."""
    options = arguments()
    # These register all that a file may name; they are slow to import, so --help is answered first.
    from ppcls import arch, data, engine, loss, metric, optimizer  # noqa: F401
    from ppcls.config import load_config
    from ppcls.config.resolved import resolved_text

    config = load_config(options.config, options.override)
    for warning in (*config.warnings, *missing_files(config)):
        print(f"warning: {warning}", file=sys.stderr)
    if options.print:
        print(resolved_text(config.call, origins=True).rstrip("\n"), *places(config), sep="\n")
    else:
        print(f"{options.config}: ok")


if __name__ == "__main__":
    run(main)
