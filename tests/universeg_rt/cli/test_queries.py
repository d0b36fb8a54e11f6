"""Which files a batch segments: links, names, what lies beside them or is left of earlier runs; and what it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from universeg_rt.cli.queries import find_queries
from universeg_rt.cli.segment import main
from universeg_rt.errors import InputError

from ...conftest import discs
from .test_batch import case, report_of  # noqa: F401 (a fixture)


def test_a_link_to_itself_is_one_failure(case, capsys):
    folder, arguments = case
    loop = folder / "queries" / "images" / "loop.png"
    loop.symlink_to(loop.name)
    assert main(arguments) == 1
    rows = {row["name"]: row for row in report_of(folder)["images"]}
    assert "loop.png cannot be read" in rows["loop"]["error"] and sum("mask" in row for row in rows.values()) == 3
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("second", ["queries/images/second", "queries/images"])
def test_results_of_an_earlier_run_in_the_input_are_left_out_and_named(case, capsys, second):
    folder, arguments = case
    inside = folder / "queries" / "images"
    assert main([*arguments[:-1], str(inside / "first"), "--overlays"]) == 0
    capsys.readouterr()
    for _ in range(2):
        assert main([*arguments[:-1], str(folder / second), "--overlays"]) == 0
        err = capsys.readouterr().err
        assert f"{inside / 'first' / 'masks'} holds results of an earlier run and was left out" in err
        assert f"{inside / 'first' / 'overlays'} holds" in err
        report = (folder / second / "report.json").read_text()
        assert report.count('"input"') == 3 and "first/masks holds results" in report


def test_a_folder_that_is_called_masks_is_read_where_no_run_wrote_it(tmp_path):
    for name in ("a/masks/x.png", "b/masks/y.png", "b/report.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("[]")
    found = find_queries([tmp_path], tmp_path / "out")
    assert list(found.files) == ["a/masks/x", "b/masks/y"]
    assert found.notes == ["1 file in --input of other kinds ignored (1 of .json); read are "
                           f"{', '.join(_suffixes())}, and volumes"]


def test_labels_beside_images_are_no_queries_unless_they_are_named(tmp_path):
    for name in ("p1/images/a.png", "p1/labels/a.png", "labels/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_queries([tmp_path], tmp_path / "out")
    assert list(found.files) == ["labels/b", "p1/images/a"], "labels/ alone is a folder like others"
    assert found.notes == [f"{tmp_path / 'p1/labels'} lies beside images/ and was left out; give it as an --input to "
                           "segment it"]
    labels = tmp_path / "p1" / "labels"
    assert list(find_queries([labels], tmp_path / "out").files) == ["a"]
    (tmp_path / "p1" / "README.txt").touch()
    (tmp_path / "p1" / "out" / "masks").mkdir(parents=True)
    (tmp_path / "p1" / "out" / "masks" / "a.png").touch()
    alone = find_queries([tmp_path / "p1"], tmp_path / "p1" / "out")
    assert list(alone.files) == ["a"], "named as its label and its truth are"
    assert alone.notes[0] == found.notes[0] and "1 of .txt" in alone.notes[1]
    (tmp_path / "p1" / "c.png").touch()
    assert list(find_queries([tmp_path / "p1"], tmp_path / "p1" / "out").files) == ["c", "images/a"], "nothing is lost"
    both = find_queries([tmp_path / "p1", labels], tmp_path / "p1" / "out")
    assert len(both.files) == 3 and not any("left out" in note for note in both.notes)


def test_files_that_are_not_read_are_counted(case, capsys):
    folder, arguments = case
    for name in ("a.gif", "b.GIF", "c.txt"):
        (folder / "queries" / "images" / name).touch()
    assert main(arguments) == 0
    said = "3 files in --input of other kinds ignored (2 of .gif, 1 of .txt)"
    assert said in capsys.readouterr().err and said in report_of(folder)["input_notes"][0]
    for path in (folder / "queries" / "images").glob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match="holds no images.*2 of .gif"):
        find_queries([folder / "queries" / "images"], folder / "out")


def test_names_that_differ_by_the_ending_alone(case, capsys):
    folder, arguments = case
    Image.fromarray(discs(1, seed=4)[0][0]).save(folder / "queries" / "images" / "case0.bmp")
    truth = ["--truth", str(folder / "queries" / "labels")]
    assert main([*arguments, *truth]) == 0
    report = report_of(folder)
    assert [row["name"] for row in report["images"]] == ["case0.bmp", "case0.png", "case1", "case2"]
    assert report["images"][1]["mask"] == "masks/case0.png.png" and "dice" in report["images"][1]
    bmp = report["images"][0]
    assert "dice" not in bmp and "no Dice, for the truth cannot be used" in bmp["unscored"] in bmp["notes"]
    assert "2 images have the name of another but for the ending" in capsys.readouterr().err


@pytest.mark.parametrize("there", [0, 1, 3])
def test_the_summary_says_how_many_have_a_truth(case, capsys, there):
    folder, arguments = case
    labels = folder / "queries" / "labels"
    for i in range(there, 3):
        (labels / f"case{i}.png").rename(labels / f"other{i}.png")
    assert main([*arguments, "--truth", str(labels)]) == 0
    out = capsys.readouterr().out
    assert f"{there} of 3 images have a true mask in {labels}" in out
    assert ("a true mask has the path" in out) == (there < 3)
    assert report_of(folder)["with_truth"] == there


def test_masks_of_an_earlier_run_are_counted(case, capsys):
    folder, arguments = case
    assert main(arguments) == 0
    assert "earlier runs" not in capsys.readouterr().out
    (folder / "queries" / "images" / "case2.png").unlink()
    assert main(arguments) == 0
    assert f"other files in the folders of {folder / 'out'}: 1, of earlier runs" in capsys.readouterr().out


def test_notes_name_the_command_s_options(case, capsys):
    folder, arguments = case
    picture = np.array(Image.open(folder / "queries" / "images" / "case0.png")).astype(np.uint16)
    picture[3, 4] = 65_535
    Image.fromarray(picture).save(folder / "queries" / "images" / "case0.png")
    assert main([*arguments, "--members", "4"]) == 0
    err = capsys.readouterr().err
    assert "or --replacement" in err and "clip them with --percentiles 0.1 99.9" in err
    assert "replacement=True" not in err and "Percentiles(" not in err


def test_a_copied_file_is_two_and_a_link_is_one(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").symlink_to("a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "c.png")
    assert len(find_queries([tmp_path, tmp_path / "a.png"], Path("out")).files) == 2


def _suffixes() -> tuple[str, ...]:
    from universeg_rt.imaging.files import SUFFIXES

    return SUFFIXES
