"""Time is left for what follows, and a build that goes on past its time is ended."""

from __future__ import annotations

import time
from functools import partial
from types import SimpleNamespace

import pytest

pytest.importorskip("onnx", reason="emitting the models needs onnx")

from universeg_rt.benchmarks.gpu import deadline
from universeg_rt.bundle.bundle import Bundle
from universeg_rt.errors import EngineError
from universeg_rt.export.engine.build import EngineOptions, build_engines

from ...export.engine.engines import PROFILE, bundle, engine_files, fake  # noqa: F401  fixtures


def test_steps_leave_a_half_to_those_after_them(monkeypatch):
    monkeypatch.setattr(deadline.time, "monotonic", lambda: 100.0)

    def of(name, *steps):
        return deadline.of_step({"options": SimpleNamespace(steps=steps), "deadline": 140.0}, name)

    assert of("engines", "engines", "parity", "timing") == of("parity", "parity", "timing") == 120.0
    assert of("parity", "parity") == of("engines", "engines") == 140.0


def test_inputs_end_at_the_deadline(monkeypatch):
    now = iter((1.0, 2.0, 3.5))
    monkeypatch.setattr(deadline.time, "monotonic", lambda: next(now))
    seen = []
    with pytest.raises(deadline.OutOfTime):
        for each in deadline.until(3.0, [1, 2, 3, 4]):
            seen.append(each)
    assert seen == [1, 2]


def test_the_build_of_an_engine_ends_at_the_deadline(bundle, fake, tmp_path):  # noqa: F811
    fake("10.14.1", f"wait:{tmp_path / 'begun'}")  # for a minute
    options = EngineOptions("tensorrt", models=("whole",), profile=PROFILE)
    with pytest.raises(EngineError, match="the time limit was reached while it was built"):
        build_engines(Bundle.open(bundle), options, partial(deadline.build_until, time.monotonic() + 2))
    assert not engine_files(bundle)


def test_half_of_no_time_is_none(monkeypatch):
    monkeypatch.setattr(deadline.time, "monotonic", lambda: 100.0)
    assert deadline.half(120.0) == 110.0 and deadline.half(90.0) == 100.0
