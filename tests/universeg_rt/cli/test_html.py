"""`report.html`: what the report says and its pictures in one file; safe whatever files are called; a browser shows
it."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("jinja2", reason="the HTML report needs jinja2: pip install '.[medical]'")

from universeg_rt.cli import html
from universeg_rt.cli.html import write_html
from universeg_rt.cli.segment import main
from universeg_rt.imaging.files import write_png

from ...conftest import discs
from ..test_support import write_folder

EVIL = "<script>alert(1)</script>\"'&{{7*7}}"


def report() -> dict:
    """As a batch writes it: an image, a volume with two labels, one that was skipped."""
    seconds = {"preprocess": 0.1, "network": 1.0, "postprocess": 0.2}
    return {
        "versions": {"universeg_rt": "0.1.0", "numpy": "2.0"}, "runner_reason": "the first that starts",
        "notes": [EVIL],
        "input_notes": ["3 files of other kinds"], "bundle": {"name": "shipped", "sha256": "ab" * 32},
        "runner": {"name": "native", "precision": "fp32"}, "support": {"entries": 5, "sha256": "cd" * 32},
        "ensemble": {"members": 2}, "post": ["fill-holes"], "complete": True, "mean_dice": 0.75,
        "images": [
            {"name": "a", "input": f"scans/{EVIL}.png", "overlay": "overlays/a.png", "size": [40, 50],
             "foreground_pixels": 1234, "confidence": 0.91, "dice": 0.8, "seconds": seconds, "notes": [EVIL]},
            {"name": "b", "input": "scans/b.nii.gz", "overlay": "overlays/b.png", "shape": [40, 50, 60],
             "spacing": [1.0, 1.0, 3.5], "axis": "axial", "slices": 60, "blank": 7, "in_support": 5, "notes": [],
             "seconds": seconds, "labels": {
                 "liver": {"voxels": 99, "confidence": 0.4, "dice": 0.7, "slices": [3, 9]},
                 EVIL: {"voxels": 0, "confidence": None, "slices": []}}},
            {"name": "c", "input": "scans/c.png", "error": f"cannot be read ({EVIL})"},
        ],
    }


@pytest.fixture
def page(tmp_path):
    (tmp_path / "overlays").mkdir()
    for i, name in enumerate("ab"):
        write_png(tmp_path / "overlays" / f"{name}.png", np.full((30, 40, 3), 100 * i + 50, np.uint8))
    return write_html(tmp_path, report(), EVIL)


def test_all_of_the_report_is_in_it(page):
    text = page.read_text()
    for said in ("0.750", "liver", "1,234", "0.91", "1.0 x 1.0 x 3.5 mm".replace(".0", ""), "fill-holes", "ab" * 32,
                 "cd" * 32, "universeg rt", "the first that starts", "3 files of other kinds", "Look at these first",
                 "Skipped", "scans/c.png", "3 to 9", "network 1.00 s", "2 of 3",
                 "60 slices, 7 blank, 5 in the support"):
        assert said in text, said
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert [np.array(Image.open(io.BytesIO(base64.b64decode(data))))[0, 0, 0] for data in pictures] == [50, 150]


def test_a_label_without_a_voxel_comes_first_and_one_without_a_name_is_called_as_in_the_report(page):
    text = page.read_text()
    first = re.search(r"Look at these first</h2>(.*?)</table>", text, re.DOTALL)[1]
    rows = re.findall(r"<tr><td>.*?</tr>", first)
    assert [re.search(r'<td class="n">(.*?)</td>', row)[1] for row in rows] == ["empty", "0.40", "0.91"]
    assert "&lt;script&gt;" in rows[0] and "<td>label 1</td>" in rows[2] and text.count("<td>label 1</td>") == 2


def test_nothing_in_it_runs_or_asks_the_network(page):
    text = page.read_text()
    assert "<script" not in text and text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 6
    assert not re.search(r"(src|href)=[\"'](?!data:image/png;base64,|#case-\d)", text)
    assert not re.search(r"https?://|@import|url\(", text)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert "49" not in text.replace("{{7*7}}", "")[:200]


def test_names_that_are_no_text_do_not_stop_it(tmp_path):
    content = report()
    content["images"][0]["input"] = "scans/\udcff.png"
    assert "\\udcff.png" in write_html(tmp_path, content).read_text()


def test_an_interrupted_run_says_so_and_a_missing_picture_is_named(tmp_path):
    text = write_html(tmp_path, {
        **report(), "complete": False, "unfinished": {"name": EVIL, "slices": 3, "of": 9}}).read_text()
    assert "3 of 9 slices were done" in text and "<script" not in text
    assert "interrupted" in text and "--resume" in text and "overlays/a.png does not exist" in text


def test_pictures_beyond_the_limit_stay_files(page, monkeypatch):
    monkeypatch.setattr(html, "EMBEDDED", (page.parent / "overlays" / "a.png").stat().st_size)
    text = write_html(page.parent, report()).read_text()
    assert text.count("data:image/png") == 1 and "picture in overlays/b.png" in text


def test_the_command_writes_it(tmp_path, small_bundle):
    write_folder(tmp_path / "support", *discs(5))
    write_folder(tmp_path / "queries", *discs(2, 50, 44, seed=8))
    arguments = ["--bundle", str(small_bundle), "--support", str(tmp_path / "support"), "--input",
                 str(tmp_path / "queries" / "images"), "--output", str(tmp_path / "out"), "--truth",
                 str(tmp_path / "queries" / "labels"), "--html"]
    assert main(arguments) == 0
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["images"]
    text = (tmp_path / "out" / "report.html").read_text()
    assert text.count("data:image/png") == 2 and all(f"{row['dice']:.3f}" in text for row in rows)


def test_without_jinja2_it_says_what_to_install_before_anything_is_read(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    assert main(["--support", "absent", "--input", "absent", "--output", str(tmp_path / "out"), "--html"]) == 1
    err = capsys.readouterr().err
    assert "jinja2" in err and "pip install '.[medical]'" in err and not (tmp_path / "out").exists()


def test_a_browser_shows_it(page, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed here, which opens the report")
    start = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
             "--window-size=1200,1600", "--hide-scrollbars"]
    done = subprocess.run([*start, f"--screenshot={tmp_path / 'page.png'}", page.as_uri()], capture_output=True,
                          text=True, timeout=300)
    assert (tmp_path / "page.png").is_file(), done.stderr
    with Image.open(tmp_path / "page.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    for grey in (50, 150):  # both embedded pictures are there
        assert (pixels == grey).all(axis=-1).sum() >= 1000
    dump = subprocess.run([*start, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=300).stdout
    assert "liver" in dump and "<script" not in dump
