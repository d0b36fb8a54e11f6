"""Checkpoints: what is read, what is refused and why, and that no pickle ever runs code."""

from __future__ import annotations

import json
import os
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")

from universeg_rt.errors import CheckpointError, OutputError, SpecError
from universeg_rt.spec import NetworkSpec
from universeg_rt.training.network.checkpoint import load_checkpoint, save_checkpoint, weights_sha256

from ...conftest import SMALL_SPEC, damage, random_weights

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


@pytest.mark.parametrize("zipped, message", [(True, "would run code or fail"),
                                             (False, "not a whole archive as PyTorch 1.6")])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, zipped, message):
    torch.save({"w": RunsCode(tmp_path / "ran")}, tmp_path / "evil.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "evil.pt", SMALL_SPEC)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name, content, message", [
    ("w.safetensors", b"", "cannot be read as a whole safetensors file"),
    ("w.safetensors", b"\xff" * 100, "cannot be read as a whole safetensors file"),
    ("w.pt", b"PK\x03\x04 broken", "not a"), ("w.pt", b"", "not a"), ("w.onnx", b"x", "no known kind of checkpoint"),
])
def test_files_that_are_no_checkpoint(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / name, SMALL_SPEC)


@pytest.mark.parametrize("value", [
    torch.zeros(1).to_sparse(),
    torch.zeros(1, dtype=torch.complex64),
    torch.zeros(1, dtype=torch.int64),
    torch.zeros(1, device="meta"),
    torch.zeros(1, dtype=torch.bool).expand(2**40),
    torch.zeros(1).expand(2**40)
], ids=["sparse", "complex", "int", "meta", "bool", "expanded"])
def test_tensors_that_are_no_plain_weights_are_named(tmp_path, value):
    torch.save({**tensors(random_weights(SMALL_SPEC)), "out_conv.conv.bias": value}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="out_conv.conv.bias are not dense arrays"):
        load_checkpoint(tmp_path / "w.pt", SMALL_SPEC)


def test_halves_and_float64_are_read_and_what_overflows_float32_is_not(tmp_path):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        torch.save({k: v.to(dtype) for k, v in tensors(random_weights(SMALL_SPEC)).items()}, tmp_path / "w.pt")
        assert {v.dtype for v in load_checkpoint(tmp_path / "w.pt", SMALL_SPEC)[1].values()} == {np.dtype(np.float32)}
    weights = {
        **tensors(random_weights(SMALL_SPEC)), "out_conv.conv.bias": torch.full((1, ), 1e300, dtype=torch.float64)
    }
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="not finite: out_conv.conv.bias"):
        load_checkpoint(tmp_path / "w.pt", SMALL_SPEC)


def test_an_archive_that_unpacks_to_more_than_itself_is_refused(tmp_path):
    torch.save({"w": torch.zeros(1 << 20)}, tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(tmp_path / "w.pt", "w",
                                                                          zipfile.ZIP_DEFLATED) as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(CheckpointError, match="its parts are packed"):
        load_checkpoint(tmp_path / "w.pt", SMALL_SPEC)


@pytest.mark.parametrize("header, message", [
    ({"__metadata__": None, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, "does not say which network"),
    ({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, "w are of another type than"),
    ({"w": {"shape": [1], "data_offsets": [0, 4]}}, "cannot be read as a whole safetensors file"),
    ([], "cannot be read as"), (3, "cannot be read as"),
])
def test_odd_headers_of_safetensors(tmp_path, header, message):
    text = json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_pipes_and_folders_are_no_checkpoints(tmp_path, name):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / name, SMALL_SPEC)
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match="is a pipe or a device"):
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
    path.write_bytes(damage(data, path.read_bytes(), 3000))
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
    ({"surprise": 1}, "unknown fields 'surprise'"),
    ({3: 1, "surprise": 1}, "unknown fields 'surprise', 3"),
    ({"encoder_features": (6, 5, 2000)}, "at most 1024"),
    ({"encoder_features": (6,) * 13, "decoder_features": (4,) * 12}, "2 to 12 encoder stages"),
    ({"encoder_features": 7}, "one integer a stage"),
    ({"negative_slope": float("nan")}, "between 0 and 1"),
])
def test_specifications_that_are_refused(change, message):
    with pytest.raises(SpecError, match=message):
        NetworkSpec.from_dict({**SMALL_SPEC.to_dict(), **change})


@pytest.mark.parametrize("text", ["{", "[" * 100_000, None, 3, "[]"])
def test_texts_that_are_no_specification(text):
    with pytest.raises(SpecError, match="network specification is"):
        NetworkSpec.from_json(text)


def test_files_that_are_no_specification(tmp_path):
    for content in (b"\xf5\xff", b"{}" * 100_000, b""):
        (tmp_path / "s.json").write_bytes(content)
        with pytest.raises(SpecError):
            NetworkSpec.read(tmp_path / "s.json")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(SpecError, match="is a pipe or a device"):
        NetworkSpec.read(tmp_path / "pipe.json")
    (tmp_path / "s.json").write_text(SMALL_SPEC.to_json())
    assert NetworkSpec.read(tmp_path / "s.json") == SMALL_SPEC


def test_specifications_survive_json():
    for spec in (SMALL_SPEC, NetworkSpec.preset("v1"), NetworkSpec.preset("paper")):
        assert NetworkSpec.from_json(spec.to_json()) == spec
