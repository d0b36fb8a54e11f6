"""Rates of the network's convolution shapes, by PyTorch (cuDNN on a GPU): NCHW and NHWC in each type.

    python -m universeg_rt.benchmarks.gpu.steps.convolutions --out convolutions.json
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path

from universeg_rt.cli.common import importing, run_command
from universeg_rt.spec import NetworkSpec
from universeg_rt.storage.atomic import write_json

with importing(__name__, "universeg_rt.benchmarks.gpu.steps.convolutions"):
    import torch

    from .. import machine
    from ..arithmetic import FLOATS, torch_type
    from ..torch_frozen import FORMATS


def shapes(spec: NetworkSpec, size: int, entries: int) -> list[tuple[int, int, int, int]]:
    """(maps, channels in, channels out, side) of the 3x3 convolutions over support and query, each once."""
    found = []
    for block in spec.blocks():
        side = size >> block.level
        found += [(entries, block.support_channels, block.features, side),
                  (entries, block.features, block.features, side), (1, block.query_channels, block.features, side)]
    return list(dict.fromkeys(found))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="convolutions", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--support-size", type=int, default=64)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--time-limit", type=float, default=60)
    return run_command(_run, parser, arguments)


def _run(options: argparse.Namespace) -> int:
    end, state = time.monotonic() + options.time_limit, {"device": options.device, "torch": torch}
    torch.backends.cudnn.benchmark = True
    values: dict = {"rows": [], "whole": False}
    write_json(options.out, values)
    for maps, inputs, outputs, side in shapes(NetworkSpec.preset("v1"), options.size, options.support_size):
        for name in FLOATS:
            for label, layout in FORMATS.items():
                if time.monotonic() > end:
                    return 1
                with machine.tf32(torch, name == "tf32"), torch.inference_mode():
                    dtype = torch_type(torch, name)
                    x = torch.rand(maps, inputs, side, side, device=options.device).to(dtype, memory_format=layout)
                    w = torch.rand(outputs, inputs, 3, 3, device=options.device).to(dtype, memory_format=layout)
                    seconds = machine.seconds(state, partial(torch.nn.functional.conv2d, x, w, padding=1))
                flop = 2.0 * 9 * maps * inputs * outputs * side * side
                values["rows"].append({"maps": maps, "inputs": inputs, "outputs": outputs, "side": side,
                                       "precision": name, "layout": label, "seconds": seconds,
                                       "flop_per_second": flop / seconds})
                write_json(options.out, values)
    values["whole"] = True
    write_json(options.out, values)
    return 0


if __name__ == "__main__":
    sys.exit(main())
