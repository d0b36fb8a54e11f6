"""Fixtures of the training tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def training_folder():
    """The folder `training/` of this clone."""
    return ROOT / "training"


@pytest.fixture(scope="session")
def data_folder():
    """Real tasks, in the optional material folder (UNIVERSEG_RT_MATERIAL, else `shared/` beside the clone)."""
    folder = Path(os.environ.get("UNIVERSEG_RT_MATERIAL", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip("data is not in this clone's material folder (set UNIVERSEG_RT_MATERIAL to point to it)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors: more threads would only wait for each other, badly so on a busy machine."""
    try:
        import torch
    except ImportError:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def kit():
    """What tests of runs share: tiny(**changes) configures a run of seconds, real_task() makes a task of bright
    squares, trained(config, output) trains, write_run(folder) writes a config and gives the command of an endless
    run."""
    import sys
    from types import SimpleNamespace

    np, yaml = pytest.importorskip("numpy"), pytest.importorskip("yaml")
    from universeg_rt.training.episodes.config import DataConfig, Stage
    from universeg_rt.training.episodes.synthetic import SyntheticConfig
    from universeg_rt.training.run.config import NetworkConfig, TrainConfig
    from universeg_rt.training.run.train import Trainer
    from universeg_rt.training.settings.values import to_dict
    from universeg_rt.training.tasks.tasks import Task

    def tiny(**changes):
        values = dict(
            network=NetworkConfig("v1", 4), stages=(Stage(samples=48, size=16, entries=(1, 3), queries=2, episodes=2),),
            data=DataConfig(real_probability=0.0), warmup_steps=4, checkpoint_samples=16)
        return TrainConfig(**{**values, **changes})

    def real_task(count=12, size=32, name="squares", dataset=""):
        random = np.random.default_rng(0)
        images, labels = random.integers(0, 60, (count, size, size)).astype(np.uint8), np.zeros((count, size, size),
                                                                                                np.uint8)
        for i in range(count):
            y, x = random.integers(2, size - 14, 2)
            labels[i, y : y + 11, x : x + 11] = 1
        return Task(name, images + 150 * labels, labels, np.array([f"s{i // 2}" for i in range(count)]), dataset)

    def trained(config, output, tasks=(), held_out=(), **options):
        trainer = Trainer(config, list(tasks), list(held_out), output)
        trainer.resume()
        trainer.run(progress=False, **options)
        return trainer

    def write_run(folder, samples=100_000):
        """A config file of a run without end, and the command that starts it."""
        config = tiny(stages=(Stage(samples=samples, size=16, entries=(1, 2), queries=1, episodes=1), ),
                      checkpoint_samples=1, data=DataConfig(real_probability=0.0,
                                                            synthetic=SyntheticConfig(families={"layers": 1.0})))
        (folder / "run.yaml").write_text(yaml.safe_dump(to_dict(config)))
        return [
            sys.executable, "-m", "universeg_rt.training.run.cli",
            str(folder / "run.yaml"), "--output",
            str(folder / "out"), "--threads", "1", "--no-progress"
        ]

    return SimpleNamespace(tiny=tiny, real_task=real_task, trained=trained, write_run=write_run)
