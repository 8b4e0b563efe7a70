"""Files and folders that appear whole or not at all, on real full, small and forbidden places."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_sdk._files import atomic_dir, sha256_file, storage_error, write_atomic
from edge_sdk.errors import StorageError


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@contextmanager
def small_files():
    """No file may grow over 4 KiB meanwhile: no longer than a call, for pytest's own output may be a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_folder_appears_whole(tmp_path):
    with atomic_dir(tmp_path / "a" / "b.edge") as scratch:
        (scratch / "inner").mkdir()
        (scratch / "inner" / "x").write_bytes(b"1")
        assert not (tmp_path / "a" / "b.edge").exists()
    assert everything(tmp_path) == ["a", "a/b.edge", "a/b.edge/inner", "a/b.edge/inner/x"]
    assert (tmp_path / "a" / "b.edge").stat().st_mode & 0o777 == 0o755


def test_what_stood_there_is_replaced(tmp_path):
    for value in ("old", "new"):
        with atomic_dir(tmp_path / "x.edge") as scratch:
            (scratch / value).write_text(value)
    assert everything(tmp_path) == ["x.edge", "x.edge/new"]


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_fault_leaves_what_was_there_and_nothing_else(fault, tmp_path):
    with atomic_dir(tmp_path / "x.edge") as scratch:
        (scratch / "old").write_text("old")
    for name in ("x.edge", "new/y.edge"):
        with pytest.raises(fault), atomic_dir(tmp_path / name) as scratch:
            (scratch / "half").write_text("half")
            raise fault
    assert everything(tmp_path) == ["x.edge", "x.edge/old"]


def test_a_file_where_the_folder_belongs(tmp_path):
    (tmp_path / "x.edge").write_text("a file")
    with pytest.raises(StorageError, match="a part of the path is a file, not a folder"):
        with atomic_dir(tmp_path / "x.edge"):
            pass
    assert everything(tmp_path) == ["x.edge"]


def test_several_writers_of_one_folder(tmp_path):
    """Whoever comes last stays; each result is whole."""

    faults = []

    def write(value: str) -> None:
        try:
            repeat(value)
        except StorageError as error:
            faults.append(error)

    def repeat(value: str) -> None:
        for _ in range(50):
            with atomic_dir(tmp_path / "x.edge") as scratch:
                for name in ("a", "b"):
                    (scratch / name).write_text(value)

    threads = [threading.Thread(target=write, args=(value,)) for value in "12"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert everything(tmp_path) == ["x.edge", "x.edge/a", "x.edge/b"]
    assert (tmp_path / "x.edge/a").read_text() == (tmp_path / "x.edge/b").read_text()


def test_a_file_is_replaced_whole(tmp_path):
    write_atomic(tmp_path / "a" / "x", "old")
    write_atomic(tmp_path / "a" / "x", b"new")
    assert (tmp_path / "a" / "x").read_bytes() == b"new"
    assert (tmp_path / "a" / "x").stat().st_mode & 0o777 == 0o644
    assert everything(tmp_path) == ["a", "a/x"]


def test_a_file_too_large_for_the_system(tmp_path):
    write_atomic(tmp_path / "old", b"old")
    with pytest.raises(StorageError) as caught, small_files():
        write_atomic(tmp_path / "old", b"x" * 10_000)
    assert str(caught.value) == (
        f"cannot write {tmp_path / 'old'}: a file would be larger than the system allows (see 'ulimit -f'); raise the "
        "limit. Nothing was left half written."
    )
    with pytest.raises(StorageError, match="larger than the system allows"), small_files():
        write_atomic(tmp_path / "a" / "b" / "new", b"x" * 10_000)
    with (
        pytest.raises(StorageError, match="larger than the system allows"),
        small_files(),
        atomic_dir(tmp_path / "c" / "d") as scratch,
    ):
        (scratch / "x").write_bytes(b"x" * 10_000)
    assert everything(tmp_path) == ["old"] and (tmp_path / "old").read_bytes() == b"old"


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        write_atomic(tmp_path / "file" / "x", "1")
    assert str(caught.value) == (
        f"cannot write {tmp_path / 'file' / 'x'}: a file stands where a folder should be; choose another folder. "
        "Nothing was left half written."
    )


def test_a_folder_of_somebody_else(tmp_path):
    """As a user that owns nothing, where the tests may become one."""
    tmp_path.chmod(0o555)
    code = (
        "import os, sys, pathlib\n"
        "from edge_sdk._files import write_atomic, atomic_dir\n"
        "from edge_sdk.errors import StorageError\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for write in (lambda p: write_atomic(p, 'x'), lambda p: atomic_dir(p).__enter__()):\n"
        "    try: write(pathlib.Path(sys.argv[1]) / 'x')\n"
        "    except StorageError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=60)
    expected = f"cannot write {tmp_path / 'x'}: permission denied; choose a folder of your own. "
    assert done.stdout.count(expected) == 2, done.stderr
    assert everything(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "the disk quota is used up; free some space"),
        (errno.EROFS, "the file system is read-only; choose another folder"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_the_cause_is_told_in_plain_words(number, words):
    error = storage_error(Path("/x"), OSError(number, os.strerror(number)))
    assert str(error) == f"cannot write /x: {words}. Nothing was left half written."
    assert error.exit_code == 1


def test_the_hash_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 1_000_000)
    done = subprocess.run(["sha256sum", tmp_path / "x"], capture_output=True, text=True, check=True)
    assert sha256_file(tmp_path / "x") == done.stdout.split()[0]


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_writing_leaves_nothing(blow, tmp_path):
    code = (
        "import pathlib, sys, time\n"
        "from edge_sdk._files import atomic_dir\n"
        "from edge_sdk.cli._stop import clean_stop\n"
        "with clean_stop(), atomic_dir(pathlib.Path(sys.argv[1]) / 'a' / 'x.edge') as scratch:\n"
        "    (scratch / 'half').write_text('half')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as it:
        assert it.stdout and it.stdout.readline() == b"writing\n"
        it.send_signal(blow)
        assert it.wait(20) != 0
    assert everything(tmp_path) == []
