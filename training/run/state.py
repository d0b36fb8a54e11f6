"""Training state and weights on disk: written whole or not at all, read without running pickles."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from pathlib import Path

import torch

from universeg_rt.errors import CheckpointError, SpecError
from universeg_rt.spec import NetworkSpec
from universeg_rt.storage.atomic import write_file
from universeg_rt.storage.reading import reading
from universeg_rt.training.network.checkpoint import check_weights, plain_arrays, read_torch, save_checkpoint
from universeg_rt.training.network.reference import UniverSeg
from universeg_rt.training.run.config import TrainConfig
from universeg_rt.training.settings.values import to_dict

KEYS = {"model", "average", "optimiser", "scaler", "step", "samples", "best", "begun_from_weights", "spec", "config"}


def write_state(path: Path, state: dict) -> None:
    """Everything that a run needs to go on, atomically."""
    with write_file(path) as file:
        torch.save(state, file)


def read_state(path: Path, spec: NetworkSpec, device="cpu") -> dict:
    """Read a state back; CheckpointError where it is damaged, of another network, or could not be gone on with."""
    what, cure = "a whole training state", "remove it to begin anew, or restore a copy"
    with reading(what, path, CheckpointError, cure=cure):
        state = read_torch(path, what, device)
        if not isinstance(state, dict) or set(state) != KEYS:
            raise CheckpointError(f"{path} is not a training state of this version; remove it to begin anew")
        try:
            stored = NetworkSpec.from_json(state["spec"])
        except SpecError as error:
            raise CheckpointError(f"{path} is not {what} ({error}); {cure}") from None
        if stored != spec:
            raise CheckpointError(
                f"{path} trains the network {stored.to_json()}, the config asks for {spec.to_json()}; use another "
                "output folder"
            )
        for name in ("model", "average"):
            check_weights(spec, plain_arrays(state[name], f"{path}: {name}"), f"{path}: {name}")
        _check_counts(state)
        _check_optimiser(state["optimiser"], spec)
    return state


def _check_counts(state: dict) -> None:
    """ValueError where a count, the best score, the loss's scale or the config is not what a run writes."""
    counts, best, scaler = (state["step"], state["samples"]), state["best"], state["scaler"]
    if not all(type(n) is int and 0 <= n < 2**53 for n in counts):
        raise ValueError("its counts of steps and samples are no counts")
    if not isinstance(best, dict) or type(best["stage"]) is not int or not -1.0 <= float(best["dice"]) <= 1.0:
        raise ValueError("its best score is none")
    if not isinstance(scaler, dict) or not all(
            type(n) in (int, float) and math.isfinite(n) and n >= 0 for n in scaler.values()):
        raise ValueError("the scale of its loss is none")
    if not isinstance(json.loads(state["config"]), dict):
        raise ValueError("its config is none")


def _check_optimiser(values: dict, spec: NetworkSpec) -> None:
    """Take a step with gradients of zero, on weights that are thrown away: what is amiss fails here, before the run."""
    with torch.device("meta"):
        shapes = [p.shape for p in UniverSeg(spec).parameters()]
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
    optimiser = torch.optim.Adam(parameters)
    optimiser.load_state_dict(copy.deepcopy(values))  # it would keep the tensors, and the step would change them
    for index, moments in optimiser.state_dict()["state"].items():
        for name, value in moments.items():
            if value.shape not in (torch.Size(()), shapes[index]) or not value.isfinite().all():
                raise ValueError(f"{name} of the optimiser's weight {index} does not fit or is not finite")
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    if not all(p.isfinite().all() for p in parameters):
        raise ValueError("the optimiser's next step would not be finite")


def write_best(path: Path, config: TrainConfig, weights: dict[str, torch.Tensor], facts: dict) -> None:
    """Weights as safetensors with the specification, the whole config and what is known of them."""
    text = json.dumps(portable_config(config), sort_keys=True)
    metadata = {"training_config": text, "training_config_sha256": hashlib.sha256(text.encode()).hexdigest(),
                **{key: json.dumps(value) for key, value in facts.items()}}
    arrays = {key: value.detach().float().cpu().contiguous().numpy() for key, value in weights.items()}
    save_checkpoint(path, config.network.spec(), arrays, metadata)


def portable_config(config: TrainConfig) -> dict:
    """The config as plain values, data sets by file name:
    weights travel, and where a machine keeps its files does not."""
    values = to_dict(config)
    values["data"]["data_root"] = ""
    for part in ("data", "validation"):
        values[part]["datasets"] = [Path(name).name for name in values[part]["datasets"]]
    return values
