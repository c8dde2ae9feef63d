# SPDX-License-Identifier: Apache-2.0
"""Archives that want to write elsewhere, or to fill disk or memory: nothing is left behind, and memory is bounded."""

import gzip
import io
import os
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from ppcls.data import Cifar10
from ppcls.utils import archive
from ppcls.utils.archive import unpack
from ppcls.utils.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = [
    "../out",
    "../../out",
    "a/../../out",
    "./../out",
    "{root}/out",
    "//{root}/out",
    "a/..",
    "..",
    "a/b/../../../out",
]


def tar(path, *entries, mode="w"):
    with tarfile.open(path, mode) as opened:
        for name, kind, target in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            content = b"x" if kind == tarfile.REGTYPE else b""
            entry.size = len(content)
            opened.addfile(entry, io.BytesIO(content))


def zipped(path, *entries):
    with zipfile.ZipFile(path, "w") as opened:
        for name, mode, content in entries:
            info = zipfile.ZipInfo("x")
            info.filename, info.external_attr = name, (mode | 0o777) << 16
            opened.writestr(info, content)


def escapes(root):
    """Name -> what writes an archive that leads out of the folder it is unpacked into."""
    found = {}
    for name in (item.format(root=root) for item in OUTSIDE):
        found[f"tar {name}"] = lambda path, name=name: tar(path, (name, tarfile.REGTYPE, ""))
        found[f"zip {name}"] = lambda path, name=name: zipped(path, (name, stat.S_IFREG, "x"))
    for target in ("..", str(root), "/etc/passwd", "good"):
        for word, kind in (("symlink", tarfile.SYMTYPE), ("hardlink", tarfile.LNKTYPE)):
            entries = [("link", kind, target), ("link/out", tarfile.REGTYPE, "")]
            found[f"tar {word} {target}"] = lambda path, entries=entries: tar(path, *entries)
        links = [("link", stat.S_IFLNK, target), ("link/out", stat.S_IFREG, "x")]
        found[f"zip symlink {target}"] = lambda path, links=links: zipped(path, *links)
    for word, kind in (("character", tarfile.CHRTYPE), ("block", tarfile.BLKTYPE), ("fifo", tarfile.FIFOTYPE)):
        found[f"tar {word} device"] = lambda path, kind=kind: tar(path, ("device", kind, ""))
    for word, kind in (("character", stat.S_IFCHR), ("fifo", stat.S_IFIFO), ("socket", stat.S_IFSOCK)):
        found[f"zip {word} device"] = lambda path, kind=kind: zipped(path, ("device", kind, ""))
    found["tar.gz ../out"] = lambda path: tar(path, ("../out", tarfile.REGTYPE, ""), mode="w:gz")
    return found


ESCAPES = list(escapes(Path("/root_of_the_test")))


@pytest.mark.promise("F31")
@pytest.mark.parametrize("index", range(len(ESCAPES)), ids=ESCAPES)
def test_nothing_is_written_outside_of_the_folder(tmp_path, index):
    path, place = tmp_path / "x.archive", tmp_path / "cache" / "data"
    list(escapes(tmp_path).values())[index](path)
    with pytest.raises(DataError, match="nothing was unpacked"):
        unpack(path, place)
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["cache", "x.archive"]


# Bombs. The limits are lower than in use, so that the test need not write gigabytes to see them.


def million_names_in_a_zip(path):
    """A zip of a million empty files, written by hand in a moment: one local header, and the list."""
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 0, 0, 8, 0) + b"00000000"
    entry = struct.Struct("<4s6H3L5H2L")
    fields = (b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0)
    listed = b"".join(entry.pack(*fields) + b"%08d" % number for number in range(1_000_000))
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(listed), len(local), 0)
    path.write_bytes(local + listed + end)


def many_names_in_a_tar(path):
    block = tarfile.TarInfo("0" * 8).tobuf()
    base = sum(block[8:148]) + 8 * ord(" ") + sum(block[156:])
    with gzip.open(path, "wb", compresslevel=1) as file:
        for start in range(0, 100_000, 1000):
            file.write(b"".join(_numbered(block, base, start + number) for number in range(1000)))
        file.write(bytes(1024))


def _numbered(block, base, number):
    name = b"%08d" % number
    checksum = base + sum(name)
    return name + block[8:148] + b"%06o\0 " % checksum + block[156:]


def header_of_256_megabytes(path, kind):
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 1 << 28
    pieces = zlib.compressobj(9, zlib.DEFLATED, 31)
    with open(path, "wb") as file:
        file.write(pieces.compress(header.tobuf(tarfile.GNU_FORMAT)))
        for _ in range(16):
            file.write(pieces.compress(bytes(1 << 24)))
        file.write(pieces.flush())


def thousand_to_one(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened, opened.open("zeros", "w") as file:
        for _ in range(256):
            file.write(bytes(1 << 20))


def thousand_to_one_in_a_tar(path):
    entry = tarfile.TarInfo("zeros")
    entry.size = 256 << 20
    with gzip.open(path, "wb") as file:
        file.write(entry.tobuf())
        for _ in range(256):
            file.write(bytes(1 << 20))
        file.write(bytes(1024))


BOMBS = {
    "a million names in a zip": million_names_in_a_zip,
    "a hundred thousand names in a tar.gz": many_names_in_a_tar,
    "a name of 256 megabytes": lambda path: header_of_256_megabytes(path, tarfile.GNUTYPE_LONGNAME),
    "attributes of 256 megabytes": lambda path: header_of_256_megabytes(path, tarfile.XHDTYPE),
    "attributes of all of 256 megabytes": lambda path: header_of_256_megabytes(path, tarfile.XGLTYPE),
    "1000:1 in a zip": thousand_to_one,
    "1000:1 in a tar.gz": thousand_to_one_in_a_tar,
}
MEASURED = """
import resource, sys
from ppcls.utils import archive
from ppcls.utils.errors import DataError
archive.UNSUSPICIOUS_MEMBERS = 2000
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    archive.unpack(sys.argv[1], sys.argv[2])
except DataError as error:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, error)
"""


@pytest.mark.promise("F31")
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system counts in other units")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_fills_neither_disk_nor_memory(tmp_path, name):
    path = tmp_path / "x.archive"
    BOMBS[name](path)
    command = [sys.executable, "-c", MEASURED, str(path), str(tmp_path / "cache" / "data")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    used, _, message = done.stdout.partition(" ")
    assert int(used) < 200e6
    assert message.startswith(f"{path}: ")
    assert list((tmp_path / "cache").iterdir()) == []


def test_many_files_are_fine_where_each_takes_room(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "UNSUSPICIOUS_MEMBERS", 10)
    zipped(tmp_path / "x.zip", *((f"{number}.png", stat.S_IFREG, os.urandom(300)) for number in range(50)))
    unpack(tmp_path / "x.zip", tmp_path / "data")
    assert len(list((tmp_path / "data").iterdir())) == 50


@pytest.mark.promise("F31")
def test_a_cifar_archive_whose_batch_is_endless_is_refused(tmp_path):
    entry = tarfile.TarInfo("cifar-10-batches-py/test_batch")
    entry.size = 1 << 40
    (tmp_path / "x.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 16))
    with pytest.raises(DataError, match=r"x\.tar: cut off, damaged or no tar archive"):
        Cifar10(str(tmp_path / "x.tar"), "test")
