"""Timing caches are kept, shipped and reused; one of another version or GPU is set aside with its reason, a truncated
one is an error."""

from __future__ import annotations

import dataclasses
import json

import pytest

pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")

from universeg_rt import Bundle
from universeg_rt.bundle.engine import EngineEntry, Fingerprint, Profile
from universeg_rt.errors import EngineError, InputError
from universeg_rt.export.engine import timing

from .engines import build, bundle, engine_files, fake  # noqa: F401  fixtures

MADE = Fingerprint("tensorrt", "10.14.1", "13.0", "NVIDIA H200", "9.0", "aa", "", "", "fp32")


def test_the_bundle_ships_it_and_the_next_build_starts_from_it(fake, bundle):
    fake("10.14.1")
    (first,) = build(bundle)
    shipped = json.loads((bundle / first.entry.timing_cache).read_bytes())
    assert shipped[0] == "10.14.1" and "logits" in shipped[1]
    cache = bundle / first.entry.timing_cache
    said = []
    (second,) = build(bundle, models=("prepare",), say=said.append)
    after = json.loads((bundle / second.entry.timing_cache).read_bytes())
    assert set(shipped[1]) < set(after[1]) and not said and cache.exists()


def test_one_of_another_version_is_set_aside_with_the_reason(fake, bundle):
    fake("10.14.1")
    build(bundle)
    fake("11.1.0")
    said = []
    (second,) = build(bundle, models=("prepare",), say=said.append)
    (line,) = said
    assert line.startswith("timing cache set aside, engines/whole-fp32-")
    assert line.endswith(".timing: builder_version: made with '10.14.1', here is '11.1.0'")
    assert "head" not in json.loads((bundle / second.entry.timing_cache).read_bytes())[1]


def test_a_file_of_the_users_is_made_read_and_grown(fake, bundle, tmp_path):
    fake("10.14.1")
    path, said = tmp_path / "t.cache", []
    build(bundle, timing_cache=path, say=said.append)
    entries = json.loads(path.read_bytes())[1]
    assert "logits" in entries and said == [f"timings written to {path}"]
    build(bundle, models=("prepare",), timing_cache=path)
    assert set(entries) < set(json.loads(path.read_bytes())[1])
    assert sorted(p.name for p in tmp_path.glob("t.cache*")) == ["t.cache", "t.cache.json"]


@pytest.mark.parametrize("version", ["8.6.1", "11.1.0"])
@pytest.mark.parametrize("content, taken", [
    (["{version}", ["from trtexec"]], True), (["10.0", ["from trtexec"]], False), (None, False)])
def test_a_file_without_a_note_is_the_librarys_to_judge(fake, bundle, tmp_path, version, content, taken):
    fake(version)
    path, said = tmp_path / "trtexec.cache", []
    before = json.dumps(content).replace("{version}", version).encode() if content else b"garbage"
    path.write_bytes(before)
    (outcome,) = build(bundle, timing_cache=path, say=said.append)
    used = json.loads((bundle / outcome.entry.timing_cache).read_bytes())[1]
    assert ("from trtexec" in used) == taken and "logits" in used
    if taken:
        assert said == [f"timings written to {path}"] and json.loads(path.read_bytes())[1] == used
    else:  # no GPU here, so it may still be good where there is one
        complains = content is None and version == "11.1.0"
        why = "Failed to deserialize timing cache" if complains else "it was made by another version"
        assert said[0].startswith(f"timing cache set aside by the library: {why}")
        assert said[1:] == [f"timing cache {path} left as it was"] and path.read_bytes() == before


def test_another_version_by_the_note_is_kept_beside_the_new_one(fake, bundle, tmp_path):
    path, said = tmp_path / "t.cache", []
    fake("10.14.1")
    build(bundle, timing_cache=path)
    old = path.read_bytes()
    fake("11.1.0")
    build(bundle, timing_cache=path, say=said.append)
    assert any("builder_version: made with '10.14.1', here is '11.1.0'" in line for line in said)
    assert said[-1] == f"timings written to {path}, the old ones kept as t.cache.old"
    assert (tmp_path / "t.cache.old").read_bytes() == old and json.loads(path.read_bytes())[0] == "11.1.0"
    assert json.loads((tmp_path / "t.cache.json").read_text())["builder_version"] == "11.1.0"


def test_a_truncated_or_altered_file_is_an_error_and_stays(tmp_path):
    path = tmp_path / "t.cache"
    timing.write(timing.TimingFile(path, b"", ""), b"timings of a long night", MADE)
    assert timing.open_file(path, MADE).content == b"timings of a long night"
    for content, message in ((b"timings of", "truncated: 10 bytes instead of 23; delete it and t.cache.json"),
                             (b"timings of a long nighT", "altered: its sha256 is another")):
        path.write_bytes(content)
        with pytest.raises(EngineError, match=message):
            timing.open_file(path, MADE)
        assert path.read_bytes() == content
    (tmp_path / "t.cache.json").write_text("{")
    with pytest.raises(EngineError, match="t.cache.json is not whole; delete it"):
        timing.open_file(path, MADE)
    with pytest.raises(InputError, match="cannot be read"):
        timing.open_file(tmp_path, MADE)


def test_a_truncated_timing_cache_of_the_bundle_is_an_error(fake, bundle):
    from universeg_rt.errors import BundleError

    fake("10.14.1")
    (outcome,) = build(bundle)
    path = bundle / outcome.entry.timing_cache
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(BundleError, match="timing is truncated"):
        build(bundle, models=("prepare",))


@pytest.mark.parametrize("field, value", [("gpu", "NVIDIA H100"), ("compute_capability", "8.9"),
                                          ("builder_version", "10.0")])
def test_the_file_of_another_gpu_or_version(tmp_path, field, value):
    path = tmp_path / "t.cache"
    timing.write(timing.TimingFile(path, b"", ""), b"timings", MADE)
    found = timing.open_file(path, dataclasses.replace(MADE, **{field: value}))
    assert found.set_aside == f"{field}: made with {getattr(MADE, field)!r}, here is {value!r}"
    assert not timing.open_file(path, dataclasses.replace(MADE, precision="fp16", onnx_sha256="bb",
                                                          cuda="12.0")).set_aside


def test_which_of_the_bundles_are_used():
    here, other = MADE, dataclasses.replace(MADE, gpu="NVIDIA H100")
    entries = tuple(EngineEntry("whole", f"{n}.plan", f"{n}.timing" if n else "", f, Profile())
                    for n, f in (("a", here), ("b", other), ("", here), ("c", here)))
    assert timing.of_bundle(entries, here) == (["c.timing", "a.timing"], [])
    assert timing.of_bundle(entries[1:2],
                            here) == ([], ["b.timing: gpu: made with 'NVIDIA H100', here is 'NVIDIA H200'"])


def test_nothing_else_is_left_in_the_bundle(fake, bundle):
    fake("10.14.1")
    (first,) = build(bundle)
    (again,) = build(bundle)
    assert not again.built and again.entry == first.entry
    (anew,) = build(bundle, rebuild=True)
    assert anew.built and Bundle.open(bundle).manifest.engines == (anew.entry,)
    assert engine_files(bundle) == set(anew.entry.files)
