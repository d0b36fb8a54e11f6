"""The TensorRT runners on a stand-in GPU and TensorRT."""

from __future__ import annotations

import pytest

from universeg_rt.runners import open_runner

from .....fakes import tensorrt
from .....fakes.device import StandIn


@pytest.fixture
def opener(monkeypatch):
    """open(bundle, flavour=..., total=...) -> (runner, device, trt), through `open_runner` as users do."""

    def open_it(bundle, flavour: str = "10.14.1", total: int = 1 << 30, precision: str = "auto"):
        device = StandIn(total)
        trt = tensorrt.use(monkeypatch, device, flavour)
        return open_runner(bundle, "tensorrt-rtx" if flavour == "rtx" else "tensorrt", precision), device, trt

    return open_it
