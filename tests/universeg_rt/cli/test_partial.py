"""Maps of an interrupted volume: gone on with where they are whole and of the same things, else begun anew."""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt.cli.partial import FOLDER, STATE, Partial, discard

KINDS = {"labels": ((4, 3, 2), np.uint8), "probability1": ((4, 3, 2), np.float32)}
MADE_OF = {"settings": {"axis": "axial", "post": ("fill-holes",)}, "sha256": "ab"}


@pytest.fixture
def folder(tmp_path):
    """With two of four slices done."""
    folder = tmp_path / FOLDER / "p1" / "head"
    partial = Partial(folder, MADE_OF, KINDS)
    assert partial.done == 0 and partial.facts == []
    partial.maps["labels"][:2] = 7
    partial.maps["probability1"][1] = 0.25
    partial.advance([{"blank": False}, {"blank": True}])
    return folder


def test_what_was_done_is_there_again(folder):
    again = Partial(folder, MADE_OF, KINDS)
    assert again.done == 2 and again.facts == [{"blank": False}, {"blank": True}]
    assert (again.maps["labels"][:2] == 7).all() and not again.maps["labels"][2:].any()
    assert again.maps["probability1"][1].max() == 0.25


@pytest.mark.parametrize("change", [
    lambda folder: (folder / STATE).unlink(), lambda folder: (folder / STATE).write_text("{"),
    lambda folder: (folder / STATE).write_text('{"made_of": {}, "done": 2, "facts": [1, 2]}'),
    lambda folder: (folder / "labels.map").unlink(), lambda folder: (folder / "labels.map").write_bytes(b"short"),
])
def test_what_is_not_whole_is_begun_anew(folder, change):
    change(folder)
    again = Partial(folder, MADE_OF, KINDS)
    assert again.done == 0 and again.facts == [] and not again.maps["labels"].any()


@pytest.mark.parametrize("made_of, kinds", [
    ({**MADE_OF, "sha256": "cd"}, KINDS), (MADE_OF, {**KINDS, "labels": ((5, 3, 2), np.uint8)}),
    (MADE_OF, {**KINDS, "spread1": ((4, 3, 2), np.float32)}),
])
def test_what_was_made_of_other_things_is_begun_anew(folder, made_of, kinds):
    assert Partial(folder, made_of, kinds).done == 0


def test_nothing_is_left_when_it_is_done(folder, tmp_path):
    (tmp_path / FOLDER / "other").mkdir()
    Partial(folder, MADE_OF, KINDS).remove()
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["other"] and tmp_path.exists()
    discard(tmp_path)
    assert not (tmp_path / FOLDER).exists()
