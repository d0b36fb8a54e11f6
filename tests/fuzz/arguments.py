"""Commands' arguments: odd numbers, names and paths in every option; a command ends with a status, never with a
traceback."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import yaml

from universeg_rt.training.network.checkpoint import save_checkpoint

from ..conftest import SMALL_SPEC, random_weights

# What stands for an option's value; {} is the folder of the files below.
WORDS = ("", "-1", "0", "1", "7", "99999999999999999999", "1e9", "nan", "x", "é", "\udcff", "cpu", "cuda", "cuda:99",
         "meta", "v1", "paper", "fp32", "test", "/dev/zero", "/dev/full", "/dev/null/x", "/proc/self/mem", "{}/pipe",
         "{}/pipe.npz", "{}/pipe.yaml", "{}/pipe.safetensors", "{}/nothing", "{}", "{}/file", "{}/file/below",
         "{}/d.yaml", "{}/c.yaml", "{}/s.json", "{}/w.safetensors", "{}/loop", "a\0b", "x" * 5000)
# Commands that end soon whatever they are given, with arguments that are right.
COMMANDS = {
    "training.run.cli": [
        "{}/c.yaml", "--output", "{}/run", "--data-root", "{}", "--weights", "{}/w.safetensors", "--threads", "1",
        "--device", "cpu", "--stop-after", "1", "--no-progress"
    ],
    "training.evaluation.ablation": [
        "{}/c.yaml", "{}/study.yaml", "--output", "{}/study", "--data-root", "{}", "--seeds", "1", "--threads", "1"
    ],
    "export.cli": ["--explain", "--spec", "{}/s.json", "--grid", "16", "16", "--checkpoint", "{}/w.safetensors"],
    "cli.demo": ["--output", "{}/file/below", "--bundle", "{}/nothing"],
}


def cases(rng: random.Random, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    _write(folder)
    os.chdir(folder)  # where a relative --output lands
    for module, words in COMMANDS.items(
    ):  # right arguments first: what torch imports at its first step is not a case's
        _run(module, [w.replace("{}", str(folder)) for w in words])
    while True:
        module = rng.choice(sorted(COMMANDS))
        words = list(COMMANDS[module])
        for _ in range(rng.choice((1, 1, 2))):
            words[rng.randrange(len(words))] = rng.choice(WORDS)
        if rng.random() < 0.1:
            del words[rng.randrange(len(words))]
        given = [word.replace("{}", str(folder)) for word in words]
        yield f"{module} {' '.join(w[:40] for w in words)}", lambda module=module, given=given: _run(module, given)


def _write(folder: Path) -> None:
    images, labels = np.full((8, 16, 16), 9, np.uint8), np.zeros((8, 16, 16), np.uint8)
    images[:, 4:9, 4:9] = 200
    labels[:, 4:9, 4:9] = 1
    np.savez(folder / "t.npz", images=images, labels=labels, ids=np.array([f"s{i}" for i in range(8)]))
    stage = {"samples": 1, "size": 16, "entries": [1, 1], "queries": 1, "episodes": 1}
    config = {"network": {"features": 2}, "stages": [stage], "data": {"datasets": ["d.yaml"]}}
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    (folder / "d.yaml").write_text("{name: d, licence: x, tasks: [{name: t, file: t.npz}]}")
    (folder / "e.yaml").write_text("{name: e, licence: x, tasks: [{name: u, file: t.npz}]}")
    (folder / "study.yaml"
     ).write_text("{base: {}, held_out: {k: [e.yaml]}, variants: {a: {}}, evaluation: {entries: 1, queries: 1}}")
    (folder / "s.json").write_text(SMALL_SPEC.to_json())
    save_checkpoint(folder / "w.safetensors", SMALL_SPEC, random_weights(SMALL_SPEC))
    (folder / "file").write_text("a file")
    (folder / "loop").symlink_to(folder / "loop")
    for name in ("pipe", "pipe.npz", "pipe.yaml", "pipe.safetensors"):
        os.mkfifo(folder / name)


def _run(module: str, words: list[str]) -> None:
    main = importlib.import_module(f"universeg_rt.{module}").main
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            status = main(words)
        except SystemExit as ended:  # argparse
            status = ended.code
    assert status in (0, 1, 2), f"status {status}"
    assert status == 0 or said.getvalue().strip(), f"status {status} without a word"
