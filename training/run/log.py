"""The log of a run: log.csv for every step, validation.csv, and TensorBoard's files where it is installed."""

from __future__ import annotations

import csv
from pathlib import Path

from universeg_rt.errors import OutputError
from universeg_rt.storage.atomic import make_folder, write_file, writing
from universeg_rt.storage.reading import regular_file

STEPS, VALIDATION = "log.csv", "validation.csv"


class RunLog:
    """Appends to the logs in `output`; rows of steps after `step`, which a resumed run does again, are dropped first.

    Every method raises OutputError where a log cannot be written.
    """

    def __init__(self, output: Path, step: int = 0) -> None:
        make_folder(output)
        self.output, self.files, self.writers = output, {}, {}
        for name in (STEPS, VALIDATION):
            _keep_until(output / name, step)
        try:
            from torch.utils.tensorboard import SummaryWriter
            with writing(output / "tensorboard"):
                self.board = SummaryWriter(str(output / "tensorboard"), purge_step=None)
        except ImportError:
            self.board = None

    def row(self, **values) -> None:
        """One step of the optimiser; `step`, `samples`, `loss`, `gradient_norm` and `learning_rate` at least."""
        self._csv(STEPS, values)
        if values["step"] % 10 == 0:
            self._on_board("train", values["samples"],
                           {key: values[key]
                            for key in ("loss", "gradient_norm", "learning_rate")})

    def validation(self, step: int, samples: int, scores: dict[str, float]) -> None:
        """Dice of each held-out task and their mean."""
        self._csv(VALIDATION, {"step": step, "samples": samples, **scores})
        self._on_board("validation", samples, scores)

    def close(self) -> None:
        with writing(self.output):
            for file in self.files.values():
                file.close()
            if self.board:
                self.board.close()

    def _on_board(self, group: str, samples: int, values: dict[str, float]) -> None:
        if self.board:
            with writing(self.output / "tensorboard"):
                for key, value in values.items():
                    self.board.add_scalar(f"{group}/{key}", value, samples)

    def _csv(self, name: str, values: dict) -> None:
        path = self.output / name
        with writing(path):
            if name not in self.files:
                new = not path.exists() or not path.stat().st_size
                self.files[name] = open(path, "a", newline="", buffering=1)
                self.writers[name] = csv.DictWriter(self.files[name], list(values))
                if new:
                    self.writers[name].writeheader()
            self.writers[name].writerow({k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()})


def _keep_until(path: Path, step: int) -> None:
    if not path.exists():
        return
    with writing(regular_file(path, OutputError)):
        # Bytes that are no text belong to no row that is kept.
        header, *rows = path.read_text(errors="replace").splitlines(keepends=True) or [""]
    kept = [row for row in rows
            if row.endswith("\n") and row.split(",", 1)[0].isdigit() and int(row.split(",", 1)[0]) <= step]
    if len(kept) < len(rows):
        with write_file(path) as file:
            file.write("".join([header, *kept]).encode())
