"""What rehearsals share: a bare copy of the tree, what is brought along, a training of seconds."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the steps need torch")
yaml = pytest.importorskip("yaml", reason="the steps need pyyaml")
pytest.importorskip("onnx", reason="emitting the models needs onnx")

from universeg_rt.benchmarks.gpu.steps import beforehand, step
from universeg_rt.checkout import ROOT
from universeg_rt.training.episodes.config import DataConfig, Stage
from universeg_rt.training.episodes.synthetic import SyntheticConfig
from universeg_rt.training.settings.values import to_dict

from ....conftest import native_part
from ....training.conftest import kit  # noqa: F401  fixture


@pytest.fixture(autouse=True)
def path_of_children(monkeypatch):
    """A step sets it for its parts, for as long as its process lives."""
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONSAFEPATH", os.environ.get("PYTHONSAFEPATH", ""))


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """What is sent of the project by itself."""
    target = tmp_path_factory.mktemp("bare") / "tree"
    for path in beforehand.tracked(ROOT):
        to = target / path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
    return target


@pytest.fixture(scope="module")
def upload(typed_bundle, tmp_path_factory) -> Path:
    """With frozen tasks of 32x32 pixels."""
    native_part()
    folder = tmp_path_factory.mktemp("upload")
    assert beforehand.main([str(folder), "--only", "tasks", "--bundle", str(typed_bundle)]) == 0
    return folder


@pytest.fixture(scope="module")
def training(tmp_path_factory, kit) -> list[object]:
    """Options of a step that trains: a config that saves at every step."""
    values = kit.tiny(stages=(Stage(samples=10**6, size=16, entries=(1, 2), queries=2, episodes=1),), static_weight=0.5,
                      checkpoint_samples=2, data=DataConfig(real_probability=0.0, synthetic=SyntheticConfig(
                          families={"layers": 1.0})))
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(to_dict(values)))
    return ["--config", path, "--weights", "none", "--data-root", "unused"]


def lines(out: Path, name: str) -> dict[str, dict]:
    """The last line of each kind; all of them must be whole."""
    return {line["what"]: line for line in map(json.loads, (out / f"{name}.jsonl").read_text().splitlines())}


def check(out: Path) -> None:
    """What a step leaves goes home: few files, none large, each whole."""
    found = [path for path in out.rglob("*") if path.is_file()]
    assert 1 <= len(found) <= step.FILES and all(path.stat().st_size <= step.BYTES for path in found)
    for path in out.glob("*.json"):
        json.loads(path.read_text())
