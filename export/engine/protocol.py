"""How the exporter and the child process with the vendor's library talk: a line of JSON, then the blobs it
announces."""

from __future__ import annotations

import json
from typing import BinaryIO


def write_message(stream: BinaryIO, header: dict, *blobs: bytes) -> None:
    """Write one message; `header` is plain values without a key "blobs"."""
    line = json.dumps({**header, "blobs": [len(blob) for blob in blobs]})
    stream.write(line.encode() + b"\n")
    for blob in blobs:
        stream.write(blob)
    stream.flush()


def read_message(stream: BinaryIO) -> tuple[dict, list[bytes]] | None:
    """The next message, or None where the other side has gone, in the middle of one too."""
    try:
        line = stream.readline()
        if not line.endswith(b"\n"):
            return None
        header = json.loads(line)
        blobs = [stream.read(size) for size in header["blobs"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if any(len(blob) != size for blob, size in zip(blobs, header["blobs"])):
        return None
    return header, blobs
