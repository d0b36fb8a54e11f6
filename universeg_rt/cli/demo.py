"""The demo: segments grey and white matter on slices of a real MRI, the MNI152 template that nilearn's wheel carries.

    python -m universeg_rt.cli.demo

Some axial slices with their labels are the support, the slices between them are the queries.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np

from ..ensemble import Ensemble
from ..errors import InputError
from ..imaging.files import write_mask, write_png
from ..imaging.metrics import dice
from ..imaging.overlays import overlay, write_overlay
from ..install import install_hint
from ..named_types import Array
from ..segmenter import Segmenter
from ..storage.atomic import make_folder, write_json
from ..support import SupportSet
from .common import run_command

FILES = {
    "T1": "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    "grey matter": "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz",
    "white matter": "mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz",
}
# Axial slices (index of the third axis, 1 mm apart) that show the cerebrum, a query between each pair of examples.
SUPPORT_SLICES = tuple(range(50, 141, 6))
QUERY_SLICES = tuple(range(53, 138, 12))


def load_slices() -> dict[str, Array]:
    """Load T1 and the two tissue maps (probabilities above 0.5) as axial slices (Z,H,W), anterior up.

    Raises InputError where nilearn is not installed.
    """
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise InputError(f"the demo's MRI comes with the package nilearn, which is missing; {install_hint('demo')}")
    import nibabel

    folder = Path(spec.origin).parent / "datasets" / "data"
    out = {}
    for name, file in FILES.items():
        upright = nibabel.as_closest_canonical(nibabel.load(folder / file))  # type: ignore[no-untyped-call]  # nibabel types a part
        volume = np.asanyarray(upright.dataobj)
        slices = np.flip(np.transpose(volume, (2, 1, 0)), axis=1)
        out[name] = np.ascontiguousarray(slices if name == "T1" else slices > 0.5 * volume.max())
    return out


def _main(args: argparse.Namespace) -> int:
    slices = load_slices()
    make_folder(args.output)
    image, labels = slices.pop("T1"), slices
    segmenter = Segmenter.open(args.bundle)
    print(f"bundle {segmenter.bundle.manifest.name}; runner {segmenter.runner.name} ({segmenter.runner.reason}), "
          f"{segmenter.runner.place}")
    report, panels = {}, []
    for name, label in labels.items():
        support = SupportSet.from_arrays(
            image[list(SUPPORT_SLICES)], label[list(SUPPORT_SLICES)], [f"axial {z}" for z in SUPPORT_SLICES])
        task = segmenter.prepare(support, Ensemble(), aspect="pad")
        scores, seconds, row = [], [], []
        for z in QUERY_SLICES:
            prediction = task.predict(image[z])
            scores.append(dice(prediction.mask, label[z]))
            seconds.append(prediction.timing.total)
            stem = f"{name.replace(' ', '_')}_axial_{z:03}"
            write_mask(args.output / f"{stem}_mask.png", prediction.mask)
            write_overlay(args.output / f"{stem}_overlay.png", image[z], prediction.mask, label[z])
            row.append(overlay(image[z], prediction.mask, label[z]))
        panels.append(np.concatenate(row[1::2], axis=1))
        report[name] = {"dice": dict(zip(map(int, QUERY_SLICES), scores)), "median_seconds": float(np.median(seconds))}
        print(f"{name:13} Dice {np.mean(scores):.3f} (lowest {min(scores):.3f}) over {len(scores)} slices, "
              f"{len(support)} examples; {np.median(seconds):.2f} s a slice (median)")
    write_png(args.output / "demo.png", np.concatenate(panels, axis=0))
    write_json(args.output / "report.json", report)
    print(
        f"overlays (orange: predicted, cyan: true outline) and masks are in {args.output}; all at once: "
        f"{args.output / 'demo.png'}"
    )
    return 0


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="universeg_rt.cli.demo", description=__doc__.splitlines()[0])
    p.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for what it writes (demo_output)")
    p.add_argument("--bundle", type=Path, help="folder of the bundle (the shipped one)")
    return run_command(_main, p, arguments)


if __name__ == "__main__":
    sys.exit(main())
