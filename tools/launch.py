# SPDX-License-Identifier: Apache-2.0
"""Train with several processes, end all when one fails, and start them again from the last checkpoint."""

import argparse
import os
import re
import sys
from pathlib import Path

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppcls.utils.cli import config_parser, run  # noqa: E402
from ppcls.utils.errors import ConfigError  # noqa: E402

EPILOG = """examples:
  python tools/launch.py --nproc_per_node 2 --devices cpu tools/train.py -c configs/quick_start/digits.yaml
  python tools/launch.py --devices 0,1,2,3 --max_restarts 3 tools/train.py -c X.yaml -o Global.checkpoints=auto
  python tools/launch.py --nnodes 2 --rank 0 --master 10.0.0.1:36123 tools/train.py -c X.yaml   (and --rank 1)

What the first process prints is shown; what each prints is in --log_dir, rank_0.log and so on. The exit code is that of
the process that failed first (128 + N for signal N). SIGTERM, SIGINT and SIGUSR1 are passed on; training saves.
Not started again: exit codes 2 (configuration), 3 (data), 4 (numerics), 7 (parity), and what was asked to end.
"""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--nproc_per_node", type=_count, metavar="N", help="processes on this machine; by default one for each device"
    )
    parser.add_argument(
        "--devices",
        "--gpus",
        "--npus",
        "--xpus",
        metavar="0,1",
        help="numbers of the devices to use, or cpu; by default as many as there are processes, or else all",
    )
    parser.add_argument("--nnodes", type=_count, default=1, metavar="N", help="machines (1)")
    parser.add_argument("--rank", type=int, default=0, metavar="N", help="the number of this machine, from 0 (0)")
    parser.add_argument("--master", metavar="HOST:PORT", help="where the machines meet: an address of machine 0")
    parser.add_argument("--job_id", default="default", metavar="NAME", help="machines of another job are refused")
    parser.add_argument("--log_dir", type=Path, default=Path("log"), metavar="DIR", help="for rank_N.log (log)")
    parser.add_argument(
        "--max_restarts",
        type=_natural,
        default=0,
        metavar="N",
        help="start all processes again so often after a failure; needs Global.checkpoints=auto (0)",
    )
    parser.add_argument(
        "--restart_wait",
        type=_seconds,
        default=3.0,
        metavar="SECONDS",
        help="before the second start; each further wait is twice as long, up to a minute (3)",
    )
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=600.0,
        metavar="SECONDS",
        help="what saving may take after SIGTERM or SIGINT until processes are killed (600)",
    )
    parser.add_argument("script", help="what each process runs, such as tools/train.py")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, default=[], help="its arguments").required = False
    return parser.parse_args()


def main() -> None:
    """Check what can be checked, then start the processes."""
    given = arguments()
    if not os.path.isfile(given.script):
        raise ConfigError(f"{given.script}: there is no such file; name the script that each process runs")
    if given.nnodes > 1 and not given.master:
        raise ConfigError("--nnodes: several machines need --master, an address and port of machine 0")
    if not 0 <= given.rank < given.nnodes:
        raise ConfigError(f"--rank: {given.rank}, but machines are numbered from 0 to {given.nnodes - 1}")
    if given.max_restarts:
        require_continuing(given.arguments)
    from ppcls.utils.accelerators import Accelerators, accelerators
    from ppcls.utils.rendezvous import Rendezvous
    from ppcls.utils.supervisor import Supervisor

    is_cpu = given.devices == "cpu"
    found = Accelerators() if is_cpu else accelerators()
    shares = found.shares(None if is_cpu else given.devices, given.nproc_per_node)
    rendezvous = Rendezvous(len(shares), given.rank, given.nnodes, given.master, given.job_id)
    command = [sys.executable, "-u", given.script, *given.arguments]
    supervisor = Supervisor(
        command, shares, given.log_dir, rendezvous, given.max_restarts, given.restart_wait, given.grace
    )
    raise SystemExit(supervisor.run())


def require_continuing(words: list[str]) -> None:
    """Refuse a training that would begin anew with each start.

    Raises:
        ConfigError: ``Global.checkpoints`` is not ``auto``; or the file cannot be read.
    """
    from ppcls.config.load import find_config
    from ppcls.config.node import load_tree

    given, _ = config_parser("", "", is_required=False).parse_known_args(words)
    if given.config is None:
        return  # a script of one's own
    section = load_tree(find_config(given.config), given.override).value.get("Global")
    checkpoints = section.value.get("checkpoints") if section and isinstance(section.value, dict) else None
    if checkpoints is None or checkpoints.value != "auto":
        raise ConfigError(
            "--max_restarts: every start would begin anew; add -o Global.checkpoints=auto, so that it goes on from the "
            "last checkpoint"
        )


def _natural(text: str) -> int:
    return int(_at_least(0, text, str.isdecimal(text)))


def _count(text: str) -> int:
    return int(_at_least(1, text, str.isdecimal(text)))


def _seconds(text: str) -> float:
    return _at_least(0, text, re.fullmatch(r"\d+(\.\d*)?|\.\d+", text) is not None)


def _at_least(smallest: int, text: str, is_number: bool) -> float:
    if not is_number or float(text) < smallest:
        raise argparse.ArgumentTypeError(f"expected {smallest} or more; got {text}")
    return float(text)


if __name__ == "__main__":
    run(main)
