"""Files of others: whatever their reader trips over is one typed error with the file and the cure."""

from __future__ import annotations

import os
import tracemalloc
from unittest import mock

import numpy as np
import pytest

from universeg_rt.errors import BundleError, InputError
from universeg_rt.storage.arrays import FREE_BYTES, read_npy, read_npz
from universeg_rt.storage.reading import reading, regular_file


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"something")
    return path


@pytest.mark.parametrize("caught, message", [
    (ValueError("bad\nsecond line"), r"cannot be read as a thing \(bad\); write or copy it again"),
    (KeyError("shape"), r"\(KeyError 'shape'\)"),
    (RecursionError(), r"\(RecursionError\)"),
    (OSError(5, "Input/output error"), r"\(Input/output error\)"),
    (MemoryError(), "not enough memory"),
    (FileNotFoundError(2, "gone"), "file.bin does not exist"),
    (type("PanicException", (BaseException,), {})("a reader in Rust"), r"\(a reader in Rust\)"),
    (ValueError("x" * 10_000), r"x\.\.\."),
    (ValueError("\x1b[31m"), r"\\x1b\[31m"),
])
def test_whatever_a_reader_raises_is_one_line_with_the_file(file, caught, message):
    with pytest.raises(BundleError, match=message) as found, reading("a thing", file, BundleError):
        raise caught
    assert str(file) in str(found.value) and "\n" not in str(found.value) and len(str(found.value)) < 600


@pytest.mark.parametrize("passes", [KeyboardInterrupt, SystemExit, ModuleNotFoundError, BundleError])
def test_what_says_itself_what_to_do_passes(file, passes):
    with pytest.raises(passes), reading("a thing", file):
        raise passes("as it is")


def test_a_reader_that_quotes_headers_is_not_quoted(file):
    with pytest.raises(InputError, match=r"file\.bin cannot be read as a thing \(ValueError\); write") as found:
        with reading("a thing", file, quote=False):
            raise ValueError("Doe^Jane")
    assert "Doe" not in str(found.value)


def test_a_decorated_reader(file):
    @reading("a number", file)
    def read():
        return int(file.read_text())

    with pytest.raises(InputError, match="cannot be read as a number"):
        read()


def test_only_regular_files_are_opened(tmp_path, file):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(file)
    assert regular_file(tmp_path / "link") == tmp_path / "link"
    for path, message in ((tmp_path / "pipe", "a pipe or a device"), ("/dev/zero", "a pipe or a device"),
                          (tmp_path, "is a folder"), (tmp_path / "none", "does not exist"),
                          (tmp_path / ("n" * 300), "cannot be read"), ("a\0b", "cannot be read")):
        with pytest.raises(InputError, match=message), reading("a thing", path):
            raise AssertionError("the block must not run")


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused_before_it_is(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, images=np.zeros((FREE_BYTES // 2**20 + 1, 1024, 1024), np.uint8))
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    with pytest.raises(InputError, match=r"unpacks to \d+ bytes; accepted: at most \d+ .* numpy.savez"):
        read_npz(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_a_header_that_promises_more_than_there_is_allocates_nothing(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole.replace(b"(4, 4)", b"(99999999, 4)", 1).replace(b" " * 7 + b"\n", b"\n", 1))
    with pytest.raises(InputError, match=r"its header says 3199999968 bytes, 128 follow"):
        read_npy(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.zeros((40, 40), np.uint8))
    with pytest.raises(InputError, match="holds 1600 numbers, shape .*; accepted: at most 100"):
        read_npy(tmp_path / "b.npy", max_items=100)
    for name, dtype in (("text", "S50000000"), ("unicode", "U8"), ("record", [("a", "f4")]), ("time", "M8[s]")):
        np.save(tmp_path / f"{name}.npy", np.zeros((1, 1), dtype))
        with mock.patch.object(np.lib.format, "read_array", side_effect=AssertionError("it was allocated")):
            with pytest.raises(InputError, match=rf"{name}\.npy holds .*; accepted: numbers or bool"):
                read_npy(tmp_path / f"{name}.npy", max_items=1600)
    assert read_npy(tmp_path / "b.npy", max_items=1600).shape == (40, 40)


def test_arrays_come_back_as_they_were(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(["x", "yy"]), "c": np.array(7), "d": np.zeros((0, 3)),
              "e": np.asfortranarray(np.arange(6).reshape(2, 3))}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = read_npz(tmp_path / "a.npz")
        assert found.keys() == arrays.keys()
        assert all(found[k].dtype == v.dtype and np.array_equal(found[k], v) for k, v in arrays.items())
