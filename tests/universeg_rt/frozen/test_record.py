"""What a frozen file says of itself: records that are wrong are refused."""

from __future__ import annotations

import json

import pytest

from universeg_rt import BundleError, SupportSet
from universeg_rt.bundle.onnx_bind import bind
from universeg_rt.frozen import seal
from universeg_rt.frozen.record import KEY
from universeg_rt.frozen_task import FrozenTask

from ...conftest import discs

HALF = {"exact_threshold": 0.5, "static_threshold": 0.5}


@pytest.mark.parametrize("field, value, message", [
    ("grid", [64, 64], "images of"), ("members", [1], "counts"),
    ("price", {**HALF, "exact_dice": "x"}, "Dice that is none"),
    ("bundle", 5, "texts"), ("price", {**HALF, "exact_dice": 0.5}, "part of its figures"), ("kind", "fast", "kind"),
    ("looks", "AAAA", "looks"), ("looks", "no base64", "looks"), ("looks", [1], "looks"),
    ("threshold", 1.0, "threshold"), ("threshold", 1, "threshold"), ("threshold", None, "threshold"),
    ("price", {"exact_threshold": 0.5}, "threshold"), ("price", {**HALF, "absent": -1}, "wrong kind"),
    ("price", {**HALF, "static_false": 1}, "wrong kind"), ("price", {**HALF, "entries": 1.5}, "wrong kind"),
])
def test_a_file_whose_record_is_wrong_is_refused(segmenter, tmp_path, field, value, message):
    frozen = segmenter.prepare(SupportSet.from_arrays(*discs(3))).freeze(kind="exact")
    values = json.loads(frozen.record.to_json()) | {field: value}
    model = bind(frozen.model[: -seal.LENGTH], {}, {KEY: json.dumps(values)}, outputs=None, query_size=segmenter.grid)
    (tmp_path / "task.onnx").write_bytes(seal.sealed(model))
    with pytest.raises(BundleError, match=message):
        FrozenTask.open(tmp_path / "task.onnx")
