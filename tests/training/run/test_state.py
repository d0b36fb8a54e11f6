"""Training states: each part that is amiss is refused before the run goes on, with what to do."""

from __future__ import annotations

import os

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
pytest.importorskip("yaml", reason="pyyaml is not installed: pip install '.[train]'")
pytest.importorskip("safetensors", reason="safetensors is not installed: pip install '.[train]'")

from universeg_rt.errors import CheckpointError
from universeg_rt.training.run.state import read_state
from universeg_rt.training.run.train import STATE

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def run(kit, tmp_path_factory):
    """The folder of a run of some steps, and its network."""
    folder, config = tmp_path_factory.mktemp("run"), kit.tiny()
    kit.trained(config, folder, stop_after_samples=8)
    return folder, config.network.spec()


@pytest.mark.parametrize("part, spoil, message", [
    ("step", lambda _: "7", "counts of steps and samples"),
    ("samples", lambda _: -1, "counts of steps and samples"),
    ("step", lambda _: True, "counts of steps and samples"),
    ("best", lambda _: {}, "KeyError 'stage'"),
    ("best", lambda b: {**b, "dice": float("nan")}, "best score"),
    ("scaler", lambda _: {"scale": float("inf")}, "scale of its loss"),
    ("scaler", lambda _: [], "scale of its loss"),
    ("config", lambda _: "[]", "its config"),
    ("config", lambda _: None, "cannot be read as a whole training state"),
    ("spec", lambda _: 3, "not a whole training state .network specification"),
    ("spec", lambda _: "{}", "not a whole training state"),
    ("model", lambda _: {}, "model holds no state dict"),
    ("average", lambda _: [1], "average holds no state dict"),
    ("average", lambda w: {k: v[:1]
                           for k, v in w.items()}, "average does not fit the network: misshapen"),
    ("model", lambda w: {k: v * torch.nan
                         for k, v in w.items()}, "model does not fit the network: not finite"),
    ("model", lambda w: {k: v.int()
                         for k, v in w.items()}, "not dense arrays"),
    ("optimiser", lambda _: {}, "KeyError"),
    ("optimiser", lambda o: {**o, "param_groups": []}, "cannot be read as a whole training state"),
    ("optimiser", lambda o: {**o, "param_groups": [{**o["param_groups"][0], "betas": "x"}]},
     "cannot be read as a whole training state"),
    ("optimiser",
     lambda o: {**o, "state": {k: {**v, "exp_avg": v["exp_avg"] * torch.nan}
                               for k, v in o["state"].items()}}, "is not finite"),
    ("optimiser", lambda o: {**o, "state": {k: {**v, "exp_avg_sq": torch.zeros(3, 3)}
                                            for k, v in o["state"].items()}}, "does not fit"),
    ("optimiser",
     lambda o: {**o, "state": {k: {**v, "exp_avg_sq": -v["exp_avg_sq"] - 1}
                               for k, v in o["state"].items()}}, "next step"),
])
def test_a_part_that_is_amiss_is_refused(run, tmp_path, part, spoil, message):
    folder, spec = run
    state = torch.load(folder / STATE, weights_only=True)
    torch.save({**state, part: spoil(state[part])}, tmp_path / STATE)
    with pytest.raises(CheckpointError, match=message):
        read_state(tmp_path / STATE, spec)


def test_what_a_run_wrote_is_read(run):
    folder, spec = run
    state, same = read_state(folder / STATE, spec), torch.load(folder / STATE, weights_only=True)
    assert state["samples"] == 8
    for index, moments in same["optimiser"]["state"].items():  # the trial step left them as they were
        assert all(torch.equal(value, state["optimiser"]["state"][index][name]) for name, value in moments.items())


def test_a_pipe_is_no_state(run, tmp_path):
    os.mkfifo(tmp_path / STATE)
    with pytest.raises(CheckpointError, match="is a pipe or a device"):
        read_state(tmp_path / STATE, run[1])
