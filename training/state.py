"""Training state and weights on disk: written whole or not at all, read without running pickles."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from universeg_rt.atomic import write_file
from universeg_rt.errors import CheckpointError
from universeg_rt.spec import NetworkSpec
from universeg_rt.training.checkpoint import save_checkpoint
from universeg_rt.training.config import TrainConfig, to_dict

KEYS = {"model", "average", "optimiser", "scaler", "step", "samples", "best", "begun_from_weights", "spec", "config"}


def write_state(path: Path, state: dict) -> None:
    """Everything that a run needs to go on, atomically."""
    with write_file(path) as file:
        torch.save(state, file)


def read_state(path: Path, spec: NetworkSpec, device="cpu") -> dict:
    """Read a state back; CheckpointError where it is damaged or of another network."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} is not a whole training state ({reason}); remove it to begin anew, or restore a copy") from None
    if not isinstance(state, dict) or set(state) != KEYS:
        raise CheckpointError(f"{path} is not a training state of this version; remove it to begin anew")
    if NetworkSpec.from_json(state["spec"]) != spec:
        raise CheckpointError(
            f"{path} trains the network {state['spec']}, the config asks for {spec.to_json()}; use another output folder")
    return state


def write_best(path: Path, config: TrainConfig, weights: dict[str, torch.Tensor], facts: dict) -> None:
    """Weights as safetensors with the specification, the whole config and what is known of them."""
    text = json.dumps(portable_config(config), sort_keys=True)
    metadata = {"training_config": text, "training_config_sha256": hashlib.sha256(text.encode()).hexdigest(),
                **{key: json.dumps(value) for key, value in facts.items()}}
    arrays = {key: value.detach().float().cpu().contiguous().numpy() for key, value in weights.items()}
    save_checkpoint(path, config.network.spec(), arrays, metadata)


def portable_config(config: TrainConfig) -> dict:
    """The config as plain values, data sets by file name: weights travel, and where a machine keeps its files does not."""
    values = to_dict(config)
    values["data"]["data_root"] = ""
    for part in ("data", "validation"):
        values[part]["datasets"] = [Path(name).name for name in values[part]["datasets"]]
    return values
