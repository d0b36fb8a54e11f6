"""What the steps send, made at home: nothing here needs a GPU. Then a line a step: how much it sends, and what to name.

    python benchmarks/gpu/steps/beforehand.py upload --data-root DATA [--runtime NAME=FOLDER ...]

upload/references.npz    logits of the reference at S = 64 and 16
upload/task.onnx         a static frozen task, and task_fp16.onnx the same in half precision
upload/kernels/          the CUDA library and its self-test for compute capability 9.0, where nvcc is here
upload/data/             the data sets' files that the config trains and validates on
upload/NAME.tar.xz.00of03  pieces of a runtime: a folder as `pip install --target FOLDER` leaves it

A line says how much is sent: the tree's files and these paths, which git ignores. Name them to a tool that sends a
working tree.
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the checkout importable as the package
    sys.path[0] = str(Path(__file__).resolve().parents[3])
    from universeg_rt.checkout import make_importable

    make_importable()

from universeg_rt.benchmarks.gpu.steps import parts, plan  # noqa: E402
from universeg_rt.checkout import ROOT  # noqa: E402
from universeg_rt.cli.common import run_command  # noqa: E402
from universeg_rt.errors import InputError  # noqa: E402
from universeg_rt.storage.atomic import make_folder, write_file  # noqa: E402

UPLOAD = 64 << 20  # bytes of a command, the tree included
PIECE_BYTES = 40 << 20
PIECE = r"(?P<name>[\w.-]+)\.tar\.xz\.(?P<number>\d\d)of(?P<of>\d\d)"
# Code for x86 packs better with its addresses made absolute; a large dictionary finds what a library holds twice.
PACKING = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 29}]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="beforehand.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("upload", type=Path, help="folder to write")
    parser.add_argument("--data-root", type=Path, help="folder of the data sets' files")
    parser.add_argument("--bundle", type=Path, help="of the references and tasks (the shipped one)")
    parser.add_argument("--config", type=Path, default=parts.CONFIG)
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
    tree, over = size_of(tracked(ROOT)), False
    for step, paths in sent(options.upload).items():
        size = tree + sum(size_of(path.rglob("*") if path.is_dir() else [path]) for path in paths)
        over |= size > UPLOAD
        print(f"{step:30}{size / 2**20:6.1f} MiB{'  TOO MUCH' if size > UPLOAD else ''}  {json.dumps(_names(paths))}")
    return 1 if over else 0


def sent(upload: Path) -> dict[str, list[Path]]:
    """What each command sends beside the tree, of what is there."""
    def there(names: Iterable[str]) -> list[Path]:
        return [upload / name for name in names if (upload / name).exists()]

    steps = {name: there(planned.reads) for name, planned in plan.STEPS.items() if name != "b2"}
    for piece in sorted(path for path in upload.iterdir() if re.fullmatch(PIECE, path.name)):
        match = re.fullmatch(PIECE, piece.name)
        last = int(match["number"]) + 1 == int(match["of"])
        steps[f"b2 {piece.name}"] = [piece, *(there(plan.STEPS["b2"].reads) if last else [])]
    return steps


def _names(paths: list[Path]) -> list[str]:
    return [str(path.absolute().relative_to(ROOT) if path.absolute().is_relative_to(ROOT) else path) for path in paths]


def tracked(root: Path) -> list[Path]:
    """The files of a checkout that travel by themselves: all that git does not ignore; without git all but `upload`."""
    import subprocess

    done = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root,
                          capture_output=True)
    if done.returncode:
        return [p for p in root.rglob("*") if p.is_file() and "upload" not in p.relative_to(root).parts]
    return [root / name for name in set(done.stdout.decode().split("\0")) if name and (root / name).is_file()]


def size_of(files: Iterable[Path]) -> int:
    return sum(path.lstat().st_size for path in files if not path.is_dir())


def _references(options: argparse.Namespace) -> None:
    from universeg_rt.benchmarks.gpu import references
    from universeg_rt.bundle.bundle import SHIPPED

    references.main([str(options.bundle or SHIPPED), str(options.upload / plan.REFERENCES)])


def _tasks(options: argparse.Namespace) -> None:
    """A task of the parity's image-like inputs: its answers are compared, its quality is of no interest."""
    from universeg_rt import Ensemble, Segmenter, SupportSet
    from universeg_rt.export.engine.frozen import in_precision
    from universeg_rt.export.gate.inputs import make_inputs

    with Segmenter.open(options.bundle, runner="native") as segmenter:
        size = segmenter.bundle.manifest.input
        support, _, _ = make_inputs("image-like", size.height, size.width, 16, 1)
        task = segmenter.prepare(SupportSet.from_arrays(support[0, :, 0], support[0, :, 1]), Ensemble(1, 16))
        frozen = task.freeze(list(support[0, :4, 0]), kind="static")
        half = in_precision(frozen.model, "fp16", segmenter.bundle, frozen.spec, frozen.record.grid)
    for name, model in zip((plan.TASK, plan.HALF_TASK), (frozen.model, half)):
        with write_file(options.upload / name) as file:
            file.write(model)


def _kernels(options: argparse.Namespace) -> None:
    from universeg_rt.kernels.build import bring, build, tool

    if tool("nvcc") is None and not Path("/usr/local/cuda/bin/nvcc").exists():
        return print("kernels: nvcc is not here; the machine has to build them")
    with tempfile.TemporaryDirectory() as work:
        built = build(["cuda"], build_dir=Path(work), architectures="90")
        bring(built, "90", options.upload / plan.KERNELS)


def _data(options: argparse.Namespace) -> None:
    from universeg_rt.training.run.config import load_config
    from universeg_rt.training.settings.values import read_yaml

    if options.data_root is None:
        return print("data: no --data-root, so no training")
    config = load_config(options.config)
    folder = make_folder(options.upload / plan.DATA)
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
    for earlier in target.parent.glob(f"{target.name}.*of*"):
        earlier.unlink()
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
