"""The cache: where it lies, and that what is not as it was written is never used."""

from __future__ import annotations

import pytest

from universeg_rt.storage.cache import VARIABLE, CachedFiles, cache_folder


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine" and not cache_folder().exists()
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "universeg_rt"


def test_what_was_written_is_read(tmp_path):
    files = CachedFiles(tmp_path / "a" / "b")
    assert files.read("x") is None and files.notes == []
    for content in (b"", b"some bytes", b"others" * 1000):
        files.write("x", content)
        assert files.read("x") == content and files.read("y") is None
    assert files.notes == [] and [p.name for p in files.folder.iterdir()] == ["x"]


@pytest.mark.parametrize("position", [0, 31, 32, -1])
def test_a_changed_byte_is_noticed(tmp_path, position):
    files = CachedFiles(tmp_path)
    files.write("x", b"some bytes")
    data = bytearray((tmp_path / "x").read_bytes())
    data[position] ^= 1
    (tmp_path / "x").write_bytes(data)
    assert files.read("x") is None and files.read("x") is None
    assert len(files.notes) == 1 and "was damaged and is made again" in files.notes[0]


def test_a_folder_that_cannot_be_is_noted_once(tmp_path):
    (tmp_path / "file").write_text("")
    files = CachedFiles(tmp_path / "file" / "cache")
    for name in ("x", "y"):
        files.write(name, b"1")
    (note,) = files.notes
    assert "cannot be written" in note and VARIABLE in note
    assert files.read("x") is None
