"""The reference network against the published one's outputs, and its own equations."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")

from universeg_rt.errors import InputError
from universeg_rt.spec import NetworkSpec
from universeg_rt.training.network.reference import UniverSeg

pytestmark = pytest.mark.torch


def test_v1_has_the_published_number_of_parameters():
    model = UniverSeg(NetworkSpec.preset("v1"))
    assert sum(p.numel() for p in model.parameters()) == 1_182_785


@pytest.mark.parametrize("preset", ["v1", "paper"])
def test_state_dict_is_what_the_spec_says(preset):
    spec = NetworkSpec.preset(preset)
    state = UniverSeg(spec).state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == spec.weight_shapes()


@pytest.mark.parametrize("case", range(4))
def test_agrees_with_the_published_implementation(parity_archive, case):
    state = {k.removeprefix("state_dict/"): torch.from_numpy(parity_archive[k])
             for k in parity_archive.files if k.startswith("state_dict/")}
    model = UniverSeg(NetworkSpec.preset("v1"))
    model.load_state_dict(state)
    inputs = [torch.from_numpy(parity_archive[f"case{case}/{name}"]).float()
              for name in ("query", "support_images", "support_labels")]
    with torch.inference_mode():
        logits = model(*inputs).numpy()
    assert np.abs(logits - parity_archive[f"case{case}/logits"]).max() < 1e-4


def random_inputs(batch, entries, size, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query = torch.rand(batch, 1, size, size, generator=generator, dtype=dtype)
    images = torch.rand(batch, entries, 1, size, size, generator=generator, dtype=dtype)
    labels = (torch.rand(batch, entries, 1, size, size, generator=generator) > 0.5).to(dtype)
    return query, images, labels


@pytest.mark.parametrize("preset", ["v1", "paper"])
def test_order_of_the_support_does_not_matter_and_weights_pad(preset):
    torch.manual_seed(0)
    model = UniverSeg(NetworkSpec.preset(preset)).double()
    query, images, labels = random_inputs(1, 3, 32)
    with torch.inference_mode():
        plain = model(query, images, labels)
        permuted = model(query, images[:, [2, 0, 1]], labels[:, [2, 0, 1]])
        padded = model(query, images, labels, torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64))
        two = model(query, images[:, :2], labels[:, :2])
    assert torch.allclose(plain, permuted, atol=1e-10)
    assert torch.allclose(padded, two, atol=1e-10)
    assert not torch.allclose(plain, two, atol=1e-6)


@pytest.mark.parametrize("shape_change, message", [
    (lambda q, i, m: (q[0], i, m), "expected (B,1,H,W)"),
    (lambda q, i, m: (q, i[:, :, 0], m), "support images"),
    (lambda q, i, m: (q, i, m[:, :1]), "support images"),
    (lambda q, i, m: (q, i[:, :0], m[:, :0]), "no entries"),
    (lambda q, i, m: (q[..., :30, :], i[..., :30, :], m[..., :30, :]), "multiples of 8"),
])
def test_bad_shapes_are_refused(shape_change, message):
    model = UniverSeg(NetworkSpec.preset("v1"))
    with pytest.raises(InputError, match=__import__("re").escape(message)):
        model(*shape_change(*random_inputs(1, 2, 32, torch.float32)))
