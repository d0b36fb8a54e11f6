"""Imports between rooms form no circle: neither between the folders at the top, nor inside any folder."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SDK, ROOMS = "universeg_rt", ("export", "kernels", "training", "benchmarks")  # setup.py installs the others inside it

Module = tuple[str, ...]  # folders and file below the root: ("training", "run", "train"); a package's ends in __init__


def modules(root: Path) -> dict[Module, Path]:
    """Every Python file of the rooms."""
    return {file.relative_to(root).with_suffix("").parts: file
            for room in (SDK, *ROOMS) for file in sorted((root / room).rglob("*.py"))}


def imported(module: Module, text: str, known: dict[Module, Path]) -> Iterator[Module]:
    """The modules that a module's text imports: also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = (module[:-node.level] if module[0] == SDK else (SDK, *module)[:-node.level]) if node.level else ()
            start += tuple(node.module.split(".")) if node.module else ()
            names = [(*start, alias.name) for alias in node.names]
        else:
            continue
        for name in names:
            found = _resolve(name, known)
            if found is not None and found != module:
                yield found


def _resolve(name: Module, known: dict[Module, Path]) -> Module | None:
    """The module in which a dotted name lies; None outside the rooms."""
    if name[:1] == (SDK,) and name[1:2] and name[1] in ROOMS:
        name = name[1:]
    for end in range(len(name), 0, -1):
        for module in (name[:end], (*name[:end], "__init__")):
            if module in known:
                return module
    return None


def circles(root: Path) -> list[str]:
    """Each folder whose files and folders import one another in a circle, with the imports of that circle."""
    known = modules(root)
    graphs: dict[Module, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    reasons: dict[tuple[Module, str, str], str] = {}
    for module, file in known.items():
        for other in imported(module, file.read_text(), known):
            depth = next(i for i, (a, b) in enumerate(zip(module, other)) if a != b)
            folder, above, below = module[:depth], module[depth], other[depth]
            graphs[folder][above].add(below)
            reasons.setdefault((folder, above, below), f"{'/'.join(module)} imports {'/'.join(other)}")
    out = []
    for folder, graph in sorted(graphs.items()):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            ring = error.args[1][::-1]
            out.append(f"{'/'.join(folder) or 'the top'}: "
                       + "; ".join(reasons[folder, above, below] for above, below in zip(ring, ring[1:])))
    return out


def test_no_circle_of_imports():
    assert circles(ROOT) == []


@pytest.mark.parametrize("text", [
    "from universeg_rt.training.run import train",
    "def f():\n    from ..run.train import go",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from universeg_rt.training.run.train import go",
    "import universeg_rt.training.run.train",
])
def test_finds_a_circle(tmp_path, text):
    for name, content in {"run/train.py": "from ..tasks.tasks import Task", "tasks/tasks.py": text}.items():
        file = tmp_path / "training" / name
        file.parent.mkdir(parents=True)
        file.write_text(content)
    (found,) = circles(tmp_path)
    assert "training/run/train imports training/tasks/tasks" in found and found.startswith("training: ")


def test_finds_a_circle_between_the_top_rooms(tmp_path):
    for name, content in {"export/a.py": "import universeg_rt.training.b", "training/b.py": "from ..export import a",
                          "universeg_rt/c.py": "from .d import x", "universeg_rt/d.py": ""}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    (found,) = circles(tmp_path)
    assert found.startswith("the top: ")
