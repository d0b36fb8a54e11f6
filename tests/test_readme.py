"""What the READMEs say holds: their Python runs, their commands, links, modules and paths exist."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from universeg_rt import Segmenter, SupportSet
from universeg_rt.bundle.onnx_file import metadata
from universeg_rt.frozen.record import KEY as RECORD

from .conftest import ROOT, discs

ROOMS = ("universeg_rt", "export", "kernels", "training", "benchmarks", "tests")
FRONT = ROOT / "README.md"
SDK = ROOT / "universeg_rt"
PAGES = sorted({*ROOT.glob("*.md"), *(page for room in ROOMS for page in (ROOT / room).rglob("*.md"))})
MODULES = {
    "universeg-segment": "universeg_rt.cli.segment",
    "universeg-export": "universeg_rt.export.cli",
    "universeg-train": "universeg_rt.training.run.cli",
    "universeg-evaluate": "universeg_rt.training.evaluation.evaluate",
    "universeg-bench": "universeg_rt.benchmarks.cpu.bench",
}
NEED_TORCH = ("universeg-train", "universeg-evaluate", "universeg-bench")
CHANGES = ROOT / "CHANGELOG.md"


def each(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=[page.relative_to(ROOT).as_posix() for page in pages])


every_page = each(PAGES)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def joined(page: Path) -> str:
    """The page with lines that end in a backslash joined to the next."""
    return re.sub(r"\\\n\s*", " ", page.read_text())


def code_of(page: Path) -> str:
    """What a page shows in backticks, in blocks and in indented lines, a piece a line."""
    text = joined(page)
    fenced = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    spans, indented = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text), re.findall(r"^    (\S.*)$", text, flags=re.MULTILINE)
    return "\n".join([*fenced, *spans, *indented])


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def help_of(module: str) -> str:
    return subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True).stdout


def assert_options_exist(line: str, module: str) -> None:
    for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", line):
        assert re.search(rf"{option}\b", help_of(module)), f"{module} has no {option}: {line}"


@pytest.mark.parametrize("page", [FRONT, SDK / "README.md"], ids=["front", "sdk"])
def test_the_first_python_runs(page):
    images, labels = discs(16, 64, 64)
    names = {"images": images, "labels": labels, "image": discs(1, 70, 90, seed=5)[0][0]}
    code = blocks(page, "python")[0]
    assert len(code.splitlines()) <= 6 and "members=1, support_size=16" in code
    exec(compile(code, str(page), "exec"), names)
    assert names["prediction"].mask.shape == (70, 90) and np.isfinite(names["prediction"].probability).all()


def test_one_example_is_too_few_as_the_page_says():
    page = SDK / "docs" / "choosing.md"
    (code,) = blocks(page, "python")
    names: dict = {}
    exec(compile(code, str(page), "exec"), names)
    (truth, copied), *more = names["scores"].values()
    (found, _), (nearly, _) = more
    said = [float(figure) for figure in re.findall(r"\((?:Dice )?([01]\.\d+)\)", page.read_text())][:4]
    assert said == pytest.approx([truth, copied, found, nearly], abs=0.02)


def test_the_page_on_frozen_tasks_runs_and_names_all_that_a_file_holds(small_bundle, tmp_path, monkeypatch):
    page = (SDK / "docs" / "frozen.md").read_text()
    (code,) = blocks(SDK / "docs" / "frozen.md", "python")
    monkeypatch.chdir(tmp_path)
    task = Segmenter.open(small_bundle).prepare(SupportSet.from_arrays(*discs(4)))
    names = {"task": task, "image": discs(1, 70, 90, seed=5)[0][0]}
    exec(compile(code, "frozen.md", "exec"), names)
    assert names["mask"].shape == (70, 90)
    task.freeze(kind="static").save("static.onnx")
    for file in ("task.onnx", "static.onnx"):
        held = metadata((tmp_path / file).read_bytes())
        record = json.loads(held[RECORD])
        for name in (*held, *record, *record["price"]):
            assert f"`{name}`" in page, name


def test_the_page_on_volumes_runs(small_bundle, tmp_path, monkeypatch):
    nibabel = pytest.importorskip("nibabel", reason="volumes need nibabel: pip install '.[medical]'")
    (code,) = blocks(SDK / "docs" / "volumes.md", "python")
    images, labels = discs(9, 24, 28)
    for folder, part, values in (("labelled", "images", images), ("labelled", "labels", labels), ("scans", "", images)):
        (tmp_path / folder / part).mkdir(parents=True, exist_ok=True)
        volume = np.stack(values, axis=2).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / folder / part / "p1.nii.gz")
    monkeypatch.chdir(tmp_path)
    opened = Segmenter.open(small_bundle)
    monkeypatch.setattr(Segmenter, "open", lambda: opened)
    exec(compile(code, "volumes.md", "exec"), {})
    assert nibabel.load("p1_labels.nii.gz").shape == (24, 28, 9)


@every_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), target
        assert not anchor or anchor in anchors(to), target


@every_page
def test_modules_exist(page):
    for module in set(re.findall(r"(?:\bpython|torchrun[^\n]*) -m ([\w.]+)", joined(page))):
        if module.split(".")[0] not in ("universeg_rt", "tests"):
            continue
        assert find_spec(module) is not None, module
        package = find_spec(module).submodule_search_locations
        assert package is None or find_spec(f"{module}.__main__") is not None, f"{module} is a package without __main__"


@every_page
def test_imports_exist(page):
    for module in set(re.findall(r"^(?:from|import) (universeg_rt[\w.]*)", page.read_text(), flags=re.MULTILINE)):
        assert find_spec(module) is not None, module


@each([page for page in PAGES if page != CHANGES])  # which may name what is gone
def test_paths_exist(page):
    """A path in code that begins with a room's name, from the checkout's top or from the page's own folder."""
    built = ("kernels/lib",)
    for path in set(re.findall(rf"(?<![\w./-])((?:{'|'.join(ROOMS)})/[\w./-]*\w/?)(?![\w*{{])", code_of(page))):
        if not path.startswith(built):
            assert (ROOT / path).exists() or (page.parent / path).exists(), path


@every_page
def test_commands_have_their_options(page):
    for line in code_of(page).splitlines():
        for part in re.split(r"\s#|&&|;", line):
            words = part.split()
            if words and words[0] in MODULES and (words[0] not in NEED_TORCH or find_spec("torch")):
                assert_options_exist(part, MODULES[words[0]])


def test_the_sdk_and_the_export_show_their_commands():
    export = ROOT / "export" / "README.md"
    for page, command in {FRONT: "segment", SDK / "README.md": "segment", export: "export"}.items():
        lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
        assert any(shlex.split(line, comments=True)[:1] == [f"universeg-{command}"] for line in lines), (page, command)


def test_make_commands_come_first_and_exist():
    makefile = (ROOT / "Makefile").read_text()
    first = blocks(FRONT, "bash")[0]
    for target in ("demo", "test"):
        assert f"make {target}" in first and f"\n{target}:" in makefile


def test_the_front_page_leads_to_every_room():
    text = FRONT.read_text()
    for room in ROOMS:
        assert re.search(rf"\]\({room}/[\w/]+\.md|`{room}/`", text), room


def test_every_room_says_what_it_is_for():
    for room in ROOMS[:-1]:
        for init in (ROOT / room).rglob("__init__.py"):
            assert init.read_text().startswith('"""'), f"{init.relative_to(ROOT)} does not say what its room is for"


def test_the_citation_has_the_version():
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in CHANGES.read_text()


def test_what_has_not_run_on_a_gpu_is_said_once():
    said = re.compile(r"(run|runs|ran)\s+on\s+a\s+GPU\s+yet|never\s+(yet\s+)?run\s+(on|inside)", re.IGNORECASE)
    assert {page.relative_to(ROOT).as_posix(): len(said.findall(page.read_text())) for page in PAGES
            if said.search(page.read_text())} == {"README.md": 1}


@pytest.mark.parametrize("page", ["README.md", "training/MODEL_CARD.md"])
def test_the_tables_of_quality_are_the_figures_measured(page):
    """Of the group tune, test splits: queries and the mean Dice of each way, task by task."""
    with open(ROOT / "benchmarks/results/cpu/tune.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["queries"]]
    lines = (ROOT / page).read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|") and "| exact | static |" in line
                 and line.endswith(("| atlas | copy |", "| auto: verdict |")))
    columns = [cell.strip() for cell in lines[first].split("|")]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    for task, line in zip(tasks, lines[first + 2 :]):
        cells = dict(zip(columns, (cell.strip() for cell in line.split("|"))))
        for row in (row for row in rows if row["task"] == task and row["method"] in columns):
            assert cells["queries"] == row["queries"], (task, line)
            assert cells[row["method"]].split()[0] == f"{float(row['dice']):.3f}", (task, row["method"])
