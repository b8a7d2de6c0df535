"""The training loop: `train` takes a config and a workdir, and returns the last state of the run.

It has four parts, in this order: `prepare_run` checks everything that can fail early and writes
nothing; `restore_or_initialize` returns the state to start from; `make_input` yields the batches on
the devices; `run_loop` runs the steps, and logs, evaluates, previews and saves between them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import pathlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.common import config_fields, distributed, progress, run_config
from technogen_jax.data import batching, dataset_config
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.data.manifest import read_manifest
from technogen_jax.evaluation import clip_sets
from technogen_jax.runs.checkpoints import Checkpoints
from technogen_jax.runs.metrics_log import MetricsLog
from technogen_jax.runs.workdir import CONFIG_FILE, claim_workdir, has_checkpoint, keep_older_behaviour
from technogen_jax.sampling import generator
from technogen_jax.training import dataset_stages, memory, previews, progress_evaluation, signals
from technogen_jax.training.errors import StoppedError, TrainError
from technogen_jax.training.monitoring import DueActions, MetricsWindow, NonFiniteGuard, TimeLimit
from technogen_jax.training.optimizers import make_optimizers
from technogen_jax.training.state import TrainState, init_state
from technogen_jax.training.step import StepOptions, TrainStep, make_train_step, run_several, skip_not_finite

_AHEAD = 2  # dispatches before the oldest must be done: the devices always have work, and a signal is answered soon


def train(
    config: ConfigDict,
    workdir: str | os.PathLike,
    say: Callable[[str], None] = print,
    stop: signals.StopEvent | None = None,
) -> TrainState:
    """Trains up to `config.train.steps`, from the newest checkpoint of the workdir if there is one.

    Args:
        config: every field of docs/configuration.md; fields that are None are taken from the
            dataset.
        workdir: the run's folder; created if it is missing.
        say: prints a line for the user.
        stop: ends the training, after a checkpoint is saved, when it is set; None: signals set it.

    Returns:
        The last state. Its step is below `config.train.steps` after a signal, or when
        `config.train.minutes` were over.

    Raises:
        ValueError: FieldError for the config, RecordError for the dataset, WorkdirError for the
            workdir, TrainError for NaN or Inf in training.
    """
    run = prepare_run(config, pathlib.Path(workdir), say)
    with contextlib.ExitStack() as stack, distributed.end_together():
        stop = stop or stack.enter_context(signals.catch_stop_signals())
        distributed.call_in_first_process(lambda: _claim(run, stack))
        distributed.check_shared(run.workdir / CONFIG_FILE)

        # ---- The dataset: the model's stages, the model with their results, the encoded clips.
        try:
            gan, train_step, clips = _prepare_dataset(run, stop)
        except StoppedError:
            run.say(f"stopped before the first step; the same command resumes the run in {run.workdir}")
            return _initialize(run)

        # ---- The state.
        config = run.config.train
        checkpoints = stack.enter_context(
            Checkpoints(run.workdir, keep_last=config.keep_last, keep_every=config.keep_every)
        )
        state = restore_or_initialize(run, checkpoints)
        start = int(state.step)
        if start >= config.steps:
            run.say(f"{run.workdir}: already at step {start} of {config.steps}; for more, --config.train.steps=N")
            return state

        # ---- The outputs, the input, the loop.
        log = stack.enter_context(contextlib.closing(MetricsLog(run.workdir, start)))
        metric = _validation_metric(run) if distributed.is_first_process() else None
        data = stack.enter_context(make_input(run, gan, clips, start))
        shown = distributed.is_first_process()
        bar = stack.enter_context(progress.bar("training", config.steps, " steps", start, shown=shown))
        bar.set_postfix_str("compiling")
        outputs = Outputs(gan, checkpoints, log, metric, bar)
        if not distributed.call_in_first_process(stop.is_set):  # else compiling would delay the answer to the signal
            state = run_loop(run, state, train_step, data, outputs, stop)
    done = int(state.step)
    again = "" if done == config.steps else "; the same command resumes it"
    run.say(f"step {done} of {config.steps}: checkpoints, previews and metrics are in {run.workdir}{again}")
    return state


# --------------------------------------------------------------------------------------------------
# 1. prepare_run: everything that can be wrong is found before anything is written.
# --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Run:
    """What stays the same from the start of a run to its end.

    Attributes:
        config: with every field.
        workdir: the run's folder.
        say: prints a line for the user, in the first process only.
        mesh: the mesh of all devices.
        source: the records of the training split.
        init: key -> the first state.
        shardings: the shardings of each array of the state.
    """

    config: ConfigDict
    workdir: pathlib.Path
    say: Callable[[str], None]
    mesh: Mesh
    source: ClipSource
    init: Callable[[jax.Array], TrainState]
    shardings: TrainState


def prepare_run(config: ConfigDict, workdir: pathlib.Path, say: Callable[[str], None]) -> Run:
    """Checks the config, the memory and the dataset; nothing is compiled, and nothing written."""
    mesh = distributed.make_mesh()
    if config_fields.value(config, "data.dir"):
        config = dataset_config.complete_config(config, read_manifest(config.data.dir))
    config, older = keep_older_behaviour(workdir, config)
    gan, _, init = build_training(config)
    batching.assign_rows(config.train.batch_size)
    shapes = jax.eval_shape(init, jax.random.key(0))
    shardings = distributed.choose_shardings(shapes, mesh, config.train.shard_parameters)
    memory.check_state_fits(config, shapes, shardings)
    if (other := config.train.init_from) and not has_checkpoint(workdir) and not has_checkpoint(other):
        raise TrainError(f"config.train.init_from: {other} has no checkpoint")
    source = _open_dataset(config, gan)
    say = say if distributed.is_first_process() else lambda line: None
    for name in older:
        say(f"config.{name} is newer than this run, which goes on with {config_fields.value(config, name)!r}")
    return Run(
        config=config,
        workdir=workdir,
        say=say,
        mesh=mesh,
        source=source,
        init=init,
        shardings=shardings,
    )


class Training(NamedTuple):
    """What a config describes.

    Attributes:
        gan: the model.
        train_step: (state, clips, key) -> (state, metrics).
        init: key -> the first state.
    """

    gan: models.GAN
    train_step: TrainStep
    init: Callable[[jax.Array], TrainState]


def build_training(
    config: ConfigDict,
    batch_sharding: NamedSharding | None = None,
    statistics: models.Statistics | None = None,
    state_shardings: TrainState | None = None,
) -> Training:
    """Builds the model and the training step of a config; nothing is compiled.

    Args:
        config: with every field.
        batch_sharding: the sharding of the rows of a batch; None for one device.
        statistics: from the model's stages; None before they have run.
        state_shardings: the shardings of each array of the state; None: every device has all of it.

    Raises:
        FieldError: a field that can't work.
    """
    run_config.check(config)
    _check_dispatch(config)
    gan = models.build(config, statistics)
    optimizers = make_optimizers(config)
    step = make_train_step(gan, optimizers, StepOptions.from_config(config), batch_sharding, state_shardings)
    if config.train.skip_not_finite:
        step = skip_not_finite(step)
    return Training(gan, step, lambda key: init_state(gan, optimizers, key))


def _check_dispatch(config: ConfigDict) -> None:
    """Raises a FieldError if something between steps is due within a dispatch."""
    count = config.train.steps_per_dispatch
    for field in ("train.steps", "train.log_every", "train.sample_every", "train.save_every", "eval.every"):
        if (value := config_fields.value(config, field)) % count:
            raise config_fields.FieldError(
                f"config.{field} is {value} and config.train.steps_per_dispatch {count}: make it a multiple"
            )


def _open_dataset(config: ConfigDict, gan: models.GAN) -> ClipSource:
    """Opens the training split, after a check that the dataset fits the config."""
    dataset_config.check_config(
        read_manifest(config.data.dir),
        config.data.split,
        config.data.crop,
        sample_rate_hz=config.audio.sample_rate_hz,
        channels=config.audio.channels,
        clip_samples=config.audio.clip_samples,
        classes=gan.classes,
        encode_once=gan.encode_once,
    )
    return ClipSource(config.data.dir, config.data.split)


def _claim(run: Run, stack: contextlib.ExitStack) -> None:
    """Makes the workdir this run's until the stack is closed, and deletes what a killed run left there."""
    stack.enter_context(claim_workdir(run.workdir, run.config, run.source.manifest))
    previews.delete_unfinished(run.workdir)


def _prepare_dataset(run: Run, stop: threading.Event) -> tuple[models.GAN, TrainStep, Sequence[np.ndarray]]:
    """Runs the model's stages.

    Returns the model and the step that know their results, and the clips to train on.
    """
    config = run.config
    statistics = dataset_stages.run_stages(config, run.workdir, run.source, stop)
    state_shardings = run.shardings if config.train.shard_parameters else None
    gan, train_step, _ = build_training(config, distributed.sharded(run.mesh), statistics, state_shardings)
    if gan.encode_once:
        clips = dataset_stages.encode_dataset(config, run.workdir, gan, run.source, statistics, stop)
    else:
        clips = batching.ClipAudio(run.source)
    run.say(_describe(run, gan))
    return gan, train_step, clips


def _describe(run: Run, gan: models.GAN) -> str:
    """Returns lines on the model, on the dataset, and on its labels."""
    config, source = run.config, run.source
    shapes = jax.eval_shape(run.init, jax.random.key(0))
    generator_m, discriminator_m = (models.count_parameters(params) / 1e6 for params in shapes.params)
    tracks = source.manifest.splits[config.data.split]["tracks"]
    labels = (
        dataset_config.describe_labels(source.manifest, config.data.split, gan.classes)
        if "classes" in config.model
        else ""
    )
    return (
        f"{config.model.name}: generator {generator_m:.2f} M parameters, discriminator {discriminator_m:.2f} M; "
        f"{config.audio.clip_samples / config.audio.sample_rate_hz:.3g} s at {config.audio.sample_rate_hz} Hz; "
        f"{run.mesh.size} {jax.devices()[0].device_kind} device(s)\n"
        f"{config.data.dir}: {len(source)} clips of {tracks} tracks" + f"\n{labels}" * bool(labels)
    )


# --------------------------------------------------------------------------------------------------
# 2. restore_or_initialize: the state to start from.
# --------------------------------------------------------------------------------------------------


def restore_or_initialize(run: Run, checkpoints: Checkpoints) -> TrainState:
    """Returns the newest checkpoint.

    If there is none, the weights of `train.init_from`, or random weights.
    """
    state = _initialize(run)
    if (restored := checkpoints.newest(state, run.say)) is not None:
        run.say(f"resumed from step {int(restored.step)} in {run.workdir}")
        return restored
    if other := run.config.train.init_from:
        state = _restore_weights(other, state)
        run.say(f"starting with the weights of {other}")
    return state


def _initialize(run: Run) -> TrainState:
    """Returns the state before the first step, with random weights."""
    return jax.jit(run.init, out_shardings=run.shardings)(generator.run_key(run.config.seed, "init"))


def _restore_weights(workdir: str, state: TrainState) -> TrainState:
    """Returns the state with the weights of another run's newest checkpoint.

    Step and optimizers stay.
    """
    with Checkpoints(workdir, read_only=True) as other:
        return other.restore_weights(other.steps()[-1], state)


# --------------------------------------------------------------------------------------------------
# 3. make_input: batches on the devices.
# --------------------------------------------------------------------------------------------------


class Input(NamedTuple):
    """The input of the loop.

    Attributes:
        batches: endless; the clips `[steps, n_critic, B, ...]` of one dispatch, or (all clips,
            picks) where all clips are in the devices' memory.
        sharding: the sharding of one such item.
        pick_clips: (all clips, picks) -> clips; None where the items are the clips.
    """

    batches: Iterator[Any]
    sharding: Any
    pick_clips: Callable[[jax.Array, jax.Array], jax.Array] | None


@contextlib.contextmanager
def make_input(run: Run, gan: models.GAN, clips: Sequence[np.ndarray], start: int) -> Iterator[Input]:
    """Yields the input from a step on; it depends on the seed and the step alone.

    Args:
        run: the run.
        gan: its model.
        clips: the clips to train on, or the encoded clips.
        start: the step.
    """
    config = run.config
    rows = batching.assign_rows(config.train.batch_size)
    by_row = distributed.sharded(run.mesh, 2)  # [steps, n_critic, B, ...]: the devices share the rows B
    on_device = memory.dataset_stays_on_device(config, clips)
    local = batching.iterate_batches(
        clips,
        rows=rows,
        n_critic=config.train.n_critic,
        steps=config.train.steps_per_dispatch,
        window=batching.Window(
            length=None if gan.encode_once else config.audio.clip_samples,
            crop=config.data.crop,
            rotate=config.data.rotate,
        ),
        seed=config.seed,
        first_step=start,
        read_threads=config.data.read_threads,
        read=not on_device,
    )
    with contextlib.closing(local):
        batches = batching.to_device(local, by_row, rows)
        if not on_device:
            yield Input(batches, by_row, None)
            return
        replicated = distributed.replicated(run.mesh)
        stacked = batching.stack_clips(clips)
        length = stacked.shape[1] if gan.encode_once else config.audio.clip_samples
        dataset = jax.make_array_from_callback(stacked.shape, replicated, stacked.__getitem__)
        pick_clips = functools.partial(batching.gather, length=length)
        yield Input(zip(itertools.repeat(dataset), batches), (replicated, by_row), pick_clips)


# --------------------------------------------------------------------------------------------------
# 4. run_loop: the steps, and what happens between them.
# --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Where the loop's results go.

    Attributes:
        gan: renders the clips of previews and evaluations.
        checkpoints: the checkpoints of the run.
        log: the log of the metrics.
        metric: evaluates generated clips; None for no evaluation.
        bar: the progress bar.
    """

    gan: models.GAN
    checkpoints: Checkpoints
    log: MetricsLog
    metric: progress_evaluation.ValidationMetric | None
    bar: Any


def run_loop(
    run: Run, state: TrainState, train_step: TrainStep, data: Input, outputs: Outputs, stop: threading.Event
) -> TrainState:
    """Runs the steps up to `train.steps`, a signal, or the time limit; returns the last state.

    Args:
        run: the run.
        state: to start from.
        train_step: the training step of the model.
        data: from `make_input`.
        outputs: where results go.
        stop: is set by a signal.

    Raises:
        TrainError: NaN or Inf.
    """
    config, mesh = run.config, run.mesh
    start, steps, count = int(state.step), config.train.steps, config.train.steps_per_dispatch
    replicated = distributed.replicated(mesh)
    dispatch = jax.jit(
        run_several(train_step, data.pick_clips),
        in_shardings=(run.shardings, data.sharding, replicated),
        out_shardings=(run.shardings, replicated),
        donate_argnums=0,
    )
    key = generator.run_key(config.seed, "train")
    agree = distributed.make_agreement(mesh, _AHEAD)
    window, limit = MetricsWindow(_AHEAD), TimeLimit(config.train.minutes, start)
    guard = NonFiniteGuard(config.train.skip_not_finite, outputs.checkpoints)

    for step in range(start + count, steps + 1, count):
        state, metrics = dispatch(state, next(data.batches), key)
        window.add(metrics)
        outputs.bar.update(count)
        last = agree(stop.is_set() or limit.is_over()) or step == steps
        due = DueActions.after(step, config, last)
        if due.log:
            _log_metrics(config, step, window, guard, outputs)
            outputs.bar.total = limit.estimate_last_step(step, steps)
        if due.needs_state:
            guard.check_state(step, state)
            _write_state(run, step, state, due, outputs)
            window.restart_clock()
        if last:
            break
    return state


def _log_metrics(config: ConfigDict, step: int, window: MetricsWindow, guard: NonFiniteGuard, outputs: Outputs) -> None:
    """Logs the means of the metrics since the last line, over the steps that were not skipped."""
    rows, steps_per_s = window.read()
    kept = guard.select_finite(step, rows)
    means = {name: sum(row[name] for row in kept) / len(kept) for name in rows[0] if kept}
    if config.train.skip_not_finite:
        means["skipped"] = len(rows) - len(kept)
    if steps_per_s is not None:
        means["time/steps_per_s"] = steps_per_s
    outputs.log.write(step, means)
    shown = [name for name in means if name.endswith("adversarial")]
    outputs.bar.set_postfix_str(" ".join(f"{name} {means[name]:.3g}" for name in shown), refresh=False)


def _write_state(run: Run, step: int, state: TrainState, due: DueActions, outputs: Outputs) -> None:
    """Evaluates, saves and previews a state, as far as each is due."""
    config, ema, score = run.config, None, None
    if due.evaluate or due.preview:
        ema = distributed.gather_on_one_device(state.ema, run.mesh)
    if due.evaluate:
        evaluate = functools.partial(
            progress_evaluation.evaluate, outputs.metric, config, outputs.gan, ema, step, outputs.log
        )
        score = distributed.call_in_first_process(evaluate)
    if due.save:
        outputs.checkpoints.save(state, score)
    if due.preview and distributed.is_first_process():
        previews.write_preview(config, outputs.gan, ema, step, run.workdir, outputs.log)


def _validation_metric(run: Run) -> progress_evaluation.ValidationMetric | None:
    """Makes the metric of the evaluations; None if the config or the dataset allows none."""
    config = run.config
    if not config.eval.every:
        return None
    try:
        valid, train_clips = (
            clip_sets.from_records(config.data.dir, [split], config.audio.clip_samples)
            for split in ("valid", config.data.split)
        )
        metric = progress_evaluation.make_validation_metric(valid, train_clips, config.eval.clips)
    except ValueError as error:
        run.say(f"no evaluation, and no best checkpoint: {error}")
        return None
    name = progress_evaluation.BEST_METRIC
    run.say(f"evaluation against {valid.name}: real clips have {name} {metric.floor:.3f}")
    return metric
