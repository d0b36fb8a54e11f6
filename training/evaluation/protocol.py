"""Which queries an evaluation asks, which supports they get, and which data sets it may open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from universeg_rt import Ensemble, SupportSet
from universeg_rt.ensemble import ALL, NEAREST, POLICIES, RANDOM, Policy
from universeg_rt.errors import InputError
from universeg_rt.training.evaluation.figures import seeded
from universeg_rt.training.tasks.datasets import Absent
from universeg_rt.training.tasks.tasks import SPLITS, Task

GROUPS = Path(__file__).parents[1] / "data_sets"
CLOSED = "report"  # the group that is opened once
QUERY_SPLITS = tuple(name for name in SPLITS if name != "support")


@dataclass(frozen=True)
class Protocol:
    """support_sizes and members: every S and K to report. queries: largest number a task (None: all of the splits).

    splits: whose images are queries. seed: of supports, choice of queries, and bootstrap. leave_one_out: each subject
    is a query, the other subjects are its support, in place of the splits. policy: of `Ensemble`; random draws with
    replacement, as the paper does.
    """

    support_sizes: tuple[int, ...] = (64,)
    members: tuple[int, ...] = (5,)
    queries: int | None = None
    seed: int = 0
    splits: tuple[str, ...] = ("dev",)
    leave_one_out: bool = False
    policy: Policy = RANDOM

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise InputError(f"policy is {self.policy!r}; accepted: {', '.join(POLICIES)}")
        for name in ("support_sizes", "members"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise InputError(f"{name} is {list(values)}; give positive integers")
        if self.queries is not None and self.queries < 1:
            raise InputError(f"queries ({self.queries}) must be positive")
        if not self.splits or not set(self.splits) <= set(QUERY_SPLITS):
            raise InputError(f"splits of queries are {list(self.splits)}; accepted: {', '.join(QUERY_SPLITS)}")

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Every (S, K), in the order of all arrays."""
        return [(size, count) for size in self.support_sizes for count in self.members]

    def ensembles(self, size: int, available: int, seed: int) -> dict[Ensemble, tuple[int, ...]]:
        """The ensembles of a support size on a pool of `available` entries, each with the K whose members it holds.

        The K random members are the first K of the largest ensemble. A set of policy `nearest` holds each entry once,
        so at most all that there are, and its members depend on K; with `all` there is one for every K.
        """
        if self.policy == NEAREST:
            return {Ensemble(count, min(size, available), seed=seed, policy=NEAREST): (count,)
                    for count in self.members}
        if self.policy == ALL:
            return {Ensemble(policy=ALL): self.members}
        return {Ensemble(max(self.members), size, replacement=True, seed=seed): self.members}

    @property
    def queries_from(self) -> str:
        """In words."""
        return "leave one subject out" if self.leave_one_out else " and ".join(self.splits)


@dataclass(frozen=True)
class Case:
    """One query: image (H,W) uint8, truth (H,W) bool (empty where the target is absent) and subject; what to draw its
    supports from, and the seed to draw by."""

    image: np.ndarray
    truth: np.ndarray
    subject: str
    pool: Pool
    seed: int


@dataclass(frozen=True)
class Pool:
    """Entries to draw supports from: as the SDK takes them, and as images (N,H,W) and labels (N,H,W) bool."""

    support: SupportSet
    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, task: Task) -> Pool:
        return cls(SupportSet.from_arrays(task.images, task.labels), task.images, task.labels > 0)


def cases(task: Task, protocol: Protocol, absent: Absent | None = None) -> Iterator[Case]:
    """The queries of a task, the same for the same seed whatever runs; then those without its target, of subjects that
    no support is drawn from."""
    asked = task if protocol.leave_one_out else task.split(*protocol.splits)
    shared = None if protocol.leave_one_out else task.split("support")
    pool = Pool.of(shared) if shared else None

    def case(image: np.ndarray, truth: np.ndarray, subject: str, purpose: str) -> Case:
        seed = int(seeded(task.name, protocol.seed, purpose).integers(2**31))
        others = pool or Pool.of(task.select(np.flatnonzero(task.subjects != subject)))
        return Case(image, truth, str(subject), others, seed)

    for query in seeded(task.name, protocol.seed, "queries").permutation(len(asked))[: protocol.queries]:
        yield case(asked.images[query], asked.labels[query] > 0, asked.subjects[query], f"supports of {query}")
    if absent is None:
        return
    apart = np.flatnonzero(~np.isin(absent.subjects, shared.subjects if shared else []))
    for query in seeded(task.name, protocol.seed, "absent").permutation(apart)[: protocol.queries]:
        image = absent.images[query]
        yield case(image, np.zeros(image.shape, bool), absent.subjects[query], f"supports of absent {query}")


def files_of(group: str | None, datasets: Sequence[Path]) -> list[Path]:
    """The YAML files of a group of `data_sets/`, and the given ones. InputError where that is none."""
    files = [*(sorted((GROUPS / group).glob("*.yaml")) if group else ()), *datasets]
    if not files:
        raise InputError("name data sets by their YAML files, or a group with --group")
    return files


def check_open(files: Sequence[Path], opened: bool, recorded: bool) -> None:
    """As `check_closed`, unless it was `opened` by intent; InputError too where that would leave no record."""
    if not opened:
        check_closed(files, ", or --open-report for the final figures")
    elif not recorded and _closed(files):
        raise InputError(f"give --output: an opening of the group {CLOSED} goes on record there")


def check_closed(files: Sequence[Path], other_cure: str = "") -> None:
    """Raise InputError where a file of the closed group is among `files`."""
    if closed := _closed(files):
        raise InputError(
            f"{', '.join(closed[:3])}{' and more' * (len(closed) > 3)} of the group {CLOSED}, which no choice may see; "
            f"use data sets of the group tune{other_cure}")


def _closed(files: Sequence[Path]) -> list[str]:
    return [path.name for path in files if path.resolve().parent.name == CLOSED]
