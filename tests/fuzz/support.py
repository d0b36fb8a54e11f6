"""Support sets: .npz files with damaged bytes, odd arrays, lying headers and bombs, and folders of odd files."""

from __future__ import annotations

import functools
import io
import os
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from universeg_rt.support import SupportSet

from .arrays import discs, odd_array
from .mutate import damaged

GRID = (16, 16)
HEADERS = ("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999, 999, 9), }",
           "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 20, 20), }",
           "{'descr': '|O', 'fortran_order': False, 'shape': (2, 20, 20), }",
           "{'descr': '|S0', 'fortran_order': False, 'shape': (9999999, 9999999), }",
           "{'descr': '|V1', 'fortran_order': True, 'shape': (2, 20, 20), }",
           "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (100,), }",
           "{'descr': [('a', '<f4'), ('b', '|u1', (2, 2))], 'fortran_order': False, 'shape': (10,), }",
           "{'descr': '|u1', 'fortran_order': False, 'shape': ()}",
           "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 20, 20)}",
           "{'descr': '|u1', 'fortran_order': 3, 'shape': (2, 20, 20)}",
           "{'descr': '|u1', 'fortran_order': False, 'shape': (2.0, 20, 20)}", "{'shape': (2,)}", "[" * 500,
           "{'descr': 5, 'fortran_order': False, 'shape': (2,)}",
           "{'descr': '|b1', 'fortran_order': False, 'shape': (2, 20, 20)}",
           "{'descr': '<c8', 'fortran_order': False, 'shape': (1, 10, 10)}", "\0\xff" * 20)


def cases(rng: random.Random, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    images, labels = discs(2, 20)
    bases = [
        _packed(np.savez, {"images": images, "labels": labels}),
        _packed(np.savez_compressed, {"images": images, "labels": labels})
    ]
    for suffix, given in (("even", images), ("mixed", [images[0], images[1][:, :15]])):
        SupportSet.from_arrays(given, [label[:, :image.shape[1]]
                                       for image, label in zip(given, labels)]).save(folder / f"{suffix}.npz")
        bases.append((folder / f"{suffix}.npz").read_bytes())
    bomb = _packed(np.savez_compressed, {"images": np.zeros((300, 1024, 1024), np.uint8), "labels": labels})
    while True:
        kind = rng.choice(("bytes", "bytes", "arrays", "arrays", "header", "folder", "path", "bomb"))
        if kind == "bytes":
            done, data = damaged(rng, rng.choice(bases))
            yield f"bytes, {done}", lambda data=data: _load(folder, data)
        elif kind == "arrays":
            done, arrays = _odd_arrays(rng, images, labels)
            yield f"arrays, {done}", lambda arrays=arrays: _load(folder, _packed(np.savez, arrays))
        elif kind == "header":
            header, packing = rng.choice(HEADERS), rng.choice(
                (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))
            version, size = rng.choice(((1, 0), (2, 0), (3, 0), (9, 9))), rng.choice((0, 10, 800, 6400))
            make = functools.partial(_with_header, header, packing, version, size, images, labels)
            yield (f"header {header[:60]!r}, version {version}, packing {packing}",
                   lambda make=make: _load(folder, make()))
        elif kind == "folder":
            done, make = _odd_folder(rng)
            yield f"folder, {done}", lambda make=make: _load_folder(folder, make)
        elif kind == "path":
            path = rng.choice(("/dev/zero", "/dev/null", "/", "", ".", "\0", "x" * 5000, None, 5, b"x.npz", "\udcff",
                               folder, folder / "none"))
            yield f"path {str(path)[:40]!r}", lambda path=path: SupportSet.load(path)
        else:
            yield "bomb", lambda: _load(folder, bomb)


def _packed(save: Callable, arrays: dict) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def _load(folder: Path, data: bytes) -> None:
    (folder / "case.npz").write_bytes(data)
    _check(SupportSet.load(folder / "case.npz"))


def _check(support: SupportSet) -> None:
    """What every accepted set has."""
    assert len(support.images) == len(support.labels) == len(support.names) > 0 and len(support.sha256) == 64
    assert all(label.dtype == bool and label.shape == image.shape
               for image, label in zip(support.images, support.labels))
    on_grid = support.on_grid(GRID, "pad")
    assert np.isfinite(on_grid).all() and on_grid.min() >= 0 and on_grid.max() <= 1


def _odd_arrays(rng: random.Random, images: np.ndarray, labels: np.ndarray) -> tuple[str, dict]:
    arrays = rng.choice((
        {"images": images, "labels": labels}, {"images": images, "labels": labels, "names": np.array(["a", "b"])},
        {"image_0": images[0], "image_1": images[1], "label_0": labels[0], "label_1": labels[1]}))
    arrays, done = dict(arrays), []
    for _ in range(rng.choice((1, 1, 2))):
        key, how = rng.choice(sorted(arrays)), rng.choice(("odd", "odd", "odd", "gone", "renamed"))
        if how == "gone":
            del arrays[key]
        elif how == "renamed":
            arrays[rng.choice(("image_7", "images", "names", "a/b", "label_x", "é"))] = arrays.pop(key)
        else:
            how, arrays[key] = odd_array(rng, key)
        done.append(f"{key} {how}")
        if not arrays:
            break
    return ", ".join(done), arrays


def _with_header(header: str, packing: int, version: tuple[int, int], size: int, images: np.ndarray,
                 labels: np.ndarray) -> bytes:
    text = header.encode("latin1") + b"\n"
    length = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    file, plain = io.BytesIO(), io.BytesIO()
    np.save(plain, labels)
    with zipfile.ZipFile(file, "w", packing) as archive:
        archive.writestr("images.npy",
                         b"\x93NUMPY" + bytes(version) + length + text + images.tobytes()[:size].ljust(size, b"\1"))
        archive.writestr("labels.npy", plain.getvalue())
    return file.getvalue()


def _odd_folder(rng: random.Random) -> tuple[str, Callable[[Path], None]]:
    part, name = rng.choice(("images", "labels")), rng.choice(
        ("a.png", "b.png", "c.png", "sub/a.png", "a.tif", ".a.png", "é\udcff.png"))
    what = rng.choice(("text", "pipe", "folder", "zero", "loop", "empty", "npy", "colour", "gone", "turned"))

    def make(folder: Path) -> None:
        path = folder / part / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.unlink()
        if what == "pipe":
            os.mkfifo(path)
        elif what == "folder":
            path.mkdir()
        elif what in ("zero", "loop"):
            path.symlink_to("/dev/zero" if what == "zero" else path)
        elif what == "npy":
            np.save(path.with_suffix(".npy"), np.arange(400).reshape(20, 20))
        elif what == "colour":
            Image.new("RGB", (20, 20), (1, 2, 3)).save(path, "PNG")
        elif what == "turned":
            Image.new("L", (20, 15)).save(path, "PNG")
        elif what != "gone":
            path.write_bytes(b"text" if what == "text" else b"")

    return f"{part}/{name} {what}", make


def _load_folder(folder: Path, make: Callable[[Path], None]) -> None:
    place = folder / "set"
    shutil.rmtree(place, ignore_errors=True)
    images, labels = discs(2, 20)
    for part, arrays in (("images", images), ("labels", labels * np.uint8(255))):
        (place / part).mkdir(parents=True)
        for name, array in zip("ab", arrays):
            Image.fromarray(array).save(place / part / f"{name}.png")
    make(place)
    _check(SupportSet.load(place))
