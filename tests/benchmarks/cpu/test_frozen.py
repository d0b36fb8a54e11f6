"""The benchmark of frozen tasks: what it times, prints and writes."""

import json

import pytest

from universeg_rt.benchmarks.cpu.frozen import main

from ...conftest import native_part


def test_every_side_is_timed_in_turns(tmp_path, small_bundle, capsys):
    native_part()
    arguments = ["--bundle", str(small_bundle), "--support-size", "4", "--batch", "2", "--repeats", "2"]
    assert main([*arguments, "--json", str(tmp_path / "f.json")]) == 0
    found, said = json.loads((tmp_path / "f.json").read_text()), capsys.readouterr().out
    sides = {"exact", "exact, batch 2", "exact file native", "freezing", "static native", "static onnxruntime",
             "static native, batch 2"}
    assert sides <= set(found["seconds"])
    assert all(len(times) == 2 and min(times) > 0 for times in found["seconds"].values())
    assert found["bytes"]["half constants"] < found["bytes"]["float constants"]
    assert "times exact" in said and said.startswith("S = 4, K = 1")


@pytest.mark.parametrize("extra", [["--repeats", "0"], ["--support-size", "2"]])
def test_bad_options_are_one_line(small_bundle, capsys, extra):
    assert main(["--bundle", str(small_bundle), *extra]) == 1
    assert capsys.readouterr().err.count("\n") == 1
