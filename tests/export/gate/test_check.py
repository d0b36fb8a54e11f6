"""The command that holds any runner against the reference: what passes, what fails, what it says of bad input."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the reference network needs torch: pip install '.[export]'")

from universeg_rt import runners
from universeg_rt.bundle.bundle import Bundle
from universeg_rt.errors import InputError
from universeg_rt.export.gate import check
from universeg_rt.export.gate.parity import Case, CaseResult, HalfTolerance, MaskTolerance, ParityReport, Reference

from ...conftest import SMALL_SPEC, random_weights

pytestmark = pytest.mark.torch
QUICK = ["--support-sizes", "1", "3", "--members", "1", "2"]
CASES = check.Cases(((32, 32),), (1, 3), (1, 2))


@pytest.fixture(scope="module")
def reference():
    return Reference(SMALL_SPEC, random_weights(SMALL_SPEC))


def compare(model, precision: str, reference, cases=CASES):
    return check.compare({"mine": model}, check.TOLERANCES[precision], cases, reference)


def test_the_command_passes_a_runner_that_is_right(small_bundle, tmp_path, capsys):
    out = tmp_path / "check.json"
    assert check.main(["--bundle", str(small_bundle), "--runner", "onnxruntime", "--output", str(out), *QUICK]) == 0
    said = capsys.readouterr().out
    assert "onnxruntime fp32 on CPU: asked for" in said and "within tolerance on 8 inputs" in said
    result = json.loads(out.read_text())
    assert result["within"] and result["over"] == [] and result["models"]["onnxruntime"]["largest_logit_error"] < 1e-4
    assert result["cases"]["support_size"] == [1, 3] and result["bundle_sha256"] == Bundle.open(small_bundle).sha256


def test_the_command_fails_a_runner_that_is_wrong(small_bundle, tmp_path, capsys, monkeypatch):
    real = runners.open_runner

    def off(*given):
        runner = real(*given)
        run = runner.run
        runner.run = lambda prepared, queries: run(prepared, queries) + 0.01
        return runner

    monkeypatch.setattr(check, "open_runner", off)
    out = tmp_path / "check.json"
    assert check.main(["--bundle", str(small_bundle), "--output", str(out), *QUICK]) == 1
    assert "comparisons are over tolerance; " in capsys.readouterr().err
    assert json.loads(out.read_text())["within"] is False


def test_half_precision_may_be_twice_as_far_off_as_the_reference_in_half_precision(reference):
    """The reference in half precision passes, a model far further off does not; float32 would fail both."""
    def half(times: float):
        def model(support, weights, query):
            full, plain = reference._run(support, weights, query, False), reference._run(support, weights, query, True)
            return full + times * (plain - full)

        return model

    assert check.over(compare(half(1.0), "fp16", reference)[0]) == []
    worse = check.over(compare(half(30.0), "fp16", reference)[0])
    assert worse and "plain half precision" in worse[0]
    assert isinstance(check.TOLERANCES["tf32"], HalfTolerance)


def test_int8_is_judged_by_its_masks_in_all():
    def result(flipped: int, entries: int = 2) -> CaseResult:
        return CaseResult("mine", Case("random", 32, 32, entries, 1), 5.0, flipped, 1000, 0.9)

    assert check.over(ParityReport(MaskTolerance(), (result(4), result(4)))) == []
    assert "in all" in check.over(ParityReport(MaskTolerance(), (result(9), result(9))))[0]
    one = (result(21, entries=1), *[result(0)] * 9)
    assert check.over(ParityReport(MaskTolerance(), one)) == [], "one entry is not judged by itself"
    assert check.over(ParityReport(MaskTolerance(), (result(21), *one))), "two are"
    assert "in all" in check.over(ParityReport(MaskTolerance(), (result(60, entries=1), *[result(0)] * 9)))[0]
    nan = replace(result(0, entries=1), logit_error=float("nan"))
    assert check.over(ParityReport(MaskTolerance(), (nan,)))


def test_what_a_runner_does_not_take_is_said_and_not_counted(reference):
    def picky(support, weights, query):
        if support.shape[1] > 1:
            raise InputError("3 support entries in a set; this engine was built for exactly 1")
        return reference._run(support, weights, query, False)

    report, refused = compare(picky, "fp32", reference)
    assert len(report.results) == 4 and check.over(report) == []
    assert len(refused) == 4
    assert set(refused.values()) == {"3 support entries in a set; this engine was built for exactly 1"}
    with pytest.raises(InputError, match="7 members; the gate's inputs have up to 3"):
        check.Cases(((32, 32),), (1,), (7,))


def test_a_nan_fails_every_precision(reference):
    for precision in ("fp32", "tf32", "fp16", "int8"):
        report, _ = compare(lambda s, w, q: np.full((1, len(s), 1, 32, 32), np.nan, np.float32), precision, reference,
                            check.Cases(((32, 32),), (1,), (1,)))
        assert check.over(report), precision


def test_bad_options_are_one_line(small_bundle, capsys):
    def error(*arguments) -> str:
        assert check.main([str(a) for a in arguments]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    assert "runner is 'gpu'; accepted: auto" in error("--bundle", small_bundle, "--runner", "gpu")
    assert "must be positive" in error("--bundle", small_bundle, "--support-sizes", "0")


def test_nothing_compared_is_a_failure(small_bundle, monkeypatch, capsys):
    def refuse(*_):
        raise InputError("outside the profile")

    real = runners.open_runner

    def picky(*given):
        runner = real(*given)
        runner.prepare = refuse
        return runner

    monkeypatch.setattr(check, "open_runner", picky)
    assert check.main(["--bundle", str(small_bundle), *QUICK]) == 1
    assert "took none of the inputs" in capsys.readouterr().err
