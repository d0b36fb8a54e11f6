"""Files and folders appear whole or not at all."""

from __future__ import annotations

import pytest

from universeg_rt.atomic import write_file, write_folder
from universeg_rt.errors import OutputError


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_replaced_only_when_whole(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        with write_file(path) as file:
            file.write(b"half")
            raise RuntimeError
    assert path.read_text() == "old" and names(tmp_path) == ["f"]
    with write_file(path) as file:
        file.write(b"new")
    assert path.read_text() == "new" and names(tmp_path) == ["f"]


def test_a_folder_is_replaced_only_when_whole(tmp_path):
    path = tmp_path / "d"
    for attempt in ("one", "two"):
        with write_folder(path) as folder:
            (folder / attempt).write_text(attempt)
        assert names(path) == [attempt] and names(tmp_path) == ["d"]
    with pytest.raises(KeyboardInterrupt):
        with write_folder(path) as folder:
            (folder / "three").write_text("")
            raise KeyboardInterrupt
    assert names(path) == ["two"] and names(tmp_path) == ["d"]


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        with write_file(tmp_path / "file" / "x"):
            pass
    with pytest.raises(OutputError, match="cannot write"):
        with write_folder(tmp_path / "file" / "x"):
            pass
    with pytest.raises(OutputError, match="cannot write"):
        with write_folder(tmp_path / "new") as folder:
            raise OSError(28, "No space left on device")
    assert names(tmp_path) == ["file"]
