"""Blocks that do not bear int8 stay in float."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install torch")
pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx")

from universeg_rt.export.folds import fold
from universeg_rt.export.gate.terms import SupportTerms
from universeg_rt.export.int8.calibration import calibrate
from universeg_rt.export.int8.sensitivity import spare_blocks
from universeg_rt.export.precisions import Precision, open_models, write_models

from ...conftest import SMALL_SPEC, random_weights
from .test_int8 import noise_episodes

pytestmark = pytest.mark.torch


@pytest.fixture
def network(small_spec):
    return fold(small_spec, random_weights(small_spec))


def spoiled(plan, block):
    """The plan with maps of one block rounded to almost nothing."""
    return dataclasses.replace(plan, inputs={
        name: scale * 300 if name.startswith(f"{block}/") else scale for name, scale in plan.inputs.items()})


def test_the_block_that_spoils_the_masks_is_found():
    network, data = fold(SMALL_SPEC, random_weights(SMALL_SPEC)), noise_episodes()
    plan = calibrate(network, data)
    block = plan.blocks[-1]
    kept, spared = spare_blocks(network, spoiled(plan, block), data.episodes, limit=0.05)
    assert spared == (block,)
    assert kept.inputs == plan.without(block).inputs and kept.blocks == plan.blocks[:-1]
    assert not any(name.startswith(block) for name in (*kept.outputs, *kept.channels)) and kept.channels


def test_nothing_is_spared_without_need_and_everything_where_nothing_helps(network):
    data = noise_episodes()
    plan = calibrate(network, data)
    assert spare_blocks(network, plan, data.episodes, limit=1.0) == (plan, ())
    kept, spared = spare_blocks(network, plan, data.episodes, limit=-1.0)
    assert not kept.inputs and sorted(spared) == sorted(plan.blocks)


def test_every_form_of_a_partly_quantised_network_computes_the_same(tmp_path, small_spec, network):
    data = noise_episodes()
    plan = calibrate(network, data)
    episode = data.episodes[0]
    inputs = episode.support, episode.weights, episode.query

    def results(name, quantisation):
        folder = tmp_path / name
        folder.mkdir()
        precision = Precision("fp32" if quantisation is None else "int8", quantisation)
        weights = random_weights(small_spec)
        models = write_models(folder, network, weights, [precision], {}, "0")[precision.name]
        opened = open_models(folder, models, network, SupportTerms(small_spec, weights))
        return {form: model(*inputs) for form, model in opened.items()}

    exact = results("float", None)["whole"]
    for block in plan.blocks:
        for form, logits in results(block, plan.without(block)).items():
            assert np.abs(logits - exact).mean() < 0.1 * np.abs(exact).mean(), (block, form)
