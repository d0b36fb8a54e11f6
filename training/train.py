"""The training loop of Algorithm 1: episodes from seeds, Adam, soft Dice, averaged weights, resumable to the step."""

from __future__ import annotations

import csv
import json
import math
import signal
import time
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from universeg_rt.errors import InputError, TrainingError
from universeg_rt.training.config import Stage, TrainConfig, to_dict
from universeg_rt.training.episodes import Batch, EpisodeSource
from universeg_rt.training.folded_forward import FoldedUniverSeg
from universeg_rt.training.reference import UniverSeg
from universeg_rt.training.state import read_state, write_best, write_state
from universeg_rt.training.tasks import Task
from universeg_rt.training.validate import task_dice

STATE, LATEST, BEST, LOG = "state.pt", "latest.safetensors", "best.safetensors", "log.csv"


def soft_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - 2 Σ p y / (Σ p² + Σ y²) of each sample (V-Net's form), averaged; logits and target (...,1,H,W)."""
    probability, target = torch.sigmoid(logits.float()).flatten(-3), target.float().flatten(-3)
    overlap = (probability * target).sum(-1)
    total = probability.square().sum(-1) + target.square().sum(-1)
    return (1.0 - (2.0 * overlap + 1.0) / (total + 1.0)).mean()


def initialise(model: UniverSeg) -> None:
    """Weights that keep the signal's size: He's, and no gain for the cross convolution where no activation follows."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
        elif "cross_conv" in name and model.spec.cross_activation == "none" or name.startswith("out_conv"):
            torch.nn.init.kaiming_normal_(parameter, nonlinearity="linear")
        else:
            torch.nn.init.kaiming_normal_(parameter, a=model.spec.negative_slope, nonlinearity="leaky_relu")


class Trainer:
    """One process of a run; `output` holds the state, the weights, the config and the logs."""

    def __init__(self, config: TrainConfig, tasks: list[Task], held_out: list[Task], output: Path, device="cpu") -> None:
        self.config, self.output, self.device = config, Path(output), torch.device(device)
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.source = EpisodeSource(config.data, tasks, self.device)
        self.held_out = held_out
        torch.manual_seed(config.seed)
        self.model = FoldedUniverSeg(config.network.spec())
        initialise(self.model)
        self.model.to(self.device)
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)
        # Nobody reads the last block's support branch (see folded_forward.py), so it has no gradient to share.
        self.model.dec_blocks[-1].support.requires_grad_(False)
        self.parallel = DistributedDataParallel(self.model) if self.world > 1 else self.model
        self.forward = torch.compile(self.parallel) if config.compile else self.parallel
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=config.stages[0].learning_rate)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.autocast == "float16")
        self.step = self.samples = 0
        self.best = {"dice": -1.0, "stage": -1}
        self.stop_asked = False

    # ---- where the run stands

    def stage(self) -> tuple[int, Stage, float] | None:
        """Index of the present stage, the stage, and the share of it already done; None when all are done."""
        before = 0
        for index, stage in enumerate(self.config.stages):
            if self.samples < before + stage.samples:
                return index, stage, (self.samples - before) / stage.samples
            before += stage.samples
        return None

    def resume(self) -> bool:
        """Go on from the output's state, if there is one."""
        path = self.output / STATE
        if not path.exists():
            return False
        state = read_state(path, self.config.network.spec(), self.device)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.samples, self.best = state["step"], state["samples"], state["best"]
        return True

    def save(self) -> None:
        """Write the state and the averaged weights, each whole or not at all; only the first process writes."""
        if self.rank:
            return
        self.output.mkdir(parents=True, exist_ok=True)
        write_state(self.output / STATE, {
            "model": self.model.state_dict(), "average": self.average, "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(), "step": self.step, "samples": self.samples, "best": self.best,
            "spec": self.config.network.spec().to_json(), "config": json.dumps(to_dict(self.config))})
        self.write_weights(self.output / LATEST)

    def write_weights(self, path: Path, **facts) -> None:
        write_best(path, self.config, self.average, {"samples": self.samples, "step": self.step, **facts})

    # ---- one step

    def seeds(self, stage: Stage) -> list[int]:
        """Seeds of this process's episodes in this step; every episode of a run has its own."""
        first = (self.config.seed * 1_000_003 + self.step) * 4096 + self.rank
        return [first + self.world * i for i in range(max(1, stage.episodes // self.world))]

    def train_step(self, stage: Stage, learning_rate: float) -> tuple[float, float]:
        """One step of the optimiser: (loss, gradient norm), the loss averaged over all processes."""
        seeds = self.seeds(stage)
        # A GPU takes all episodes at once; a CPU's caches want them one by one, each with its own support size.
        groups = [seeds] if self.device.type == "cuda" else [[seed] for seed in seeds]
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for index, group in enumerate(groups):
            batch = self.source.batch(group, stage)
            # Processes exchange gradients once a step, with the last group's.
            alone = self.world > 1 and index < len(groups) - 1
            with self.parallel.no_sync() if alone else nullcontext():
                loss = self.loss(batch)
                value = loss.item()
                if not math.isfinite(value):
                    self.not_finite("loss", value, batch.seeds)
                self.scaler.scale(loss / len(groups)).backward()
            total += value / len(groups)
        if self.world > 1:
            mean = torch.tensor(total, device=self.device)
            dist.all_reduce(mean)
            total = float(mean) / self.world
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.scaler.unscale_(self.optimiser)
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm))
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            self.not_finite("gradient", norm, seeds)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.step += 1
        self.samples += stage.queries * len(seeds) * self.world
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, value in self.model.state_dict().items():
                self.average[key].lerp_(value, 1.0 - decay)
        return total, norm

    def loss(self, batch: Batch) -> Tensor:
        dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.config.autocast)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            logits = self.forward(batch.query, batch.support_images, batch.support_labels)
        return soft_dice_loss(logits, batch.target)

    def not_finite(self, what: str, value: float, seeds: list[int]) -> None:
        raise TrainingError(
            f"the {what} is {value} at step {self.step}, episode seeds {seeds}; the last good state stays in "
            f"{self.output / STATE} ({self.samples} samples seen by now): lower the learning rate or look at that "
            "episode, then run again")

    # ---- the whole run

    def run(self, progress: bool | None = None, stop_after_samples: int | None = None) -> None:
        """Train until the stages are done, or `stop_after_samples` more, or SIGTERM or SIGINT; each saves the state."""
        config = self.config
        previous = {s: signal.signal(s, self._ask_to_stop) for s in (signal.SIGTERM, signal.SIGINT)}
        end = sum(stage.samples for stage in config.stages)
        last = min(end, self.samples + stop_after_samples) if stop_after_samples else end
        log = _Log(self.output) if self.rank == 0 else None
        bar = tqdm(total=end, initial=self.samples, unit="sample", disable=True if self.rank else
                   (None if progress is None else not progress))
        saved = validated = self.samples
        try:
            while self.samples < last and not self.agreed_to_stop():
                index, stage, share = self.stage()
                rate = stage.learning_rate
                if stage.final_learning_rate is not None:
                    rate += (stage.final_learning_rate - rate) * share
                rate *= min(1.0, (self.samples + 1) / max(1, config.warmup_samples))
                before = self.samples
                started = time.process_time()
                loss, norm = self.train_step(stage, rate)
                bar.update(self.samples - before)
                if log:
                    log.row(step=self.step, samples=self.samples, stage=index, loss=loss, gradient_norm=norm,
                            learning_rate=rate, cpu_seconds=time.process_time() - started)
                if self.samples - saved >= config.checkpoint_samples:
                    self.save()
                    saved = self.samples
                if self.held_out and self.samples - validated >= config.validation.every_samples:
                    self.validate(index, stage, log)
                    validated = self.samples
            self.save()
            if self.held_out and self.samples == end and validated != self.samples:
                self.validate(len(config.stages) - 1, config.stages[-1], log)
        finally:
            bar.close()
            if log:
                log.close()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def validate(self, index: int, stage: Stage, log: "_Log | None") -> None:
        """Dice of the averaged weights on the held-out tasks; the best of the present stage is kept."""
        if self.rank:
            return
        model = FoldedUniverSeg(self.config.network.spec()).to(self.device)
        model.load_state_dict(self.average)
        v = self.config.validation
        scores = {t.name: float(task_dice(model, t, stage.size, v.entries, v.queries, v.split, device=self.device).mean())
                  for t in self.held_out}
        mean = sum(scores.values()) / len(scores)
        # Scores at different image sizes are not comparable, so each stage starts anew.
        if mean > self.best["dice"] or index != self.best["stage"]:
            self.best = {"dice": mean, "stage": index}
            self.write_weights(self.output / BEST, validation_dice=scores)
        log.validation(self.step, self.samples, {"mean": mean, **scores})

    def agreed_to_stop(self) -> bool:
        if self.world == 1:
            return self.stop_asked
        flag = torch.tensor([float(self.stop_asked)], device=self.device)
        dist.all_reduce(flag)
        return bool(flag > 0)

    def _ask_to_stop(self, *_) -> None:
        self.stop_asked = True


class _Log:
    """log.csv, validation.csv and, where installed, TensorBoard."""

    def __init__(self, output: Path) -> None:
        output.mkdir(parents=True, exist_ok=True)
        self.output, self.files, self.writers = output, {}, {}
        try:
            from torch.utils.tensorboard import SummaryWriter
            self.board = SummaryWriter(str(output / "tensorboard"))
        except ImportError:
            self.board = None

    def row(self, **values) -> None:
        self._csv(LOG, values)
        if self.board and values["step"] % 10 == 0:
            for key in ("loss", "gradient_norm", "learning_rate"):
                self.board.add_scalar(f"train/{key}", values[key], values["samples"])

    def validation(self, step: int, samples: int, scores: dict[str, float]) -> None:
        self._csv("validation.csv", {"step": step, "samples": samples, **scores})
        if self.board:
            for key, value in scores.items():
                self.board.add_scalar(f"validation/{key}", value, samples)

    def _csv(self, name: str, values: dict) -> None:
        if name not in self.files:
            path = self.output / name
            new = not path.exists() or not path.stat().st_size
            self.files[name] = open(path, "a", newline="", buffering=1)
            self.writers[name] = csv.DictWriter(self.files[name], list(values))
            if new:
                self.writers[name].writeheader()
        self.writers[name].writerow({k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()})

    def close(self) -> None:
        for file in self.files.values():
            file.close()
        if self.board:
            self.board.close()
