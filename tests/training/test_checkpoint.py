"""Checkpoints: what is read, what is refused and why, and that no pickle ever runs code."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")

from universeg_rt.errors import CheckpointError, OutputError, SpecError
from universeg_rt.spec import NetworkSpec
from universeg_rt.training.checkpoint import load_checkpoint, save_checkpoint, weights_sha256

from ..conftest import SMALL_SPEC, random_weights

pytestmark = pytest.mark.torch


def tensors(weights):
    return {k: torch.from_numpy(v) for k, v in weights.items()}


def test_safetensors_carry_their_specification(tmp_path):
    weights = random_weights(SMALL_SPEC)
    save_checkpoint(tmp_path / "w.safetensors", SMALL_SPEC, weights, {"licence": "x"})
    spec, loaded, metadata = load_checkpoint(tmp_path / "w.safetensors")
    assert spec == SMALL_SPEC and metadata["licence"] == "x"
    assert weights_sha256(loaded) == weights_sha256(weights)
    with pytest.raises(CheckpointError, match="was asked for"):
        load_checkpoint(tmp_path / "w.safetensors", NetworkSpec.preset("v1"))


def test_a_pt_file_needs_a_specification(tmp_path):
    torch.save(tensors(random_weights(SMALL_SPEC)), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="does not say which network"):
        load_checkpoint(tmp_path / "w.pt")
    assert load_checkpoint(tmp_path / "w.pt", SMALL_SPEC)[0] == SMALL_SPEC


def test_missing_unexpected_misshapen_and_non_finite_keys_are_all_listed(tmp_path):
    weights = random_weights(SMALL_SPEC)
    del weights["out_conv.conv.bias"]
    weights["extra"] = np.zeros(1, np.float32)
    weights["enc_blocks.0.cross.cross_conv.weight"] = np.zeros((6, 3, 3, 1), np.float32)
    weights["dec_blocks.0.target.vmapped.conv.bias"][0] = np.nan
    torch.save(tensors(weights), tmp_path / "w.pt")
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(tmp_path / "w.pt", SMALL_SPEC)
    for part in ("missing keys: out_conv.conv.bias", "unexpected keys: extra", "is (6, 3, 3, 1), expected (6, 3, 3, 3)",
                 "not finite: dec_blocks.0.target.vmapped.conv.bias"):
        assert part in str(error.value)


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, zipped):
    torch.save({"w": RunsCode(tmp_path / "ran")}, tmp_path / "evil.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="would run code or fail"):
        load_checkpoint(tmp_path / "evil.pt", SMALL_SPEC)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name, content, message", [
    ("w.safetensors", b"", "not a whole safetensors file"), ("w.safetensors", b"\xff" * 100, "not a whole safetensors file"),
    ("w.pt", b"PK\x03\x04 broken", "not a"), ("w.pt", b"", "not a"), ("w.onnx", b"x", "no known kind of checkpoint"),
])
def test_files_that_are_no_checkpoint(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / name, SMALL_SPEC)


def test_other_things_in_a_pt_file(tmp_path):
    for thing in ([1, 2], {"epoch": 3}, {}):
        torch.save(thing, tmp_path / "w.pt")
        with pytest.raises(CheckpointError, match="no state dict"):
            load_checkpoint(tmp_path / "w.pt", SMALL_SPEC)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["w.safetensors", "w.pt"]))
def test_damaged_files_give_a_checkpoint_error_or_whole_weights(tmp_path_factory, data, name):
    path = tmp_path_factory.mktemp("fuzz") / name
    if name.endswith("pt"):
        torch.save(tensors(random_weights(SMALL_SPEC)), path)
    else:
        save_checkpoint(path, SMALL_SPEC, random_weights(SMALL_SPEC))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, min(3000, len(content) - 1)))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    try:
        load_checkpoint(path, SMALL_SPEC)
    except CheckpointError:
        pass


def test_writing_is_whole_or_not_at_all(tmp_path):
    weights = random_weights(SMALL_SPEC)
    save_checkpoint(tmp_path / "w.safetensors", SMALL_SPEC, weights)
    before = (tmp_path / "w.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="missing keys"):
        save_checkpoint(tmp_path / "w.safetensors", NetworkSpec.preset("paper"), weights)
    assert (tmp_path / "w.safetensors").read_bytes() == before
    with pytest.raises(OutputError, match="cannot write"):
        save_checkpoint(tmp_path / "absent" / "w.safetensors", SMALL_SPEC, weights)
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize("change, message", [
    ({"cross_activation": "relu"}, "cross_activation is 'relu'; accepted: none, leaky_relu"),
    ({"decoder_features": (4,)}, "exactly one decoder stage less"),
    ({"encoder_features": (6, 0, 7)}, "positive integer"),
    ({"negative_slope": 2.0}, "between 0 and 1"),
    ({"surprise": 1}, "unknown fields"),
])
def test_specifications_that_are_refused(change, message):
    with pytest.raises(SpecError, match=message):
        NetworkSpec.from_dict({**SMALL_SPEC.to_dict(), **change})


def test_specifications_survive_json():
    for spec in (SMALL_SPEC, NetworkSpec.preset("v1"), NetworkSpec.preset("paper")):
        assert NetworkSpec.from_json(spec.to_json()) == spec
