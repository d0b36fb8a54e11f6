"""Calibration of the int8 models: episodes like those that the network will see, and from them the scale of every map.

The episodes are tasks of the training's generator, drawn from a seed, or made of a support set that the user gives:
each entry in turn is the query and others are its support. The scale of a map is the one with which rounding a sample
of its values costs the smallest mean squared error: a few far values are cut off where that lets the others be finer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from universeg_rt.errors import InputError

from ..emit import emit_whole
from ..emit.quantise import MAP_LIMIT, Quantisation, entry_convolutions, quantised_convolutions
from ..folds.folded import FoldedNetwork
from ..gate.episodes import CalibrationData, Episode
from ..precisions import open_session, support_feed

EPISODES = 24
ENTRIES = 8
SAMPLE = 20_000  # values of a map and episode
CUTS = np.linspace(0.2, 1.0, 81)  # candidates for the largest value kept, as shares of the largest seen
SYNTHETIC = "synthetic tasks of universeg_rt.training.episodes.synthetic"
METHOD = (
    "symmetric int8, zero point 0; maps by smallest mean squared error (for the native runner of each channel), "
    "weights by each output channel's largest value")


def synthetic_episodes(grid: tuple[int, int], seed: int, episodes: int = EPISODES, entries: int = ENTRIES,
                       first: int = 0) -> CalibrationData:
    """Tasks of the training's generator that training never draws, counted from `first`; the same arguments give the
    same values.

    Raises InputError for a seed below 0.
    """
    from universeg_rt.training.episodes.synthetic import synthetic_subjects
    from universeg_rt.training.settings.bounds import TRAINING_TASKS

    _check_seed(seed)
    height, width = grid
    made = []
    for number in range(first, first + episodes):
        images, labels = synthetic_subjects(TRAINING_TASKS + seed * 1_000_003 + number, entries + 1, max(grid))
        pair = np.concatenate([images.numpy(), labels.numpy()], axis=1)[:, :, :height, :width].astype(np.float32)
        low, high = (f(pair[:, :1], axis=(2, 3), keepdims=True) for f in (np.min, np.max))
        pair[:, :1] = (pair[:, :1] - low) / np.maximum(high - low, 1e-6)
        made.append(Episode(pair[:1, :1], pair[:1, 1:], pair[None, 1:]))
    return CalibrationData(SYNTHETIC, seed, tuple(made))


def support_episodes(path: str | os.PathLike, grid: tuple[int, int], seed: int, episodes: int = EPISODES,
                     entries: int = ENTRIES) -> CalibrationData:
    """A support set of the user's, an .npz or a folder as `SupportSet.load` takes it.

    Raises InputError where it breaks the input contract (empty, constant or non-finite images, shapes or labels that do
    not fit) or has fewer than 2 entries.
    """
    from universeg_rt.support import SupportSet

    _check_seed(seed)
    try:
        support = SupportSet.load(path)
    except InputError as error:
        raise InputError(f"the calibration data cannot be used: {error}") from None
    if len(support) < 2:
        raise InputError(
            f"the calibration data {Path(path).name} has 1 entry; give at least 2: one is the query, others its "
            "support")
    maps, random = support.on_grid(grid, "stretch"), np.random.default_rng(seed)
    made = []
    for number in range(min(episodes, len(support))):
        others = np.delete(np.arange(len(support)), number)
        chosen = random.permutation(others)[:entries]
        made.append(Episode(maps[number][None, :1], maps[number][None, 1:], maps[None, chosen]))
    return CalibrationData(f"support set {Path(path).name}", seed, tuple(made))


def _check_seed(seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"the calibration's seed is {seed!r}; give an integer from 0")


def calibrate(network: FoldedNetwork, data: CalibrationData, progress: Callable[[Sequence],
                                                                                Iterator] = iter) -> Quantisation:
    """Scales of all quantised convolutions from the float32 network's maps on the episodes.

    They are rounded to 3 digits, so that another machine's last bits do not change a model. InputError without an
    episode, or where the network gives values that are not finite.
    """
    if not data.episodes:
        raise InputError("the calibration data has no episodes; give at least one")
    names, ends = quantised_convolutions(network)
    session, tensors = instrumented(emit_whole(network, {}, "0"), names)
    values: dict[str, list[np.ndarray]] = {name: [] for name in sorted(set(tensors.values()))}
    of_channels: dict[str, list[np.ndarray]] = {tensors[name, "input"]: [] for name in entry_convolutions(network)}
    for episode in progress(data.episodes):
        feed = {"query": episode.query, **support_feed(episode.support, episode.weights)}
        for name, array in zip(values, session.run(list(values), feed)):
            values[name].append(sample(np.abs(array.ravel()), SAMPLE))
            if name in of_channels:
                channels = np.abs(array.swapaxes(0, 1).reshape(array.shape[1], -1))
                of_channels[name].append(sample(channels, SAMPLE // len(channels)))
    scales = {name: best_scale(np.concatenate(parts), name) for name, parts in values.items()}
    fine = {name: np.array([best_scale(channel, name) for channel in np.concatenate(parts, axis=1)], np.float32)
            for name, parts in of_channels.items()}
    return Quantisation({name: scales[tensors[name, "input"]] for name in names},
                        {name: scales[tensors[name, "output"]] for name in ends},
                        channels={name: fine[tensors[name, "input"]] for name in entry_convolutions(network)})


def sample(values: np.ndarray, count: int) -> np.ndarray:
    """About `count` values evenly along the last axis, and the largest."""
    some = values[..., :: max(1, values.shape[-1] // count) | 1]
    return np.concatenate([some, values.max(axis=-1, keepdims=True)], axis=-1)


def best_scale(values: np.ndarray, name: str) -> float:
    """The scale with the smallest mean squared error for these magnitudes, rounded to 3 digits."""
    largest = float(values.max())
    if not np.isfinite(largest):
        raise InputError(f"the map {name} is not finite on the calibration data; check the weights and the data")
    if largest == 0:
        return 1.0
    errors = []
    for cut in CUTS:
        scale = largest * cut / MAP_LIMIT
        steps = np.minimum(np.round(values / scale), MAP_LIMIT)
        errors.append(float(np.square(steps * scale - values, dtype=np.float64).mean()))
    return float(f"{largest * CUTS[int(np.argmin(errors))] / MAP_LIMIT:.3g}")


def instrumented(model: onnx.ModelProto, names: Sequence[str]):
    """A session of a float32 model with the maps around the named convolutions as outputs; and which tensor is each."""
    tensors = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.name in names:
            tensors[node.name, "input"], tensors[node.name, "output"] = node.input[0], node.output[0]
    model.graph.output.extend(
        helper.make_tensor_value_info(t, TensorProto.FLOAT, None) for t in sorted(set(tensors.values())))
    return open_session(model.SerializeToString()), tensors
