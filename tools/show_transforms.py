# SPDX-License-Identifier: Apache-2.0
"""Draw what a recipe's training operations make of images, as a PNG.

Each row is one image: as it is stored, then as the model gets it in epoch 1, 2, ... with the run's seed, with
normalization undone for the eye. Where the recipe mixes the images of a batch (batch_transform_ops), rows below show
the images of this picture mixed with each other, and in which shares.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppcls.utils.cli import config_parser, run  # noqa: E402

EXAMPLES = """examples:
  python tools/show_transforms.py -c configs/quick_start/digits.yaml
  python tools/show_transforms.py -c configs/ImageNet/DenseNet/DenseNet121.yaml --images dog.jpg cat.jpg
  python tools/show_transforms.py -c configs/ImageNet/DenseNet/DenseNet121.yaml --images photos --num 6 \\
      -o DataLoader.Train.dataset.transform_ops.1.RandCropImage.scale=[0.5,1.0] --output grid.png

exit code: 0 done, 2 a file or arguments that cannot be used, 3 images that cannot be read, 5 the PNG cannot be
written"""
NUM_IMAGES = 4
NUM_EPOCHS = 6


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = config_parser(__doc__, EXAMPLES)
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="PLACE",
        help="image files, or folders of them; without this, the first images of DataLoader.Train",
    )
    parser.add_argument(
        "--num",
        type=int,
        help=f"how many images (default: all files that --images names, otherwise {NUM_IMAGES})",
    )
    parser.add_argument("--epochs", type=int, default=NUM_EPOCHS, help=f"how many epochs (default: {NUM_EPOCHS})")
    parser.add_argument("--output", type=Path, default=Path("transforms.png"), help="the PNG (default: transforms.png)")
    options = parser.parse_args()
    if options.epochs < 1 or (options.num is not None and options.num < 1):
        parser.error("--num and --epochs must be at least 1")
    if options.output.suffix.lower() != ".png":
        parser.error(f"--output must end in .png; got {options.output}")
    return options


def named_images(places: list[str], num: int | None) -> list:
    """The samples that ``--images`` names."""
    from ppcls.data.images import ENDINGS
    from ppcls.data.preview import Sample
    from ppcls.data.transforms.functional import read_file
    from ppcls.utils.errors import DataError

    paths = []
    for place in map(Path, places):
        inside = sorted(path for path in place.rglob("*") if path.suffix.lower() in ENDINGS) if place.is_dir() else []
        if place.is_dir() and not inside:
            raise DataError(f"--images: {place}: no images ({', '.join(ENDINGS)}) in it")
        paths += inside[: num or NUM_IMAGES] if place.is_dir() else [place]
    return [Sample(str(path), read_file(path)) for path in paths[:num]]


def first_images(dataset, num: int) -> list:
    """The first samples of a data set."""
    from ppcls.data.preview import Sample

    def name(index: int) -> str:
        place = dataset.path(index) if hasattr(dataset, "path") else dataset.where(index)
        label = int(dataset.labels[index])
        return f"{place}, class {dataset.class_names[label] if dataset.class_names else label}"

    return [Sample(name(index), dataset.read(index)[0]) for index in range(min(num, len(dataset)))]


def main() -> None:
    """Draw what the command line asks for."""
    options = arguments()
    # These register all that a file may name; they are slow to import, so --help is answered first.
    from ppcls import arch, data, engine, loss, metric, optimizer  # noqa: F401
    from ppcls.config import load_config
    from ppcls.data.pipeline import Pipeline
    from ppcls.utils.errors import ConfigError, StorageError

    config = load_config(options.config, options.override)
    if config.DataLoader.Train is None:
        raise ConfigError("DataLoader.Train: the section is missing; it says what is done to images")
    settings = config.DataLoader.Train.dataset
    calls = settings.source.kwargs.get("transform_ops") or []
    try:
        pipeline = Pipeline([call() for call in calls])
        if options.images:
            samples = named_images(options.images, options.num)
        else:
            samples = first_images(settings.source(), options.num or NUM_IMAGES)
    except ValueError as error:
        raise ConfigError(f"{settings.source.where}: DataLoader.Train.dataset: {error}") from error
    sheet = draw(config, samples, pipeline, options.epochs)
    try:
        sheet.save(options.output)
    except OSError as error:
        # A full disk does not say of which file it is.
        raise StorageError(f"{options.output}: cannot be written ({error.strerror or error})") from error
    print(options.output)


def draw(config, samples: list, pipeline, num_epochs: int):
    """The sheet with all rows."""
    from ppcls.config.resolved import short_text
    from ppcls.data.preview import original, transformed, viewable
    from ppcls.utils.grid import Grid

    settings, seed = config.DataLoader.Train.dataset, config.Global.seed
    made = [transformed(samples, pipeline, seed, epoch) for epoch in range(1, num_epochs + 1)]
    shown = [[viewable(image, pipeline) for image in images] for images in made]
    grid = Grid(num_epochs + 1, max(max(image.shape[:2]) for images in shown for image in images))
    grid.add_heads(["original", *(f"epoch {epoch}" for epoch in range(1, num_epochs + 1))])
    for index, sample in enumerate(samples):
        grid.add_row(f"{index + 1}  {sample.name}", [original(sample), *(images[index] for images in shown)])
    grid.add_text(f"transform_ops, with seed {seed}:")
    for call in settings.source.kwargs.get("transform_ops") or []:
        grid.add_text(short_text(call), indent=16)
    if settings.batch_transform_ops:
        add_mixed(grid, config, made, pipeline)
    return grid.drawn()


def add_mixed(grid, config, made: list, pipeline) -> None:
    """Rows of the images as a batch."""
    from ppcls.config.resolved import short_text
    from ppcls.data.preview import mixed, viewable
    from ppcls.engine.parts import argument_of
    from ppcls.utils.errors import ConfigError

    calls, num_images = config.DataLoader.Train.dataset.batch_transform_ops, len(made[0])
    class_num = argument_of(config.Arch.model, "class_num") or num_images
    try:
        ops = [call(class_num=class_num) for call in calls]
        batches = [mixed(images, ops, class_num, config.Global.seed, epoch) for epoch, images in enumerate(made, 1)]
    except ValueError as error:
        raise ConfigError(f"{calls[0].where}: batch_transform_ops: {error}; --num chooses how many images") from error
    grid.add_text("")
    for index in range(num_images):
        images = [viewable(batch[index], pipeline) for batch, _ in batches]
        grid.add_row(f"{index + 1}  in the batch", [None, *images], ["", *(texts[index] for _, texts in batches)])
    grid.add_text("batch_transform_ops:")
    for call in calls:
        grid.add_text(short_text(call), indent=16)


if __name__ == "__main__":
    run(main)
