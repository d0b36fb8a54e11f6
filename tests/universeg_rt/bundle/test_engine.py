"""What an engine says of itself: its shapes, its fingerprint, its place in the manifest; every refusal names the
field."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from universeg_rt import Bundle, BundleError, InputError
from universeg_rt.bundle.engine import EngineEntry, Fingerprint, Profile
from universeg_rt.bundle.manifest import Manifest, sealed
from universeg_rt.errors import EngineError

BUILT = Fingerprint("tensorrt", "10.14.1", "13.0", "NVIDIA H200", "9.0", "aa", "10.14", "bb", "fp16",
                    (("workspace", "1024"), ("tf32", "off")))
HERE = {
    "builder": "tensorrt", "builder_version": "10.14.1", "cuda": "13.2", "gpu": "NVIDIA H200",
    "compute_capability": "9.0", "onnx_sha256": "aa", "plugin_version": "10.14", "plugin_sha256": "bb",
    "precision": "fp16", "options": {"tf32": "off", "workspace": 1024}
}


def test_the_machine_it_was_built_on_fits():
    assert BUILT.differences(**HERE) == () and BUILT.differences() == ()
    BUILT.check("engine", **HERE)


@pytest.mark.parametrize("field, value", [
    ("builder", "tensorrt-rtx"),
    ("builder_version", "10.14.2"),
    ("cuda", "12.9"),
    ("gpu", "NVIDIA H100"),
    ("compute_capability", "8.9"),
    ("onnx_sha256", "ab"),
    ("plugin_version", "8.6"),
    ("plugin_sha256", ""),
    ("precision", "fp32"),
])
def test_each_field_that_differs_is_named_with_both_values(field, value):
    with pytest.raises(EngineError) as error:
        BUILT.check("engines/a.plan", **{**HERE, field: value})
    expected = f"{field}: built for {getattr(BUILT, field)!r}, here is {value!r}"
    assert str(error.value) == (f"engines/a.plan does not fit here; {expected}: build it here with universeg-export "
                                "--engine tensorrt")


def test_several_fields_and_options_are_all_named():
    found = BUILT.differences(**{**HERE, "gpu": "X", "cuda": "", "options": {"tf32": "on"}})
    assert {text.split(":")[0] for text in found} == {"options.tf32", "options.workspace", "gpu", "cuda"}


@pytest.mark.parametrize("built, fits, not_here", [
    ("9.0", ["9.0"], ["8.9", "9.1", "10.0", ""]),
    ("8.0+", ["8.0", "8.9", "10.0", "12.0"], ["7.5", ""]),
    ("8.6 8.9", ["8.6", "8.9"], ["8.0", "9.0", ""]),
    ("", ["7.5", ""], []),
])
def test_compute_capabilities(built, fits, not_here):
    print_ = dataclasses.replace(BUILT, compute_capability=built)
    assert all(not print_.differences(compute_capability=here) for here in fits)
    assert all(print_.differences(compute_capability=here) for here in not_here)


def test_native_operators_need_no_plugin_but_bear_one():
    native = dataclasses.replace(BUILT, plugin_version="", plugin_sha256="")
    assert not native.differences(plugin_sha256="bb", plugin_version="1")


def test_fingerprints_are_checked():
    with pytest.raises(TypeError, match="no field 'driver'; it has builder"):
        BUILT.differences(driver="1")
    with pytest.raises(InputError, match="builder is 'trtexec'; accepted: tensorrt, tensorrt-rtx"):
        dataclasses.replace(BUILT, builder="trtexec")
    with pytest.raises(InputError, match="gpu is None"):
        dataclasses.replace(BUILT, gpu=None)
    assert BUILT.digest != dataclasses.replace(BUILT, precision="fp32").digest and len(BUILT.digest) == 12


# Profiles -------------------------------------------------------------------------------------------------------------

def test_profiles_from_texts():
    profile = Profile.parse("1:2:4", "3", "1:64:256", (64, 96))
    assert profile == Profile((1, 2, 4), (3, 3, 3), (1, 64, 256), (64, 96))
    assert str(profile) == "queries 1:2:4, sets 3:3:3, entries 1:64:256, image 64x96"


@pytest.mark.parametrize("text, message", [
    ("8:4:16", r"min \(8\) is above opt \(4\)"),
    ("1:64:16", r"opt \(64\) is above max \(16\)"),
    ("0:1:2", "whole number from 1"),
    ("-1", "whole number from 1"),
    ("1:2", "give min:opt:max"),
    ("a:b:c", "give min:opt:max"),
    ("", "give min:opt:max"),
    ("1:2:3:4", "give min:opt:max"),
    ("1.5", "give min:opt:max"),
])
@pytest.mark.parametrize("axis", ["queries", "sets", "entries"])
def test_profiles_that_cannot_be(axis, text, message):
    with pytest.raises(InputError, match=message) as error:
        Profile.parse(**{axis: text})
    assert axis in str(error.value)


@pytest.mark.parametrize("values", [
    {"entries": (1, 2)}, {"entries": 5}, {"entries": (1, True, 2)}, {"sets": ("1", "2", "3")}, {"image": 128},
    {"image": (0, 8)}, {"image": (8, 8, 8)}, {"queries": None},
])
def test_profiles_of_other_values(values):
    with pytest.raises(InputError, match="profile's"):
        Profile(**values)


@pytest.mark.parametrize("request_, message", [
    ((0, 1, 16, 32, 32), "0 queries at once; this engine was built for 1 to 4: .*--profile-queries 1:1:4"),
    ((5, 1, 16, 32, 32), "5 queries at once; this engine was built for 1 to 4: .*--profile-queries 1:1:5"),
    ((1, 2, 16, 32, 32), r"2 support sets \(ensemble members\); this engine was built for exactly 1"),
    ((1, 1, 7, 32, 32), "7 support entries in a set; this engine was built for 8 to 64: .*--profile-entries 7:16:64"),
    ((1, 1, 65, 32, 32), "65 support entries in a set; this engine was built for 8 to 64"),
    ((1, 1, 16, 32, 40), "images of 32x40; this engine was built for 32x32 only"),
])
def test_a_request_outside_is_refused_with_the_allowed_range(request_, message):
    profile = Profile((1, 1, 4), (1, 1, 1), (8, 16, 64), (32, 32))
    profile.check(4, 1, 8, 32, 32)
    assert profile.fits(1, 1, 64, 32, 32) and not profile.fits(*request_)
    with pytest.raises(InputError, match=message):
        profile.check(*request_)


# In the manifest ------------------------------------------------------------------------------------------------------

@pytest.fixture
def with_engine(small_bundle, tmp_path):
    """A copy of the small bundle with a stand-in for an engine and its timing cache."""
    folder = shutil.copytree(small_bundle, tmp_path / "copy")
    (folder / "engines").mkdir()
    from universeg_rt.bundle.bundle import file_entry

    files = {}
    for name in ("engines/a.plan", "engines/a.cache"):
        (folder / name).write_bytes(name.encode() * 9)
        files[name] = file_entry(folder / name)
    manifest = Bundle.open(small_bundle).manifest
    entry = EngineEntry("whole", "engines/a.plan", "engines/a.cache", BUILT, Profile(image=(32, 32)), 123)
    manifest = dataclasses.replace(manifest, files={**manifest.files, **files}, engines=(entry,))
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder, manifest


def test_engines_travel_with_the_manifest(with_engine):
    folder, manifest = with_engine
    assert Bundle.open(folder).manifest == manifest
    (entry,) = Bundle.open(folder).manifest.engines
    assert entry.fingerprint == BUILT and entry.files == ("engines/a.plan", "engines/a.cache") and len(entry.key) == 12


def test_a_manifest_from_before_engines_still_opens(with_engine):
    _, manifest = with_engine
    values = json.loads(manifest.to_json())
    del values["engines"]
    assert Manifest.from_json(sealed(values), "m").engines == ()


@pytest.mark.parametrize("name", ["engines/a.plan", "engines/a.cache"])
def test_a_truncated_engine_or_timing_cache_is_refused(with_engine, name):
    folder, _ = with_engine
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(BundleError, match=f"{name} is truncated"):
        Bundle.open(folder)


@pytest.mark.parametrize("change", [
    lambda e: e.pop("fingerprint"),
    lambda e: e.update(model="half"),
    lambda e: e["profile"].update(entries=[4, 2, 1]),
    lambda e: e["fingerprint"].pop("gpu"),
    lambda e: e["fingerprint"].update(more="x"),
    lambda e: e.update(memory_bytes="x"),
])
def test_a_manifest_with_a_broken_engine_is_refused(with_engine, change):
    folder, manifest = with_engine
    values = json.loads(manifest.to_json())
    change(values["engines"][0])
    (folder / "manifest.json").write_text(sealed(values))
    with pytest.raises(BundleError, match="incomplete or altered"):
        Bundle.open(folder)


def test_an_engine_whose_file_is_not_listed_is_refused(with_engine):
    folder, manifest = with_engine
    values = json.loads(manifest.to_json())
    del values["files"]["engines/a.plan"]
    (folder / "manifest.json").write_text(sealed(values))
    with pytest.raises(BundleError, match=r"engines without their files \(engines/a.plan\)"):
        Bundle.open(folder)
