"""The README's own words hold: its Python runs, its commands exist, its files are there."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np

from .conftest import ROOT, discs

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_runs():
    images, labels = discs(3, 64, 64)
    names = {"images": images, "labels": labels, "image": discs(1, 70, 90, seed=5)[0][0]}
    (code,) = [block for block in blocks("python") if "Segmenter.open()" in block]
    exec(compile(code, "README.md", "exec"), names)
    assert names["prediction"].mask.shape == (70, 90) and np.isfinite(names["prediction"].probability).all()


def test_the_commands_exist_with_their_options():
    modules = {"universeg-segment": "universeg_rt.cli.segment", "universeg-export": "universeg_rt.export.cli"}
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    seen = set()
    for line in lines:
        command = line.split()[0] if line.split() else ""
        if command in modules:
            seen.add(command)
            text = subprocess.run([sys.executable, "-m", modules[command], "--help"], capture_output=True, text=True, check=True).stdout
            for option in re.findall(r"--[a-z-]+", line):
                assert option in text, f"{command} has no {option}"
    assert seen == set(modules)


def test_make_commands_come_first_and_exist():
    makefile = (ROOT / "Makefile").read_text()
    first = blocks("bash")[0]
    for target in ("demo", "test"):
        assert f"make {target}" in first and f"\n{target}:" in makefile


def test_the_files_it_shows_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target
