"""The training loop of Algorithm 1: episodes from seeds, Adam, soft Dice, averaged weights, resumable to the step."""

from __future__ import annotations

import json
import math
import signal
import time
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from universeg_rt.errors import InputError, TrainingError
from universeg_rt.training.episodes.config import Stage
from universeg_rt.training.episodes.episodes import Batch, EpisodeSource
from universeg_rt.training.network.checkpoint import load_checkpoint
from universeg_rt.training.network.folded_forward import FoldedUniverSeg
from universeg_rt.training.network.reference import UniverSeg
from universeg_rt.training.run.config import TrainConfig
from universeg_rt.training.run.feed import feed
from universeg_rt.training.run.log import RunLog
from universeg_rt.training.run.schedule import Step, steps
from universeg_rt.training.run.state import read_state, write_best, write_state
from universeg_rt.training.run.validate import task_dice
from universeg_rt.training.settings.values import to_dict
from universeg_rt.training.tasks.tasks import Task

STATE, LATEST, BEST, FINISHED = "state.pt", "latest.safetensors", "best.safetensors", "finished.safetensors"
SMOOTHING = 1e-3  # of soft Dice, in pixels
ABSENT = 5e-3  # of the pixels, in place of that where there is no target
DEAD_NORM, DEAD_STEPS = 1e-5, 50  # a gradient so small for so many steps: the network has collapsed


def soft_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - 2 Σ p y / (Σ p² + Σ y²) of each sample (V-Net's form), averaged; logits and target (...,1,H,W).

    Without a target it is Σ p² / (Σ p² + ABSENT of the pixels), whose gradient does not vanish where much is predicted.
    """
    probability, target = torch.sigmoid(logits.float()).flatten(-3), target.float().flatten(-3)
    overlap = (probability * target).sum(-1)
    total = probability.square().sum(-1) + target.square().sum(-1)
    # A smoothing of 1 would forgive an empty mask a fifth of the loss on a target of four pixels.
    smoothing = torch.where(target.any(-1), SMOOTHING, ABSENT * target.shape[-1])
    return (1.0 - (2.0 * overlap + smoothing) / (total + smoothing)).mean()


def segmentation_loss(logits: Tensor, target: Tensor, kind: str = "dice") -> Tensor:
    """`dice`: soft Dice, as in the paper; `dice_ce`: that plus the mean binary cross-entropy, whose gradient does not
    vanish where a thin target is missed altogether."""
    loss = soft_dice_loss(logits, target)
    if kind == "dice_ce":
        loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), target.float())
    return loss


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

    def __init__(self, config: TrainConfig, tasks: list[Task], held_out: list[Task], output: Path,
                 device="cpu") -> None:
        self.config, self.output, self.device = config, Path(output), torch.device(device)
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.source = EpisodeSource(config.data, tasks, "cpu" if config.workers else self.device)
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
        self.begun_from_weights = False
        self.dead_steps = 0
        self.stop_asked = False

    # ---- where the run stands

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
        self.begun_from_weights = state["begun_from_weights"]
        return True

    def begin_from(self, path: Path) -> None:
        """Take a checkpoint's weights to begin with; CheckpointError where they are of another network."""
        _, weights, _ = load_checkpoint(path, self.config.network.spec())
        state = {key: torch.from_numpy(value).to(self.device) for key, value in weights.items()}
        self.model.load_state_dict(state)
        self.average = {key: value.clone() for key, value in state.items()}
        self.begun_from_weights = True

    def save(self) -> None:
        """Write the state and the averaged weights, each whole or not at all; only the first process writes.

        While the gradient is dead nothing is written, so that what is on disk is from before.
        """
        if self.rank or self.dead_steps:
            return
        self.output.mkdir(parents=True, exist_ok=True)
        write_state(self.output / STATE, {
            "model": self.model.state_dict(), "average": self.average, "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(), "step": self.step, "samples": self.samples, "best": self.best,
            "begun_from_weights": self.begun_from_weights,
            "spec": self.config.network.spec().to_json(), "config": json.dumps(to_dict(self.config))})
        self.write_weights(self.output / LATEST)

    def write_weights(self, path: Path, **facts) -> None:
        write_best(path, self.config, self.average, {"samples": self.samples, "step": self.step, **facts})

    # ---- one step

    def train_step(self, step: Step, batches: list[Batch]) -> tuple[float, float]:
        """One step of the optimiser: (loss, gradient norm), the loss averaged over all processes."""
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for index, batch in enumerate(batches):
            # Processes exchange gradients once a step, with the last group's.
            alone = self.world > 1 and index < len(batches) - 1
            with self.parallel.no_sync() if alone else nullcontext():
                loss = self.loss(batch.to(self.device))
                value = loss.item()
                if not math.isfinite(value):
                    self.not_finite("loss", value, batch.seeds)
                self.scaler.scale(loss / len(batches)).backward()
            total += value / len(batches)
        if self.world > 1:
            mean = torch.tensor(total, device=self.device)
            dist.all_reduce(mean)
            total = float(mean) / self.world
        for group in self.optimiser.param_groups:
            group["lr"] = step.learning_rate
        self.scaler.unscale_(self.optimiser)
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm))
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            self.not_finite("gradient", norm, step.seeds)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.step += 1
        seen = step.stage.queries * len(step.seeds) * self.world
        self.samples += seen
        decay = math.exp(-seen / step.stage.average_samples)
        if not self.begun_from_weights:  # at first the average would be the random weights; it forgets them faster
            decay = min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, value in self.model.state_dict().items():
                self.average[key].lerp_(value, 1.0 - decay)
        return total, norm

    def loss(self, batch: Batch) -> Tensor:
        dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.config.autocast)
        weight = self.config.static_weight
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            out = self.forward(batch.query, batch.support_images, batch.support_labels, static=weight > 0)
        if not weight:
            return segmentation_loss(out, batch.target, self.config.loss)
        exact, static = (segmentation_loss(logits, batch.target, self.config.loss) for logits in out)
        return (1.0 - weight) * exact + weight * static

    def watch_gradient(self, norm: float) -> None:
        """Count steps without a gradient; TrainingError where the network has collapsed."""
        self.dead_steps = self.dead_steps + 1 if norm < DEAD_NORM else 0
        if self.dead_steps == DEAD_STEPS:
            raise TrainingError(
                f"the gradient has been under {DEAD_NORM:g} for {DEAD_STEPS} steps up to step {self.step}: the "
                f"network has collapsed; {self.output / STATE} holds the last state before: lower the learning rate "
                "and run again")

    def not_finite(self, what: str, value: float, seeds: list[int]) -> None:
        raise TrainingError(
            f"the {what} is {value} at step {self.step}, episode seeds {seeds}; the last good state stays in "
            f"{self.output / STATE} ({self.samples} samples seen by now): lower the learning rate or look at that "
            "episode, then run again")

    # ---- the whole run

    def run(
        self, progress: bool | None = None, stop_after_samples: int | None = None, finish_samples: int | None = None
    ) -> None:
        """Train until the stages are done, or `stop_after_samples` more, or SIGTERM or SIGINT; each saves the state.

        finish_samples: bring the learning rate to zero over so many more samples and write the averaged weights to
        FINISHED. The state stays as it was, so the run can go on from there as if it had not been finished.
        """
        config, finish = self.config, None
        if finish_samples is not None:
            if finish_samples < 1:
                raise InputError(f"finish_samples is {finish_samples}; at least 1 is needed")
            finish = (self.samples, finish_samples)
        previous = {s: signal.signal(s, self._ask_to_stop) for s in (signal.SIGTERM, signal.SIGINT)}
        end = sum(stage.samples for stage in config.stages)
        last = min(end, self.samples + stop_after_samples) if stop_after_samples else end
        log = RunLog(self.output, self.step) if self.rank == 0 else None
        bar = tqdm(total=end, initial=self.samples, unit="sample", disable=True if self.rank else
                   (None if progress is None else not progress))
        plan = steps(config, self.step, self.samples, self.rank, self.world, self.device.type == "cuda", finish)
        plan = takewhile(lambda step: step.samples < last, plan)
        saved = validated = self.samples
        in_step = False
        try:
            for step, batches in feed(self.source, plan, config.workers, pinned=self.device.type == "cuda"):
                started, in_step = time.process_time(), True
                loss, norm = self.train_step(step, batches)
                in_step = False
                bar.update(self.samples - step.samples)
                if log:
                    log.row(step=self.step, samples=self.samples, stage=step.stage_index, loss=loss, gradient_norm=norm,
                            learning_rate=step.learning_rate, cpu_seconds=time.process_time() - started)
                self.watch_gradient(norm)
                if self.samples - saved >= config.checkpoint_samples and not finish:
                    self.save()
                    saved = self.samples
                if self.held_out and self.samples - validated >= config.validation.every_samples:
                    self.validate(step.stage_index, step.stage, log)
                    validated = self.samples
                if self.agreed_to_stop():
                    break
            if not finish:
                self.save()
            elif not self.stop_asked and self.rank == 0:
                self.write_weights(self.output / FINISHED)
            if self.held_out and self.samples >= end and validated != self.samples:
                self.validate(len(config.stages) - 1, config.stages[-1], log)
        except Exception:
            if not in_step and not finish:  # a worker that died, a full disk: what was learnt until then is whole
                self.save()
            raise
        finally:
            bar.close()
            if log:
                log.close()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def validate(self, index: int, stage: Stage, log: RunLog | None) -> None:
        """Dice of the averaged weights on the held-out tasks; the best of the present stage is kept."""
        if self.rank:
            return
        model = FoldedUniverSeg(self.config.network.spec()).to(self.device)
        model.load_state_dict(self.average)
        v = self.config.validation
        scores = {
            t.name: task_dice(model, t, stage.size, v.entries, v.queries, v.split, self.device)
            for t in self.held_out
        }
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
