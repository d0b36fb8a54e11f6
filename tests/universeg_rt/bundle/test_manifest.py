"""A manifest that was changed is noticed: by its own sha256, by what the models say of themselves, by the parity
report."""

from __future__ import annotations

import json
import random
import shutil
from itertools import islice

import numpy as np
import pytest

from universeg_rt import Bundle, BundleError, UniverSegError
from universeg_rt.bundle.bundle import SHIPPED
from universeg_rt.bundle.manifest import Manifest, sealed

from ...fuzz import manifest as fuzz
from .test_bundle import edit

FLIPS = 3000


@pytest.mark.parametrize("source", ["small", "shipped"])
def test_a_flipped_bit_is_refused_or_changes_nothing(small_bundle, source):
    text = ((SHIPPED if source == "shipped" else small_bundle) / "manifest.json").read_bytes()
    good = Manifest.from_json(text.decode(), "m")
    rng, opened = np.random.default_rng(9), 0
    for bit in rng.choice(8 * len(text), FLIPS, replace=False):
        flipped = bytearray(text)
        flipped[bit // 8] ^= 1 << (bit % 8)
        try:
            found = Manifest.from_json(flipped.decode(), "m")
        except (BundleError, UnicodeDecodeError):
            continue
        assert found == good, f"bit {bit}"
        opened += 1
    assert opened < FLIPS / 4  # of white space, and of digits beyond a number's precision


def test_every_bit_of_the_numbers_that_decide_a_mask(small_bundle):
    """Those that opened before the manifest was tied to anything: the grid and the slope."""
    text = (small_bundle / "manifest.json").read_bytes()
    good = Manifest.from_json(text.decode(), "m")
    for key in (b'"height": ', b'"width": ', b'"negative_slope": ', b'"size_multiple": '):
        start = text.index(key)
        for bit in range(8 * start, 8 * text.index(b"\n", start)):
            flipped = bytearray(text)
            flipped[bit // 8] ^= 1 << (bit % 8)
            with pytest.raises((BundleError, UnicodeDecodeError)):
                assert Manifest.from_json(flipped.decode(), "m") != good


@pytest.mark.parametrize("change, message", [
    (lambda v: v["input"].update(height=64),
     r"model that the manifest describes: its universeg.input is .*\"height\": 32"),
    (lambda v: v["spec"].update(negative_slope=0.02), "its universeg.spec is"),
    (lambda v: v["spec"].update(downsample="bilinear"), "its universeg.spec is"),
    (lambda v: v.update(weights_sha256="0" * 64), "its universeg.weights_sha256 is"),
    (lambda v: v.update(version="9"), "its universeg.version is"),
    (lambda v: v["input"].update(labels="other"), "of its input, labels is 'other'; accepted: 'binary, 0 and 1'"),
    (lambda v: v["input"].update(size_multiple=8), "of its input, size_multiple is 8; accepted: "),
    (lambda v: (v["parity"].clear(), v["models"]["fp32"].update(whole="predict.onnx")), "its universeg.kind is"),
    (lambda v:
     (v["parity"].clear(), v["models"]["fp32"]["stages"].reverse(), v["models"]["fp32"]["stages"][0].__setitem__(
         0, "x")), "its universeg.kind is 'stage:.*', the manifest's 'stage:x'"),
    (lambda v:
     (v["parity"].clear(), v["models"].update(int8=v["models"].pop("fp32"))), "its universeg.precision is 'fp32'"),
    (lambda v: v["models"]["fp32"]["stages"].reverse(), "are not those that were compared with the reference network"),
    (lambda v: v["models"]["fp32"].update(native=None), "are not those that were compared"),
    (lambda v: v["parity"].update(int8=v["parity"]["fp32"]), "a parity report of int8 and no such models"),
    (lambda v: v["parity"]["fp32"].pop("models_sha256"), "models_sha256"),
])
def test_an_edited_manifest_with_its_sum_made_anew_does_not_fit_its_models(small_bundle, tmp_path, change, message):
    copy = shutil.copytree(small_bundle, tmp_path / "copy")
    edit(copy, change)
    with pytest.raises(BundleError, match=message):
        Bundle.open(copy)


def test_an_edited_manifest_is_named_as_such(small_bundle, tmp_path):
    copy = shutil.copytree(small_bundle, tmp_path / "copy")
    path = copy / "manifest.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values))  # other spaces, the same manifest
    assert Bundle.open(copy).manifest == Bundle.open(small_bundle).manifest
    values["name"] = "another"
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError,
                       match="its sha256 is not that of its body: a value was changed after it was written.*again"):
        Bundle.open(copy)
    path.write_text(sealed(values))
    assert Bundle.open(copy).manifest.name == "another"


@pytest.mark.parametrize("text", [
    "[" * 100_000,
    '{"schema_version": ' + "9" * 5000 + "}",
    '{"schema_version": true}',
    '{"schema_version": 2.0}',
    "null",
    '"x"',
    "",
    '{"schema_version": 2, "sha256": "\\ud800"}',
])
def test_texts_that_trip_a_parser_are_bundle_errors(text):
    with pytest.raises(BundleError):
        Manifest.from_json(text, "m")


@pytest.mark.parametrize("change", [
    lambda v: v["files"]["model.onnx"].update(bytes=float("inf")),
    lambda v: v["files"]["model.onnx"].update(bytes=True),
    lambda v: v["files"]["model.onnx"].update(bytes=10**30),
    lambda v: v["files"]["model.onnx"].update(bytes=-1),
    lambda v: v["files"].update({"a\0b": {"bytes": 1, "sha256": ""}}),
    lambda v: v["files"].update({"x" * 5000: {"bytes": 1, "sha256": ""}}),
    lambda v: v["spec"].update(encoder_features=[4] * 3000, decoder_features=[4] * 2999),
    lambda v: v["spec"].update(upsample=[]),
    lambda v: v["models"].update(fp32=None),
    lambda v: v.update(files=[]),
    lambda v: v.update(engines=[[]]),
    lambda v: v.update(engines=[{"model": {}, "profile": 3}]),
    lambda v: v.update(parity={"fp32": 3}),
    lambda v: v.update(name=3),
    lambda v: v["input"].update(height=[]),
    lambda v: v["input"].update(height=float("nan")),
    lambda v: v.update(parity=3),
])
def test_odd_values_are_bundle_errors(small_bundle, tmp_path, change):
    copy = shutil.copytree(small_bundle, tmp_path / "copy")
    edit(copy, change)
    with pytest.raises(BundleError):
        Bundle.open(copy)


def test_mutated_bundles_open_or_raise_our_errors(tmp_path):
    outcomes = {"opened": 0, "refused": 0}
    for description, run in islice(fuzz.cases(random.Random(0), tmp_path), 400):
        try:
            run()
            outcomes["opened"] += 1
        except UniverSegError:
            outcomes["refused"] += 1
        except Exception as error:
            pytest.fail(f"{description}: {error!r}")
    assert outcomes["refused"] > 200 and outcomes["opened"] > 5


def test_the_fuzzed_bundle_is_a_good_one_and_its_cases_are_seeded(tmp_path):
    assert Bundle.open(fuzz.make_bundle(tmp_path / "b")).manifest.precisions == ("fp32",)
    first, second = ([text for text, _ in islice(fuzz.cases(random.Random(3), tmp_path), 50)] for _ in range(2))
    assert first == second and len(set(first)) > 25


@pytest.mark.parametrize("name", sorted({*json.loads((SHIPPED / "manifest.json").read_text())} - {"engines"}))
def test_every_field_is_read(name):
    """One that could be left out would be decoration."""
    values = json.loads((SHIPPED / "manifest.json").read_text())
    del values[name]
    with pytest.raises(BundleError):
        Manifest.from_json(json.dumps(values) if name == "sha256" else sealed(values), "m")
