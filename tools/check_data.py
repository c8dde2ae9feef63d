# SPDX-License-Identifier: Apache-2.0
"""Check data before it is trained on: lists, labels, files, images, duplicates, and leakage into the evaluation."""

import argparse
import json
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppcls.utils.cli import run  # noqa: E402

EXAMPLES = """examples:
  python tools/check_data.py -c configs/quick_start/digits.yaml
  python tools/check_data.py --list train_list.txt val_list.txt --root images --class_num 10
  python tools/check_data.py -c my.yaml --fast                  # no image is decoded
  python tools/check_data.py -c my.yaml --all --report faults.jsonl

What was found in a file is kept, by its size and time of last change: the second run looks only at what is new.

exit code: 0 when nothing is wrong, 3 when there are faults, 2 when the command line or the YAML file is wrong."""
SHOWN = 10
CACHE = "check_data.sqlite"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-c", "--config", metavar="FILE", help="check DataLoader.Train and DataLoader.Eval of this file")
    what.add_argument(
        "--list", nargs="+", metavar="FILE", help="check these list files; the first is the one to train on"
    )
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY.PATH=VALUE", help="as train.py")
    parser.add_argument("--root", metavar="DIR", help="where paths start from; otherwise the first list's folder")
    parser.add_argument("--delimiter", metavar="TEXT", help="between path and label; otherwise white space")
    parser.add_argument("--class_num", type=int, metavar="N", help="labels have to be within 0..N-1")
    parser.add_argument("--fast", action="store_true", help="look at the beginnings of files only")
    parser.add_argument("--all", action="store_true", help=f"show all faults of a kind, not {SHOWN}")
    parser.add_argument("--counts", action="store_true", help="show the number of images of every class")
    parser.add_argument("--report", metavar="FILE", help="write every fault and note as a line of JSON")
    parser.add_argument("--allow", action="append", default=[], metavar="KIND", help="a kind of fault that is no fault")
    parser.add_argument("--workers", type=int, metavar="N", help="processes; otherwise one for each core")
    parser.add_argument("--cache", metavar="FILE", help="what was found earlier; otherwise in Global.cache_dir")
    options = parser.parse_args()
    if options.config is None and options.override:
        parser.error("-o changes values of a YAML file; give one with -c")
    if options.config and (options.root or options.delimiter or options.class_num is not None):
        parser.error("--root, --delimiter and --class_num belong to --list; with -c the YAML file has them")
    if options.delimiter == "":
        parser.error("--delimiter: an empty text; leave it out for white space")
    if options.class_num is not None and options.class_num < 1:
        parser.error("--class_num: at least 1")
    if options.workers is not None and options.workers < 0:
        parser.error("--workers: at least 0")
    return options


class Report:
    """The file that every fault is written to."""

    def __init__(self, path) -> None:
        self.path = path
        self.file = open(path, "w", encoding="utf-8")  # noqa: SIM115 (closed by `close`)

    def write(self, record) -> None:
        """Write one fault."""
        self._do(self.file.write, json.dumps(record, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Write what is not written yet."""
        self._do(self.file.close)

    def _do(self, call, *arguments) -> None:
        from ppcls.utils.errors import StorageError

        try:
            call(*arguments)
        except OSError as error:
            # Such as a full disk; the error of a write does not say of which file.
            raise StorageError(f"{self.path}: cannot be written ({error.strerror})") from error


class Findings:
    """Counts what is found, writes it to the report, and keeps some of it to be shown."""

    def __init__(self, allowed, shown, report) -> None:
        self.allowed = allowed
        self.shown = shown
        self.report = report
        self.counts = Counter()
        self.kept = {}

    def take(self, faults) -> None:
        """Take all faults of one check."""
        for fault in faults:
            self.counts[fault.kind] += 1
            kept = self.kept.setdefault(fault.kind, [])
            if len(kept) < self.shown or self.is_note(fault.kind) and not kept:
                kept.append(fault)
            if self.report:
                record = {"kind": fault.kind, "is_fault": not self.is_note(fault.kind), **vars(fault)}
                self.report.write(record)

    def is_note(self, kind) -> bool:
        """Whether what is of this kind is no fault."""
        from ppcls.data.check.fault import NOTES

        return kind in NOTES or kind in self.allowed

    @property
    def num_faults(self) -> int:
        """How many faults there are."""
        return sum(count for kind, count in self.counts.items() if not self.is_note(kind))

    def print_new(self) -> None:
        """Show what was taken since the last call."""
        from ppcls.data.check.fault import KINDS

        for kind, faults in self.kept.items():
            head = "note, " if self.is_note(kind) else ""
            print(f"\n{head}{kind} ({self.counts[kind]:,}): {KINDS[kind]}")
            for fault in faults:
                print(f"  {fault}")
            more = self.counts[kind] - len(faults)
            if more:
                print(f"  and {more:,} more; --all shows them")
        sys.stdout.flush()
        self.kept = {}


def data_sets(options):
    """The data sets that the command line means, and the number of classes."""
    from ppcls.data.check import open_list, opened

    if options.list:
        root = options.root or str(Path(options.list[0]).parent)
        return [open_list(name, root, name, options.delimiter) for name in options.list], options.class_num
    from ppcls import arch, data, engine, loss, metric, optimizer  # noqa: F401
    from ppcls.config import load_config
    from ppcls.data import ClsDataset, ImageNetDataset
    from ppcls.engine.parts import argument_of
    from ppcls.utils.download import use_cache_dir
    from ppcls.utils.errors import ConfigError

    config = load_config(options.config, options.override)
    use_cache_dir(config.Global.cache_dir)
    found = []
    for name in ("Train", "Eval"):
        section = getattr(config.DataLoader, name)
        if section is None:
            continue
        call = section.dataset.source
        if call.target in (ImageNetDataset, ClsDataset):
            kwargs = {key: argument_of(call, key) for key in ("image_root", "cls_label_path", "delimiter", "relabel")}
            found.append(open_list(name, **kwargs))
        else:
            found.append(opened(name, call))
    if not found:
        raise ConfigError(f"{options.config}: neither DataLoader.Train nor DataLoader.Eval is in it")
    return found, argument_of(config.Arch.model, "class_num")


def print_summary(part, with_counts) -> None:
    """How many images there are of which class."""
    import numpy as np

    from ppcls.data.check.checker import place_of

    dataset = part.dataset
    labels, counts = np.unique(dataset.labels, return_counts=True)
    few, many = counts.argmin(), counts.argmax()
    print(f"{part.name}: {place_of(dataset)}")
    print(
        f"  {len(dataset):,} images in {len(labels):,} classes; in a class {counts[few]:,} (label {labels[few]}) to "
        f"{counts[many]:,} (label {labels[many]}), median {np.median(counts):g}"
    )
    if with_counts:
        names = dataset.class_names
        for label, count in zip(labels, counts):
            print(f"  {label:>6} {count:>9,}{f'  {names[label]}' if names else ''}")


def open_cache(options):
    """Where looks are kept; none if the usual place cannot be written."""
    from ppcls.data.check.cache import Cache
    from ppcls.utils.download import cache_dir
    from ppcls.utils.errors import StorageError
    from ppcls.utils.logger import logger

    if options.fast:
        return None
    try:
        return Cache(options.cache or cache_dir() / CACHE)
    except StorageError as error:
        if options.cache:
            raise
        logger.warning("%s; the next run will look at every file again", error)
        return None


def main() -> None:
    """Check what the command line names."""
    options = arguments()
    # Slow to import, so --help is answered first.
    from tqdm import tqdm

    from ppcls.data.check import Checker
    from ppcls.data.check.fault import FAULTS
    from ppcls.utils.errors import ConfigError, DataError
    from ppcls.utils.logger import has_bar, start_logging
    from ppcls.utils.machine import usable_cores

    unknown = [kind for kind in options.allow if kind not in FAULTS]
    if unknown:
        raise ConfigError(f"--allow {unknown[0]}: no kind of fault; there are {', '.join(FAULTS)}")
    start_logging(stream=sys.stderr)
    started = time.monotonic()
    found, class_num = data_sets(options)
    with ExitStack() as stack:
        report = stack.enter_context(closing(Report(options.report))) if options.report else None
        findings = Findings(options.allow, sys.maxsize if options.all else SHOWN, report)
        cache = open_cache(options)
        if cache:
            stack.enter_context(closing(cache))
        workers = usable_cores() if options.workers is None else options.workers
        checker = Checker(found, class_num, workers, cache)
        num_images = sum(len(part.dataset) for part in checker.parts)
        for part in checker.parts:
            print_summary(part, options.counts)
        for item in found:
            findings.take(item.faults)
        for name, check in (
            ("labels", checker.labels),
            ("paths", checker.paths),
            ("files", checker.files),
            ("images", lambda: checker.images(options.fast)),
            ("contents", checker.contents),
        ):
            with tqdm(total=num_images, desc=name, unit=" images", disable=not has_bar(), leave=False) as bar:
                checker.progress = bar.update
                findings.take(check())
            findings.print_new()
            if findings.counts["missing"] == num_images > 0:
                print("  none of the files is there: do the paths start from another folder (--root, image_root)?")
    counted = [
        f"{findings.counts[kind]:,} {kind}" for kind in FAULTS if findings.counts[kind] and kind not in options.allow
    ]
    seconds = time.monotonic() - started
    decoded = "their beginnings only" if options.fast else f"{checker.num_cached:,} known from earlier"
    print(f"\n{num_images:,} images looked at ({decoded}) in {seconds:.1f} s")
    num_faults = findings.num_faults
    if num_faults:
        where = f"; {options.report} has them all" if options.report else ""
        raise DataError(f"{num_faults:,} {'fault' if num_faults == 1 else 'faults'}: {', '.join(counted)}{where}")
    print("no faults")


if __name__ == "__main__":
    run(main)
