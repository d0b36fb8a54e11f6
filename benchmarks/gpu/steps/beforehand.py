"""What the steps upload, made at home: nothing here needs a GPU. Then a line a step: what it uploads, and how much.

    python benchmarks/gpu/steps/beforehand.py upload --data-root DATA [--runtime NAME=FOLDER ...]

upload/references.npz    logits of the reference at S = 64 and 16
upload/task.onnx         a static frozen task, and task_fp16.onnx the same in half precision
upload/kernels/          the CUDA library and its self-test for compute capability 9.0, where nvcc is here
upload/data/             the data sets' files that the config trains and validates on
upload/NAME.tar.xz.00of03  pieces of a runtime: a folder as `pip install --target FOLDER` leaves it
"""

from __future__ import annotations

import argparse
import lzma
import re
import shutil
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the checkout importable as the package
    sys.path[0] = str(Path(__file__).resolve().parents[3])
    from universeg_rt.checkout import make_importable

    make_importable()

from universeg_rt.benchmarks.gpu.steps import settings  # noqa: E402
from universeg_rt.checkout import ROOT  # noqa: E402
from universeg_rt.cli.common import run_command  # noqa: E402
from universeg_rt.errors import InputError  # noqa: E402
from universeg_rt.storage.atomic import make_folder, write_file  # noqa: E402

UPLOAD = 64 << 20  # bytes of a command, the tree included
PIECE_BYTES = 48 << 20
PIECE = r"(?P<name>[\w.-]+)\.tar\.xz\.(?P<number>\d\d)of(?P<of>\d\d)"
# Code for x86 packs better with its addresses made absolute; a large dictionary finds what a library holds twice.
PACKING = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 29}]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="beforehand.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("upload", type=Path, help="folder to write")
    parser.add_argument("--data-root", type=Path, help="folder of the data sets' files")
    parser.add_argument("--config", type=Path, default=settings.CONFIG)
    parser.add_argument("--runtime", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    return run_command(_run, parser, arguments)


def _run(options: argparse.Namespace) -> int:
    make_folder(options.upload)
    for name in options.only:
        PARTS[name](options)
    for given in options.runtime:
        name, _, folder = given.partition("=")
        if not Path(folder).is_dir() or not re.fullmatch(r"[\w.-]+", name):
            raise InputError(f"--runtime {given}: give NAME=FOLDER, a folder that is there")
        pack(Path(folder), options.upload / f"{name}.tar.xz")
    tree = size_of(tracked(ROOT))
    uploads = {step: tree + size for step, size in _uploads(options.upload).items()}
    for step, size in uploads.items():
        print(f"{step:30}{size / 2**20:8.1f} MiB" + ("  TOO MUCH" if size > UPLOAD else ""))
    return 1 if any(size > UPLOAD for size in uploads.values()) else 0


def _uploads(upload: Path) -> dict[str, int]:
    """Bytes beside the tree of each step's upload."""
    parts = {name: size_of(p for p in (upload / name).rglob("*") if p.is_file()) for name in ("data", "kernels")}
    tasks = size_of(upload / name for name in (settings.REFERENCES, *settings.TASKS) if (upload / name).is_file())
    pieces = {f"b2 {p.name}": p.stat().st_size for p in sorted(upload.iterdir()) if re.fullmatch(PIECE, p.name)}
    return {"a1": sum(parts.values()) + tasks, "b1": parts["data"], **pieces, "b6": 0, "b7": parts["kernels"] + tasks}


def tracked(root: Path) -> list[Path]:
    """The files of a checkout: those that git knows, or all where there is no git."""
    import subprocess

    done = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True)
    if done.returncode:
        return [p for p in root.rglob("*") if p.is_file() and "upload" not in p.parts]
    return [root / name for name in done.stdout.decode().split("\0") if name and (root / name).is_file()]


def size_of(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def _references(options: argparse.Namespace) -> None:
    from universeg_rt.benchmarks.gpu import references
    from universeg_rt.bundle.bundle import SHIPPED

    references.main([str(SHIPPED), str(options.upload / settings.REFERENCES)])


def _tasks(options: argparse.Namespace) -> None:
    """A task of the parity's image-like inputs: its answers are compared, its quality is of no interest."""
    from universeg_rt import Ensemble, Segmenter, SupportSet
    from universeg_rt.export.engine.frozen import in_precision
    from universeg_rt.export.gate.inputs import make_inputs

    support, _, _ = make_inputs("image-like", 128, 128, 16, 1)
    with Segmenter.open(runner="native") as segmenter:
        task = segmenter.prepare(SupportSet.from_arrays(support[0, :, 0], support[0, :, 1]), Ensemble(1, 16))
        frozen = task.freeze(list(support[0, :4, 0]), kind="static")
        half = in_precision(frozen.model, "fp16", segmenter.bundle, frozen.spec, frozen.record.grid)
    for name, model in zip(settings.TASKS, (frozen.model, half)):
        with write_file(options.upload / name) as file:
            file.write(model)


def _kernels(options: argparse.Namespace) -> None:
    from universeg_rt.kernels.build import build, tool

    if tool("nvcc") is None and not Path("/usr/local/cuda/bin/nvcc").exists():
        return print("kernels: nvcc is not here; the machine has to build them")
    work = options.upload.absolute().parent / f"{options.upload.name}.build"
    built = build(["cuda"], build_dir=work, architectures="90")
    for path, folder in ((built.library, "lib"), (built.selftest, "bin")):
        target = make_folder(options.upload / "kernels" / folder)
        shutil.copy2(path, target / path.name)


def _data(options: argparse.Namespace) -> None:
    from universeg_rt.training.run.config import load_config
    from universeg_rt.training.settings.values import read_yaml

    if options.data_root is None:
        return print("data: no --data-root, so no training")
    config = load_config(options.config)
    folder = make_folder(options.upload / "data")
    for path in (*config.data.datasets, *config.validation.datasets):
        for task in read_yaml(Path(path))["tasks"]:
            for key in ("file", "absent"):
                if key in task:
                    (folder / task[key]).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(options.data_root / task[key], folder / task[key])


def pack(folder: Path, target: Path) -> list[Path]:
    """A folder as TARGET.00of03 and so on, each of at most PIECE_BYTES."""
    whole = target.with_name(f"{target.name}.whole")
    with lzma.open(whole, "wb", format=lzma.FORMAT_XZ, filters=PACKING) as packed, \
            tarfile.open(fileobj=packed, mode="w|") as tar:
        tar.add(folder, ".", filter=lambda entry: None if entry.name.endswith(".pyc") else entry)
    count, written = max(1, -(-whole.stat().st_size // PIECE_BYTES)), []
    with open(whole, "rb") as source:
        for number in range(count):
            written.append(target.with_name(f"{target.name}.{number:02}of{count:02}"))
            with write_file(written[-1]) as file:
                file.write(source.read(PIECE_BYTES))
    whole.unlink()
    return written


def unpack(pieces: list[Path], folder: Path) -> Path:
    """The folder that `pack` took, whole or not there."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    whole = part.with_suffix(".xz")
    with open(whole, "wb") as file:
        for piece in pieces:
            file.write(piece.read_bytes())
    with lzma.open(whole) as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
        tar.extractall(part, filter="data")
    whole.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    return part.rename(folder)


PARTS = {"references": _references, "tasks": _tasks, "kernels": _kernels, "data": _data}

if __name__ == "__main__":
    sys.exit(main())
