"""Models that only the benchmark needs: the reference network, its plain ONNX export, and the folded model without
functions. universeg-bench starts it as a process of its own to write the plain export for one S."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from universeg_rt.cli.common import child_arguments
from universeg_rt.spec import NetworkSpec
from universeg_rt.storage.atomic import write_file


def random_weights(spec: NetworkSpec) -> dict[str, np.ndarray]:
    """Weights that keep the activations in range."""
    rng = np.random.default_rng(0)
    return {
        key: (rng.standard_normal(shape) * (0.1 if len(shape) == 1 else 1.2 / np.sqrt(np.prod(shape[1:])))).astype(
            np.float32)
        for key, shape in spec.weight_shapes().items()
    }


def reference_network(checkpoint: Path):
    """The reference network in PyTorch with a checkpoint's weights, ready to run."""
    import torch
    from universeg_rt.training.network.checkpoint import load_checkpoint
    from universeg_rt.training.network.reference import UniverSeg

    spec, weights, _ = load_checkpoint(checkpoint)
    network = UniverSeg(spec).eval()
    network.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    return network


def write_plain(checkpoint: Path, output: Path, support_size: int, size: int) -> None:
    """Trace the reference with torch.onnx for one query and one set of S entries;
    the trace fixes S and the image size."""
    import io

    import torch

    query, entries = torch.rand(1, 1, size, size), torch.rand(1, support_size, 1, size, size)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(reference_network(checkpoint), (query, entries, entries.round()), buffer, dynamo=False,
                          opset_version=17, input_names=["query", "support_images",
                                                         "support_labels"], output_names=["logits"])
    with write_file(output) as file:
        file.write(buffer.getvalue())


def write_inlined(model: Path, output: Path) -> None:
    """A model with its model-local functions replaced by their bodies."""
    import onnx
    import onnx.inliner

    with write_file(output) as file:
        file.write(onnx.inliner.inline_local_functions(onnx.load(model)).SerializeToString())


if __name__ == "__main__":
    checkpoint, output, *numbers = child_arguments("universeg_rt.benchmarks.harness.models", "universeg-bench",
                                                   "CHECKPOINT", "OUTPUT", "S", "SIZE")
    write_plain(Path(checkpoint), Path(output), *map(int, numbers))
