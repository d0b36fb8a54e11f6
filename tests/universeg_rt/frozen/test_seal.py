"""The seal of a frozen file: any changed byte is seen."""

from __future__ import annotations

import pytest

from universeg_rt.bundle import protobuf
from universeg_rt.bundle.onnx_file import GRAPH, IR_VERSION, metadata
from universeg_rt.frozen import seal

MODEL = protobuf.number_field(IR_VERSION, 8) + protobuf.field(GRAPH, bytes(range(40)))


def test_a_sealed_model_is_whole_and_says_so_among_its_metadata():
    sealed = seal.sealed(MODEL)
    seal.check(sealed)
    assert sealed.startswith(MODEL) and set(metadata(sealed)) == {seal.KEY}


def test_every_changed_byte_is_seen():
    sealed = seal.sealed(MODEL)
    for i in range(len(sealed)):
        changed = bytearray(sealed)
        changed[i] ^= 1
        with pytest.raises(ValueError, match="changed|seal"):
            seal.check(bytes(changed))


@pytest.mark.parametrize("change", [
    lambda sealed: sealed[:-1], lambda sealed: sealed + b"\0", lambda sealed: sealed[:20], lambda sealed: b"",
    lambda sealed: MODEL], ids=["cut", "longer", "short", "empty", "unsealed"])
def test_a_file_without_its_seal_is_refused(change):
    with pytest.raises(ValueError, match="its seal|changed after"):
        seal.check(change(seal.sealed(MODEL)))


def test_what_is_put_before_the_seal_is_seen():
    sealed = seal.sealed(MODEL)
    more = protobuf.field(14, protobuf.field(1, "a") + protobuf.field(2, "b"))
    with pytest.raises(ValueError, match="changed after it was written"):
        seal.check(MODEL + more + sealed[len(MODEL):])
