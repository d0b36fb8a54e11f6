"""The measurement of policies: a run on a made-up data set."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch", reason="data sets are read by the training package: pip install '.[train]'")
pytest.importorskip("yaml", reason="data sets are read by the training package: pip install '.[train]'")

from universeg_rt.benchmarks.cpu.policies import main
from universeg_rt.ensemble import POLICIES

from ...conftest import disc_data_set


def test_the_command_compares_the_policies(tmp_path, small_bundle, capsys):
    data_set = disc_data_set(tmp_path)
    asked = ["--folder", str(tmp_path / "out"), "--", str(data_set), "--data-root", str(tmp_path),
             "--bundle", str(small_bundle), "--threads", "1", "--support-sizes", "3", "--members", "1"]
    assert main(asked) == 0
    for policy in POLICIES:
        protocol = json.loads((tmp_path / "out" / f"{policy}.json").read_text())["setup"]["protocol"]
        assert protocol["policy"] == policy and protocol["support_sizes"] == [3]
    said = capsys.readouterr().out
    assert said.count("| | S | K | random | nearest: difference | all: difference |") == 3  # with atlas and copy
    assert main([*asked, "--support-sizes", "0"]) == 1
