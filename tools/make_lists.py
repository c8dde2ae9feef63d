# SPDX-License-Identifier: Apache-2.0
"""Turn a folder of class folders into list files and a label map."""

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppcls.utils.cli import run  # noqa: E402

EXAMPLES = """examples:
  python tools/make_lists.py --images dataset/flowers/images --output dataset/flowers
  python tools/make_lists.py --images flowers --output lists --val 0.1 --test 0.1 --seed 7

--images is a folder with one folder of images for each class. The output directory gets train_list.txt, val_list.txt,
test_list.txt (with --test) and label_map.txt. Each class is divided alike; which image goes where depends on --seed
and on the files' names only. Images of the same content are never in two lists.

exit code: 0, or 2 for a wrong command line, 3 when there are no images, 5 when a file is there already."""
LABEL_MAP = "label_map.txt"
PARTS = ("train", "val", "test")
SHOWN = 5


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", required=True, metavar="DIR", help="the folder of class folders")
    parser.add_argument("--output", required=True, metavar="DIR", help="where the lists are written")
    parser.add_argument("--val", type=float, default=0.1, metavar="PART", help="for validation, 0..1 (default 0.1)")
    parser.add_argument("--test", type=float, default=0.0, metavar="PART", help="for a test list, 0..1 (default 0)")
    parser.add_argument("--seed", type=int, default=0, help="another number divides otherwise (default 0)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes; otherwise one for each core")
    parser.add_argument("--force", action="store_true", help="replace all lists that are there already")
    options = parser.parse_args()
    if not (0 <= options.val < 1 and 0 <= options.test < 1 and options.val + options.test < 1):
        parser.error("--val and --test: parts of 1, 0 or more, that leave something to train on")
    if "://" in options.output:
        parser.error(f"--output: {options.output}: lists are written to a folder of this machine; give a path")
    if options.workers is not None and options.workers < 0:
        parser.error("--workers: at least 0")
    return options


def images_in(root):
    """Class names, and by class the images' paths from ``root`` on; and what is left out, with the reason."""
    from ppcls.data.image_folder import files_under
    from ppcls.data.images import ENDINGS
    from ppcls.utils.errors import DataError

    if not root.is_dir():
        raise DataError(f"--images: {root}: there is no such folder")
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise DataError(f"--images: {root}: no class folders in it; expected {root / '<class>' / '*.jpg'}")
    if {name.lower() for name in classes} <= {"train", "val", "valid", "validation", "test"}:
        raise DataError(
            f"--images: {root}: {', '.join(classes)} look like parts, not like classes; give one of them, such as "
            f"{root / classes[0]}"
        )
    paths, labels, left_out = [], [], []
    for label, name in enumerate(classes):
        if not can_be_listed(name):
            raise DataError(f"--images: {root / name!s}: a list cannot hold this name; rename the folder")
        for found in sorted(files_under(str(root / name))):
            path = os.path.relpath(found, root)
            if not found.lower().endswith(ENDINGS):
                left_out.append((path, "no image, by its ending"))
            elif not can_be_listed(path):
                left_out.append((path, "its name cannot be written in a list"))
            else:
                paths.append(path)
                labels.append(label)
    return classes, paths, labels, left_out


def can_be_listed(name) -> bool:
    """Whether a line of a list gives a name back as it is."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return name == name.strip() and not any(end in name for end in "\r\n")


def contents_of(root, paths, num_workers):
    """A digest for each image, and what is left out, with the reason."""
    from tqdm import tqdm

    from ppcls.data.check.look import digest_and_header
    from ppcls.data.check.processes import in_processes
    from ppcls.utils.logger import has_bar
    from ppcls.utils.machine import usable_cores

    def read(piece):
        return [digest_and_header(str(root / path)) for path in piece]

    def dead(piece):
        return [(b"", "the program that reads it crashes")] * len(piece)

    workers = usable_cores() if num_workers is None else num_workers
    pieces = [paths[head : head + 64] for head in range(0, len(paths), 64)]
    found, left_out = {}, []
    with tqdm(total=len(paths), desc="read", unit=" images", disable=not has_bar(), leave=False) as bar:
        for piece, results in in_processes(read, pieces, workers, dead):
            bar.update(len(piece))
            for path, (digest, problem) in zip(piece, results):
                if problem:
                    left_out.append((path, problem))
                else:
                    found[path] = digest
    return found, sorted(left_out)


def write_files(output, texts) -> None:
    """Write the lists, all or none; those of an earlier run go."""
    from ppcls.utils.errors import StorageError

    partial = {name: output / f".{name}.partial" for name in texts}
    try:
        for name, text in texts.items():
            partial[name].write_text(text, encoding="utf-8")
        # First of all the old ones: where this is killed half-way, lists of two divisions would share images.
        for name in (*(f"{part}_list.txt" for part in PARTS), LABEL_MAP):
            (output / name).unlink(missing_ok=True)
        for name, path in partial.items():
            os.replace(path, output / name)
    except OSError as error:
        raise StorageError(f"{output}: cannot be written ({error.strerror or error})") from error
    finally:
        for path in partial.values():
            with suppress(OSError):
                path.unlink(missing_ok=True)


def print_some(title, lines) -> None:
    """A line of what it is about, and the first of the lines."""
    print(f"{title}:")
    for line in lines[:SHOWN]:
        print(f"  {line}")
    if lines[SHOWN:]:
        print(f"  and {len(lines) - SHOWN} more")


def main() -> None:
    """Make the lists that the command line asks for."""
    options = arguments()
    # Slow to import, so --help is answered first.
    import numpy as np

    from ppcls.data.split import split
    from ppcls.utils.errors import DataError, StorageError
    from ppcls.utils.storage import ensure_writable

    root, output = Path(options.images), Path(options.output)
    if root.resolve() in output.resolve().parents:
        raise StorageError(f"--output: {output}: within {root} it would be taken for a class; choose a place outside")
    names = [f"{part}_list.txt" for part in PARTS]
    wanted = [True, options.val > 0, options.test > 0]
    there = [name for name in (*names, LABEL_MAP) if (output / name).exists()]
    if there and not options.force:
        raise StorageError(
            f"{output / there[0]}: is there already; choose another --output, or replace all lists there with --force"
        )
    classes, paths, labels, left_out = images_in(root)
    contents, unreadable = contents_of(root, paths, options.workers)
    left_out += unreadable
    kept = [(path, label) for path, label in zip(paths, labels) if path in contents]
    if not kept:
        raise DataError(f"--images: {root}: no image in any of the {len(classes)} class folders")
    paths, labels = [path for path, _ in kept], [label for _, label in kept]
    parts = split(paths, labels, [contents[path] for path in paths], options.val, options.test, options.seed)
    texts = {}
    for part, name in enumerate(names):
        text = "".join(f"{path} {label}\n" for (path, label), own in zip(kept, parts) if own == part)
        if text:
            texts[name] = text
    texts[LABEL_MAP] = "".join(f"{label} {name}\n" for label, name in enumerate(classes))
    write_files(ensure_writable(output), texts)

    counts = np.zeros((len(classes), len(PARTS)), int)
    np.add.at(counts, (np.array(labels), parts), 1)
    if left_out:
        print_some(f"files left out: {len(left_out)}", [f"{root / path}: {reason}" for path, reason in left_out])
    print_copies(kept, contents)
    for column, (part, is_wanted) in enumerate(zip(PARTS, wanted)):
        without = [name for name, row in zip(classes, counts) if row[column] == 0]
        if is_wanted and without:
            print_some(f"warning: classes without an image in {part}_list.txt: {len(without)}", without)
    print(f"{len(kept):,} images in {len(classes):,} classes, seed {options.seed}:")
    for column, name in enumerate(names):
        if name in texts:
            few, many = counts[:, column].min(), counts[:, column].max()
            print(f"  {output / name}: {counts[:, column].sum():,}, {few:,} to {many:,} in a class")
    print(f"  {output / LABEL_MAP}: the classes' names\n\nin the YAML file:\n")
    print(yaml_lines(root, output, len(classes), names[1] in texts))


def print_copies(kept, contents) -> None:
    """Images that are there more than once; those in different classes by name."""
    first, copies, conflicts = {}, 0, []
    for path, label in kept:
        earlier, other = first.setdefault(contents[path], (path, label))
        if earlier == path:
            continue
        copies += 1
        if other != label:
            conflicts.append(f"{path} is {earlier}")
    if copies:
        print(f"copies of other images, kept in the same list as those: {copies}")
    if conflicts:
        print_some(f"warning: copies in another class: {len(conflicts)}", conflicts)


def yaml_lines(root, output, class_num, has_val) -> str:
    """What a configuration needs of all this."""
    import yaml

    def dataset(name):
        return {"dataset": {"image_root": str(root), "cls_label_path": str(output / f"{name}_list.txt")}}

    loaders = {"Train": dataset("train"), **({"Eval": dataset("val")} if has_val else {})}
    lines = {
        "Arch": {"class_num": class_num},
        "DataLoader": loaders,
        "Infer": {"PostProcess": {"class_id_map_file": str(output / LABEL_MAP)}},
    }
    return yaml.safe_dump(lines, sort_keys=False, allow_unicode=True, width=1000).rstrip()


if __name__ == "__main__":
    run(main)
