# SPDX-License-Identifier: Apache-2.0
"""Put a whole data set into one file, for `PackedDataset`; check such a file, or take it apart again.

A run that was killed, or that filled the disk, goes on where it stopped when the same command is given again.
"""

import argparse
import os
import sys

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

from tqdm import tqdm  # noqa: E402

from ppcls.utils.cli import run  # noqa: E402

EXAMPLES = """examples:
  python tools/pack_dataset.py --image_root dataset/ILSVRC2012 --cls_label_path dataset/ILSVRC2012/train_list.txt \\
      --resize_short 288 -o train.pack
  python tools/pack_dataset.py --image_root dataset/my_images/train -o train.pack     # one folder for each class
  python tools/pack_dataset.py --image_root data.zip!/train -o train.pack
  python tools/pack_dataset.py --verify train.pack
  python tools/pack_dataset.py --unpack train.pack folder

exit code: 0 done, 2 arguments that do not fit together or an earlier run, 3 bad images or a damaged pack, 5 the disk
is full or refuses."""
SHOWN_SKIPPED = 20


def main() -> None:
    """Read the command line and pack, verify or unpack."""
    arguments = parse()
    if arguments.verify:
        verify(arguments.verify)
    elif arguments.unpack:
        unpack(*arguments.unpack)
    else:
        pack(arguments)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb = parser.add_mutually_exclusive_group(required=True)
    verb.add_argument("-o", "--output", metavar="PACK", help="pack into this file")
    verb.add_argument("--verify", metavar="PACK", help="compare every image with its sha256")
    verb.add_argument(
        "--unpack", nargs=2, metavar=("PACK", "DIR"), help="write the images and list.txt into a new or empty folder"
    )
    source = parser.add_argument_group("what is packed")
    source.add_argument("--image_root", help="folder of the images: a path or URL, also of or in an archive")
    source.add_argument(
        "--cls_label_path", nargs="+", help="list files of paths and labels; without one, each folder is a class"
    )
    source.add_argument("--delimiter", help="what stands between path and label (default: white space)")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--resize_short",
        type=number(1),
        metavar="PIXELS",
        help="shrink images whose shorter side is longer, and store those as JPEG; all others, and without this all, "
        "are stored byte by byte",
    )
    how.add_argument("--quality", type=number(1, 100), help="of these JPEGs (default: 90)")
    how.add_argument("--num_workers", type=number(0), help="processes that encode (default: one for each core)")
    how.add_argument(
        "--on_bad", choices=("error", "skip"), default="error", help="images that cannot be decoded (default: error)"
    )
    arguments = parser.parse_args()
    named = [place for place in (arguments.output, arguments.verify, *(arguments.unpack or ())) if place is not None]
    if "" in named:
        parser.error("-o, --verify and --unpack: an empty name")
    for place in named:
        if "://" in place:
            parser.error(f"{place}: packs are written and read on a disk of this machine; give a path")
    if arguments.delimiter == "":
        parser.error("--delimiter: an empty text; leave it out for white space")
    if arguments.output and not arguments.image_root:
        parser.error("-o needs --image_root, the folder that is packed")
    if not arguments.output and (arguments.image_root or arguments.cls_label_path or arguments.resize_short):
        parser.error("--verify and --unpack take nothing else")
    if arguments.quality and not arguments.resize_short:
        parser.error("--quality is that of images that are shrunk; add --resize_short")
    return arguments


def number(least: int, most: int = sys.maxsize):
    """A type for whole numbers within limits."""

    def whole_number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is outside {least}..{'' if most == sys.maxsize else most}")
        return value

    return whole_number


def pack(arguments: argparse.Namespace) -> None:
    """Pack what the command line names."""
    from ppcls.data import ImageFolder, ImageNetDataset
    from ppcls.data.pack import Pack
    from ppcls.data.pack_encoder import Shrinking
    from ppcls.data.pack_writer import write_pack
    from ppcls.utils.machine import usable_cores

    if arguments.cls_label_path:
        source = ImageNetDataset(arguments.image_root, arguments.cls_label_path, delimiter=arguments.delimiter)
    else:
        source = ImageFolder(arguments.image_root)
    num_workers = usable_cores() if arguments.num_workers is None else arguments.num_workers
    steps = write_pack(
        source,
        source.image_root,
        arguments.output,
        Shrinking(arguments.resize_short, arguments.quality or 90),
        num_workers,
        arguments.on_bad,
    )
    with bar("pack", len(source)) as progress:
        done = next(steps)
        if 0 < done < len(source):
            print(f"{arguments.output}: going on behind the first {done} of {len(source)} images", file=sys.stderr)
        progress.initial = progress.n = done
        for done in steps:
            progress.update(done - progress.n)
    packed = Pack(arguments.output)
    for problem in packed.skipped[:SHOWN_SKIPPED]:
        print(f"left out: {problem}", file=sys.stderr)
    if len(packed.skipped) > SHOWN_SKIPPED:
        print(f"and {len(packed.skipped) - SHOWN_SKIPPED} more; --verify shows all", file=sys.stderr)
    print(described(arguments.output, packed))


def verify(path: str) -> None:
    """Compare everything in a pack with its digests."""
    from ppcls.data.pack import Pack
    from ppcls.utils.errors import DataError

    packed = Pack(path)
    for problem in packed.skipped:
        print(f"left out: {problem}", file=sys.stderr)
    num_bad = 0
    with bar("verify", len(packed)) as progress:
        for _, problem in packed.damaged():
            progress.update()
            if problem:
                num_bad += 1
                progress.write(problem, sys.stderr)
    if num_bad:
        raise DataError(f"{path}: {num_bad} of {len(packed)} images are damaged; get or pack it again")
    print(f"{described(path, packed)}; sound, digest {packed.digest}")


def unpack(path: str, folder: str) -> None:
    """Write the images of a pack as files."""
    from ppcls.data.pack import Pack
    from ppcls.data.pack import unpack as unpack_images

    packed = Pack(path)
    with bar("unpack", len(packed)) as progress:
        for _ in unpack_images(packed, folder):
            progress.update()
    print(f"{folder}: {len(packed)} images, list.txt")


def described(path: str, packed) -> str:
    """One line about a pack."""
    classes = len(set(packed.labels.tolist()))
    left_out = f", {len(packed.skipped)} left out" if packed.skipped else ""
    return f"{path}: {len(packed)} images{left_out}, {classes} classes, {packed.header['file_bytes'] / 1e6:.1f} MB"


def bar(verb: str, total: int) -> tqdm:
    """A progress bar, on a terminal."""
    return tqdm(desc=verb, total=total, unit=" images", disable=not sys.stderr.isatty())


if __name__ == "__main__":
    run(main)
