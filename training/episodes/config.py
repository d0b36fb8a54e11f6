"""What the episodes of a training run are drawn from, and how: its data and its stages."""

from __future__ import annotations

from dataclasses import dataclass

from universeg_rt.errors import InputError, shown
from universeg_rt.training.episodes.augment import AugmentConfig
from universeg_rt.training.episodes.synthetic import SyntheticConfig
from universeg_rt.training.settings.bounds import TRAINING_TASKS, check_numbers
from universeg_rt.training.tasks.tasks import SPLITS


@dataclass(frozen=True)
class Stage:
    """A part of the training: `samples` queries of `size` pixels a side, then the next stage.

    entries: smallest and largest support size; drawn uniformly in the logarithm.
    queries: that share each support set. episodes: in one step of the optimiser, on all processes together.
    learning_rate goes linearly to final_learning_rate (None: stays) over the stage. average_samples: time constant of
    the running average of the weights, in samples. target_share: episodes whose targets' mean share of the image lies
    outside are drawn anew (a few times at most), for a curriculum from large to small targets.
    """

    samples: int
    size: int = 128
    entries: tuple[int, int] = (1, 16)
    queries: int = 2
    episodes: int = 4
    learning_rate: float = 1e-3
    final_learning_rate: float | None = None
    average_samples: float = 4000.0
    target_share: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class DataConfig:
    """Where episodes come from.

    datasets: YAML files of data sets (see datasets.py), whose files lie under data_root. leave_out: names of tasks
    never to train on. splits: of the subjects trained on (the paper's two). real_probability: that an episode is of a
    real task; its data set is drawn first, by the square root of its number of subjects. crop_probability: of cutting
    an episode's images to windows of `crop_window` (smallest and largest side, 1 is the whole image), so that small
    structures are seen large. crop_alike: of a window at one place in all images; else each image's window lies near
    its own target. tiny_probability: of asking for an episode whose target takes under a hundredth of the image.
    absent_probability: that an episode's first query lacks the target. repaint_probability: that a real task keeps its
    labels and gets random intensities. synthetic_tasks: how many there are; each is a seed.
    """

    datasets: tuple[str, ...] = ()
    data_root: str = ""
    leave_out: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("support", "dev", "test")
    real_probability: float = 0.4
    crop_probability: float = 0.5
    crop_window: tuple[float, float] = (0.35, 1.0)
    crop_alike: float = 0.3
    tiny_probability: float = 0.0
    absent_probability: float = 0.0
    repaint_probability: float = 0.0
    synthetic_tasks: int = TRAINING_TASKS
    synthetic: SyntheticConfig = SyntheticConfig()
    augment: AugmentConfig = AugmentConfig()

    def __post_init__(self) -> None:
        check_numbers(self, "data.")
        if not self.splits or not set(self.splits) <= set(SPLITS):
            raise InputError(f"splits {shown(list(self.splits))}; accepted: {', '.join(SPLITS)}")
