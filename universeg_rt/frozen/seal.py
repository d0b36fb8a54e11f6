"""The seal of a frozen file: its last entry of metadata is the sha256 of all bytes before it, so that a change shows.

Runtimes do not read it; a file that another tool rewrote has lost it, and with it what its price was measured on.
"""

from __future__ import annotations

import hashlib

from ..bundle import protobuf
from ..bundle.onnx_file import METADATA

KEY = "universeg.seal"


def sealed(model: bytes) -> bytes:
    """The model with the seal behind it."""
    return model + _entry(model)


def check(model: bytes) -> None:
    """ValueError where the file has no seal at its end, or was changed after it was sealed."""
    if protobuf.field(1, KEY) not in model[-LENGTH:]:
        raise ValueError(f"it does not end with its seal, {KEY!r}: it is cut, or another tool wrote it")
    if model[-LENGTH:] != _entry(model[:-LENGTH]):
        raise ValueError("it was changed after it was written")


def _entry(model: bytes) -> bytes:
    pair = protobuf.field(1, KEY) + protobuf.field(2, hashlib.sha256(model).hexdigest())
    return protobuf.field(METADATA, pair)


LENGTH = len(_entry(b""))  # of the seal, in bytes
