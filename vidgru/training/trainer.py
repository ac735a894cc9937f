"""Training: weights out, then models with fitted thresholds.

The loop over epochs is in `fit`, an epoch in `Learner.run_epoch` and a step in `Learner.step`. `train_model` prepares
the examples, builds an untrained model, trains it with `fit` and fits its thresholds. Equal inputs and seeds give equal
weights on one machine's CPU with one number of threads, resumed or not.
"""

from __future__ import annotations

import copy
import hashlib
import math
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from vidgru.config import TrainConfig
from vidgru.datasets.dataset import Dataset
from vidgru.datasets.windows import Batch
from vidgru.errors import OutputError, SettingsError, VidgruError
from vidgru.flags import to_settings
from vidgru.model.checkpoint import EventModel, EventTask, load_model
from vidgru.model.event_gru import EventGRU, EventLogits
from vidgru.training.augment import why_not_mirrored
from vidgru.training.batches import EpochBatches, make_batches
from vidgru.training.calibrate import calibrate, sides_matter
from vidgru.training.data import LoadedFeatures
from vidgru.training.distributed import ProcessGroup
from vidgru.training.examples import Examples, frame_class_weights, split_examples
from vidgru.training.grounding_fit import ground_captions
from vidgru.training.initial_model import untrained_model, with_weights
from vidgru.training.losses import caption_losses, window_losses
from vidgru.training.members import member_count
from vidgru.training.optimizers import AdamW
from vidgru.training.run_state import DATA, UNCHECKED, RunProgress, read_state, write_state
from vidgru.training.state_file import STATE
from vidgru.training.validation import Validation, selection_metric

_WARMUP_STEPS = 20
_LR_DECAY = 200  # steps after which the learning rate has fallen to 0.7 of its peak
CLIP_NORM = 1.0
_MIN_FALL = 0.98  # ratio of losses: a smaller fall is noise
_AVERAGING = 8.0  # the averaged weights cover about the last ninth of all steps


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingResult:
    """Trained models, on the CPU.

    Attributes:
        best: Model of the best epoch.
        last: Model of the last epoch.
        best_epoch: Number of the best epoch, from 1.
        epochs: Metrics of each epoch.
        interrupted: Whether Ctrl-C ended training.
        members: A model for the held-out recordings of each fold: its member, which has not learnt from them.
        held_out: Held-out examples.
    """

    best: EventModel
    last: EventModel
    best_epoch: int
    epochs: list[dict[str, float]]
    interrupted: bool
    members: list[EventModel] = field(default_factory=list)
    held_out: Examples | None = None


def train_model(
    dataset: Dataset,
    loaded: LoadedFeatures,
    task: EventTask,
    feature_settings: dict[str, Any],
    config: TrainConfig,
    *,
    folder: Path | None = None,
    process_group: ProcessGroup | None = None,
) -> TrainingResult:
    """Train a model on splits `train` and `val`, and fit its thresholds on held-out recordings.

    With several members, each learns from all recordings but those of its own fold, and is measured on that; training
    ends when their loss there no longer falls. A single member learns from `train`; `val` selects the epoch and
    measures it.

    Args:
        dataset: Dataset with split `train`, for a single member also `val`.
        loaded: Features of the recordings of both.
        task: Heads and labels.
        feature_settings: Settings of the features.
        config: Training settings.
        folder: Folder of the run's state, to resume from, and of TensorBoard curves; None writes neither.
        process_group: Processes that train together.

    Raises:
        AnnotationError: A split is empty, or the training examples do not differ.
        SettingsError, ModelError: The run cannot be resumed, or cannot start from the model `config.init`.
        VidgruError: The loss is not finite; names the window.
        KeyboardInterrupt: Before the end of the first epoch, or without a folder. Otherwise Ctrl-C ends training, and
            the result of the finished epochs is returned.
    """
    process_group = process_group or ProcessGroup()
    members = member_count(dataset, config, loaded.durations(config.detector.fps))
    train, val = split_examples(dataset, members, loaded.times, task, config)
    init = load_model(config.init, start=True) if config.init else None
    with reproducible(config.seed, config.runtime.threads or 1):
        # Slots are fitted across folds of their own, so validation clips teach them too.
        described = train.captions if members > 1 else train.captions + val.captions
        grounding, described = ground_captions(described, loaded, seed=config.seed)
        count = len(train.captions)
        train = replace(train, captions=described[:count])
        val = train if members > 1 else replace(val, captions=described[count:])
        model = untrained_model(
            train, val, loaded, task, feature_settings, config, init, members=members, grounding=grounding
        )
        if model.caption:
            model = replace(model, caption=replace(model.caption, templates=dict(dataset.templates)))
        validation = Validation(val, members, loaded, model.caption.tokenizer if model.caption else None)
        weights = frame_class_weights(train.recordings, task)
        mirrored = config.augment and not why_not_mirrored(loaded.feature_spec, task.labels, config.mirror)
        if mirrored and config.mirror is None and sides_matter(model, train, validation.examples, loaded, weights):
            print("training without mirroring: held-out recordings are predicted worse with it")
            config = replace(config, mirror=False)
        result = fit(model, train, validation, loaded, config, folder=folder, process_group=process_group)
        trained = [result.best] if result.best_epoch == len(result.epochs) else [result.best, result.last]
        calibrated = calibrate(trained, train, validation, loaded, linear=config.linear, class_weights=weights)
    best, last = calibrated[0], calibrated[-1]
    return replace(result, best=best.model, last=last.model, members=best.members, held_out=validation.examples)


def fit(
    model: EventModel,
    train: Examples,
    validation: Validation,
    loaded: LoadedFeatures,
    config: TrainConfig,
    *,
    folder: Path | None = None,
    process_group: ProcessGroup,
) -> TrainingResult:
    """Loop over epochs: train, validate, keep the best weights, stop early.

    Training starts from the weights of `model`, which is not changed. The thresholds of the returned models are not
    fitted. Arguments and errors are those of `train_model`.
    """
    device = choose_device(config.runtime.device)
    batches = make_batches(train, loaded, model, config, rank=process_group.rank, size=process_group.size)
    class_weights = torch.from_numpy(frame_class_weights(train.recordings, model.task))
    learner = Learner(model, config, device, class_weights=class_weights, process_group=process_group)
    identity = _identity(config, train, validation.examples, loaded)
    progress = RunProgress()
    if config.resume and folder:
        progress = read_state(folder / STATE, learner.network, learner.averaged, learner.optimizer, identity)

    first_epoch = len(progress.epochs) + 1
    is_main_process = process_group.rank == 0
    run_folder = folder if is_main_process else None  # other processes write nothing
    writer = tensorboard_writer(run_folder, first_epoch) if run_folder else None
    hide_bar = not (is_main_process and sys.stderr.isatty())
    bar = tqdm(total=config.epochs, initial=len(progress.epochs), unit="epoch", leave=False, disable=hide_bar)
    last = learner.snapshot()
    interrupted = False
    patience = config.patience if validation.examples.videos else 0  # with nothing held out, no loss can rise
    with bar, closing(writer) if writer else nullcontext():
        try:
            for epoch in range(first_epoch, config.epochs + 1):
                if patience and epochs_without_gain(model, progress) >= patience:
                    break
                started = time.monotonic()
                train_loss, step = learner.run_epoch(batches, epoch, progress.step)
                # The averaged weights are validated, in a copy that training does not change.
                snapshot = learner.snapshot()
                metrics = validation.metrics(snapshot, validation.predict(snapshot))
                row = {
                    "epoch": epoch,
                    "seconds": time.monotonic() - started,
                    "lr": config.lr * lr_scale(step),
                    "train_loss": train_loss,
                    **{f"val_{name}": value for name, value in metrics.items()},
                }
                # Scores of members on their own folds are to be an honest estimate: they end training, but select no
                # epoch. An average of networks is best later than each of them, when these have begun to overfit.
                selected = selection_metric(metrics) if model.network.members == 1 else float(epoch)
                main, val_loss = process_group.broadcast([selected, metrics["loss"]], device)
                # Ties go to the lower loss.
                progress = progress.after_epoch(row, (main, -val_loss), snapshot.network.state_dict(), step)
                last = snapshot
                if run_folder:
                    write_state(
                        run_folder / STATE, learner.network, learner.averaged, learner.optimizer, progress, identity
                    )
                if writer:
                    for name, value in row.items():
                        if name != "epoch":
                            writer.add_scalar(name.replace("_", "/", 1), value, epoch)
                bar.update()
        except KeyboardInterrupt:
            if folder is None or not progress.epochs:
                raise
            interrupted = True
    return TrainingResult(
        best=with_weights(model, progress.best_weights),
        last=with_weights(model, last.network.state_dict()),
        best_epoch=progress.best_epoch,
        epochs=progress.epochs,
        interrupted=interrupted,
    )


def epochs_without_gain(model: EventModel, progress: RunProgress) -> int:
    """Return the epochs since the best one, or for several members since their out-of-fold loss has fallen."""
    if model.network.members == 1:
        return len(progress.epochs) - progress.best_epoch
    lowest, since = math.inf, 0
    for row in progress.epochs:
        since += 1
        if row["val_loss"] < _MIN_FALL * lowest:
            lowest, since = row["val_loss"], 0
    return since


class Learner:
    """The network in training, the running average of its weights, and its optimizer.

    Args:
        model: The untrained model; its network is copied.
        config: Training settings.
        device: Device to train on.
        class_weights: float32 [K], weight of each class of frames; empty without a frame head.
        process_group: Processes that train together.

    Attributes:
        network: The weights in training.
        averaged: Their average, in eval mode, which is validated and kept.
        optimizer: AdamW.
    """

    def __init__(
        self,
        model: EventModel,
        config: TrainConfig,
        device: torch.device,
        *,
        class_weights: Tensor,
        process_group: ProcessGroup,
    ) -> None:
        # moved after copying, so that cuDNN finds the weights of the recurrent layer in one piece
        self.network = copy.deepcopy(model.network).to(device).train()
        self.averaged = copy.deepcopy(self.network).to(device).eval()
        stacked = self.network.stacked_parameters()
        single = [p for member in range(self.network.members) for p in self.network.member_parameters(member)]
        matrices = [p for p in stacked if p.ndim > 2] + [p for p in single if p.ndim > 1]
        vectors = [p for p in stacked if p.ndim <= 2] + [p for p in single if p.ndim <= 1]
        groups = [  # weight decay on matrices, none on biases and scales
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = AdamW(groups, lr=config.lr, fused=device.type != "mps")
        self._model, self._config, self._device, self._process_group = model, config, device, process_group
        self._class_weights = class_weights.to(device)
        # bfloat16 has the range of float32, so gradients need no scaling; where it is emulated it would be slower
        cuda = device.type == "cuda"
        self._mixed = config.amp and cuda and torch.cuda.is_bf16_supported(including_emulation=False)

    def run_epoch(self, batches: EpochBatches, epoch: int, step: int) -> tuple[float, int]:
        """Train for one epoch.

        Args:
            batches: Training batches.
            epoch: Number of the epoch, from 1.
            step: Number of steps taken before it.

        Returns:
            Mean loss of the windows of all processes and of all members, and the number of steps taken after the epoch.
        """
        # Every epoch seeds anew, so that a resumed run draws the same random numbers.
        seed = np.random.SeedSequence((self._config.seed, epoch, self._process_group.rank))
        torch.manual_seed(int(seed.generate_state(1)[0]))
        total, count = torch.zeros((), device=self._device), 0
        for batch, size in batches(epoch):
            step += 1
            total += self.step(batch, size, step)
            count += 0 if batch is None else len(batch)
        loss, windows = self._process_group.sum(torch.tensor([float(total), count], device=self._device))
        return float(loss / windows), step

    def step(self, batch: Batch | None, size: int, step: int) -> Tensor:
        """Take a training step.

        Args:
            batch: This process's share of a batch, on any device; None if it has none.
            size: Number of windows of the whole batch.
            step: Number of the step, from 1.

        Returns:
            Sum of the losses of this process's windows, averaged over members.

        Raises:
            VidgruError: A loss is not finite; names the window.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self._config.lr * lr_scale(step)
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self._device)
        if batch is not None:
            batch = batch.to(self._device)
            losses = self.losses(batch)
            members = len(losses)
            if members > 1 and batch.folds is not None:
                # A member does not learn from its own fold; the other members weigh those windows the more.
                learns = batch.folds != torch.arange(members, device=self._device)[:, None]
                losses = losses * learns * torch.where(batch.folds >= 0, members / (members - 1), 1.0)
            total = losses.detach().mean(dim=0).sum()
            (losses.sum() / size).backward()  # type: ignore[no-untyped-call]
        self._process_group.sum_gradients(self.network)
        clip_gradients(self.network, CLIP_NORM)
        self.optimizer.step()
        average_weights(self.averaged, self.network, step)
        return total

    def losses(self, batch: Batch) -> Tensor:
        """Loss of each window of a batch on the device for each member, [members,B]; of captions for the first only.

        Raises:
            VidgruError: A loss is not finite; names the window.
        """
        inputs = batch.objects, batch.counts, batch.frame, batch.mask
        smoothing = self._config.label_smoothing
        mixed_precision = torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._mixed)
        if batch.words is None:
            with mixed_precision:
                clips, frames = self.network(*inputs)
            logits = EventLogits(None if clips is None else clips.float(), None if frames is None else frames.float())
            losses = window_losses(
                logits,
                batch,
                self._model.task,
                lookahead=self._model.lookahead,
                class_weights=self._class_weights,
                smoothing=smoothing,
            )
        else:
            with mixed_precision:
                word_logits = self.network.caption_logits(*inputs, batch.words)
            losses = caption_losses(word_logits.float(), batch.words, smoothing)[None]
        bad = ~torch.isfinite(losses)
        if bad.any():
            member, window = bad.nonzero()[0].tolist()
            raise VidgruError(
                f"the loss of {batch.sources[window]} is {float(losses[member, window].detach())}",
                "vidgru info --verify FEATURES says whether the cache is corrupt; if it is not, lower --lr",
            )
        return losses

    def snapshot(self) -> EventModel:
        """Return the model with a copy of the averaged weights, on the device."""
        return replace(self._model, network=copy.deepcopy(self.averaged).to(self._device))


def clip_gradients(network: EventGRU, norm: float) -> None:
    """Scale the gradients of each member to a norm of at most `norm`, so that members train as they would alone."""
    stacked = [p.grad for p in network.stacked_parameters() if p.grad is not None]
    for member in range(network.members):
        own = [p.grad for p in network.member_parameters(member) if p.grad is not None]
        gradients = [gradient[member] for gradient in stacked] + own
        if gradients:
            total = nn.utils.get_total_norm(gradients)
            torch._foreach_mul_(gradients, (norm / (total + 1e-6)).clamp(max=1.0))


@torch.no_grad()
def average_weights(averaged: EventGRU, network: EventGRU, step: int) -> None:
    """Update the running average of the weights after a step, from 1.

    Polynomial decay averaging (Shamir and Zhang 2013, "Stochastic Gradient Descent for Non-smooth Optimization"): the
    average covers a share of all steps that grows with their number, so that it does not swing from epoch to epoch and
    is good whenever training stops.
    """
    share = min((_AVERAGING + 1) / (_AVERAGING + step), 1.0)
    torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), share)


def lr_scale(step: int) -> float:
    """Learning rate at a step, from 1, as a share of its peak.

    It warms up, then falls as one over a square root (Vaswani et al. 2017). It has no end to fall towards, so that a
    run that is resumed with more epochs equals one that had them from the start.
    """
    return min(step / _WARMUP_STEPS, math.sqrt(_LR_DECAY / (_LR_DECAY + step)))


# --- environment ------------------------------------------------------------------------------------------------------


def choose_device(name: str) -> torch.device:
    """Return the device with this name; for "auto" a CUDA device if there is one, else the CPU.

    Raises:
        SettingsError: The device cannot be used.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        problem = str(error).splitlines()[0]
        raise SettingsError(
            f"device is {name!r}, which cannot be used: {problem}", "choose auto, cpu, cuda, cuda:1 or mps"
        ) from None
    return device


@contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Seed PyTorch's random numbers and set its CPU threads, and restore both afterwards.

    The steps of such a small network do not scale: one thread is fastest, especially when other processes run.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


def tensorboard_writer(folder: Path, first_epoch: int) -> Any:
    """Return a writer of TensorBoard curves to `tensorboard` in a folder; None if TensorBoard is not installed.

    Args:
        folder: Folder of the run.
        first_epoch: The next epoch; curves of earlier runs are cut there.

    Raises:
        OutputError: The folder cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    try:
        return SummaryWriter(str(folder / "tensorboard"), purge_step=first_epoch)
    except OSError as error:
        raise OutputError(
            f"cannot write {folder / 'tensorboard'}: {error.strerror}",
            "free disk space or choose another folder with --out",
        ) from error


def _identity(config: TrainConfig, train: Examples, val: Examples, loaded: LoadedFeatures) -> dict[str, Any]:
    """The settings and examples that a resumed run must share with the run that it continues."""
    digest = hashlib.sha256()
    for examples in (train, val):
        for clip in examples.clips:
            digest.update(f"{loaded.keys[clip.video]} {clip.labels.tolist()}\n".encode())
        for recording in examples.recordings:
            digest.update(f"{loaded.keys[recording.video]}\n".encode())
            digest.update(recording.targets.tobytes() + recording.weights.tobytes() + recording.events.tobytes())
        for c in examples.captions:
            digest.update(f"{loaded.keys[c.video]} {c.first} {c.stop} {c.label} {c.sentences}\n".encode())
        digest.update(b"--\n")
    settings = {name: value for name, value in to_settings(config).items() if name not in UNCHECKED}
    return {**settings, DATA: digest.hexdigest()[:16]}
