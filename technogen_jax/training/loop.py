"""The training loop: `train` takes a config and a workdir, and returns the last state of the run.

It has four parts, in this order: `prepare_run` checks everything that can fail early and writes
nothing; `restore` and `prepare_programs_and_dataset` return what the first step needs; `inputs`
yields the batches on the devices; `run_loop` runs the steps, and logs, evaluates, previews and saves
between them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.common import config_fields, distributed, run_config
from technogen_jax.data import batching, dataset_config
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.data.manifest import read_manifest
from technogen_jax.runs.checkpoints import Checkpoints
from technogen_jax.runs.metrics_log import MetricsLog
from technogen_jax.runs.workdir import (
    CONFIG_FILE,
    claim_workdir,
    keep_older_behaviour,
    write_statistics,
)
from technogen_jax.sampling import generator
from technogen_jax.training import (
    dataset_stages,
    initial_model,
    inputs,
    memory,
    previews,
    progress_evaluation,
    signals,
)
from technogen_jax.training.errors import StoppedError, TrainError
from technogen_jax.training.monitoring import DueActions, MetricsWindow, NonFiniteGuard, TimeLimit, TrainingBar
from technogen_jax.training.optimizers import make_optimizers
from technogen_jax.training.state import TrainState, init_state
from technogen_jax.training.step import StepOptions, TrainStep, make_train_step, run_several, skip_not_finite

_AHEAD = 2  # dispatches before the oldest must be done: the devices always have work, and a signal is answered soon
_BACKGROUND_THREADS = 2  # compile and evaluate real clips, while the dataset is encoded


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

        # ---- The state, if it was saved.
        config = run.config.train
        checkpoints = stack.enter_context(
            Checkpoints(run.workdir, keep_last=config.keep_last, keep_every=config.keep_every)
        )
        state = restore(run, checkpoints)
        start = 0 if state is None else int(state.step)
        if start >= config.steps:
            run.say(f"{run.workdir}: already at step {start} of {config.steps}; for more, --config.train.steps=N")
            return state
        background = futures.ThreadPoolExecutor(_BACKGROUND_THREADS)
        stack.callback(background.shutdown, cancel_futures=True)

        # ---- The dataset and the programs: the model's stages, the encoded clips, the compiled step.
        try:
            prepared = prepare_programs_and_dataset(run, state, background, stop)
        except StoppedError:
            where = f"at step {start}" if start else "before the first step"
            run.say(f"stopped {where}; the same command resumes the run in {run.workdir}")
            return _initialize(run) if state is None else state

        # ---- The outputs, the input, the loop.
        log = stack.enter_context(contextlib.closing(MetricsLog(run.workdir, start)))
        data = stack.enter_context(inputs.make(run.config, run.mesh, run.source, prepared.gan, prepared.clips, start))
        bar = stack.enter_context(TrainingBar(run.config, start, distributed.is_first_process()))
        outputs = Outputs(prepared.gan, checkpoints, log, prepared.metric, bar)
        state = prepared.state
        if not distributed.call_in_first_process(stop.is_set):
            state = run_loop(run, state, prepared.dispatch, data, outputs, stop)
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
        encode_once: whether the model trains on encoded clips.
        init: key -> the first state.
        shardings: the shardings of each array of the state.
    """

    config: ConfigDict
    workdir: pathlib.Path
    say: Callable[[str], None]
    mesh: Mesh
    source: ClipSource
    encode_once: bool
    init: Callable[[jax.Array], TrainState]
    shardings: TrainState

    def state_shapes(self) -> TrainState:
        """Returns shapes, types and shardings of the state's arrays."""
        shapes = jax.eval_shape(self.init, jax.random.key(0))

        def place(leaf, sharding):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        return jax.tree.map(place, shapes, self.shardings)


def prepare_run(config: ConfigDict, workdir: pathlib.Path, say: Callable[[str], None]) -> Run:
    """Checks the config, the memory and the dataset; nothing is compiled, and nothing written."""
    mesh = distributed.make_mesh()
    models.check_values(config)
    _check_name(workdir)
    say = say if distributed.is_first_process() else lambda line: None
    if config.train.init_from:
        config, note = initial_model.take_model_fields(config, workdir)
        if note:
            say(note)
    if config_fields.value(config, "data.dir"):
        config = dataset_config.complete_config(config, read_manifest(config.data.dir))
    config, older = keep_older_behaviour(workdir, config)
    gan, _, init = build_training(config)
    batching.assign_rows(config.train.batch_size)
    shapes = jax.eval_shape(init, jax.random.key(0))
    shardings = distributed.choose_shardings(shapes, mesh, config.train.shard_parameters)
    memory.check_state_fits(config, shapes, shardings)
    source = _open_dataset(config, gan)
    for name in older:
        say(f"config.{name} is newer than this run, which goes on with {config_fields.value(config, name)!r}")
    return Run(
        config=config,
        workdir=workdir,
        say=say,
        mesh=mesh,
        source=source,
        encode_once=gan.encode_once,
        init=init,
        shardings=shardings,
    )


def _check_name(workdir: pathlib.Path) -> None:
    """Raises a TrainError if checkpoints can't be written because of the name of a folder."""
    try:
        os.path.abspath(workdir).encode("utf-8")
    except UnicodeEncodeError as error:
        raise TrainError(
            f"--workdir {workdir}: checkpoints can't be written under a name that is not UTF-8; name another folder"
        ) from error


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
    """Makes the workdir this run's until the stack ends, and deletes what a killed run left there."""
    stack.enter_context(claim_workdir(run.workdir, run.config, run.source.manifest))
    previews.delete_unfinished(run.workdir)


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
# 2. restore, and prepare_programs_and_dataset: all that the first step needs.
# --------------------------------------------------------------------------------------------------


def restore(run: Run, checkpoints: Checkpoints) -> TrainState | None:
    """Returns the state of the newest checkpoint; None if there is none."""
    state = checkpoints.newest(run.state_shapes(), run.say)
    if state is not None:
        run.say(f"resumed from step {int(state.step)} in {run.workdir}")
    return state


class Prepared(NamedTuple):
    """What the first step needs.

    Attributes:
        gan: the model, with its statistics.
        clips: the clips to train on, or the encoded clips.
        state: the state to start from.
        dispatch: the compiled (state, item of the input, key) -> (state, metrics).
        metric: evaluates generated clips; None for no evaluation.
    """

    gan: models.GAN
    clips: Sequence[np.ndarray]
    state: TrainState
    dispatch: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    metric: progress_evaluation.ValidationMetric | None


def prepare_programs_and_dataset(
    run: Run, state: TrainState | None, background: futures.Executor, stop: threading.Event
) -> Prepared:
    """Runs the model's stages; encodes the dataset while other threads compile.

    Args:
        run: the run.
        state: of a checkpoint; None for a new run, which starts with the weights of
            `train.init_from` or with random weights.
        background: runs the other threads.
        stop: is set by a signal.

    Raises:
        StoppedError: a signal came.
    """
    config, first = run.config, distributed.is_first_process()
    if distributed.call_in_first_process(stop.is_set):  # else compiling would delay the answer to the signal
        raise StoppedError
    initial = _read_initial_model(run) if state is None and config.train.init_from else None
    numbering = dataset_stages.Numbering(
        1 + dataset_stages.count_stages(config, run.workdir, run.source, run.encode_once)
    )
    # Several processes run their programs in the same order, so only a single one may do it meanwhile.
    alone = jax.process_count() == 1
    random_state = background.submit(_initialize, run) if state is None and alone else None
    metric = background.submit(progress_evaluation.make_metric_of_run, config) if first else None

    statistics = dataset_stages.run_stages(config, run.workdir, run.source, stop, numbering)
    state_shardings = run.shardings if config.train.shard_parameters else None
    gan, train_step, _ = build_training(config, distributed.sharded(run.mesh), statistics, state_shardings)
    dispatch = background.submit(_compile, run, train_step, inputs.plan(config, run.mesh, gan, run.source))
    if gan.encode_once:
        clips = dataset_stages.encode_dataset(config, run.workdir, gan, run.source, statistics, stop, numbering)
    else:
        clips = batching.ClipAudio(run.source)

    signals.wait(dispatch, numbering.next("compiling the training step"), stop, shown=first)
    if state is None:
        state = random_state.result() if alone else _initialize(run)
    if initial is not None:
        state = initial_model.use_weights(state, initial, run.shardings)
        run.say(f"starting with the weights of {config.train.init_from}{initial.note}")
    run.say(_describe(run, gan))
    measured, note = metric.result() if first else (None, "")
    if note:
        run.say(note)
    return Prepared(gan, clips, state, dispatch.result(), measured)


def _compile(run: Run, train_step: TrainStep, plan: inputs.InputPlan) -> Callable:
    """Compiles the steps of one dispatch: (state, item of the input, key) -> (state, metrics)."""
    replicated = distributed.replicated(run.mesh)
    dispatch = jax.jit(
        run_several(train_step, plan.pick_clips),
        in_shardings=(run.shardings, plan.sharding, replicated),
        out_shardings=(run.shardings, replicated),
        donate_argnums=0,
    )
    program = dispatch.lower(run.state_shapes(), plan.item, jax.eval_shape(lambda: jax.random.key(0))).compile()
    memory.check_step_fits(run.config, program)
    return program


def _initialize(run: Run) -> TrainState:
    """Returns the state before the first step, with random weights."""
    return jax.jit(run.init, out_shardings=run.shardings)(generator.run_key(run.config.seed, "init"))


def _read_initial_model(run: Run) -> initial_model.InitialModel:
    """Returns the model of `train.init_from`, fitted to the run; its statistics become the run's."""
    initial = initial_model.adapt(initial_model.read(run.config.train.init_from), run.config)
    if initial.statistics is not None:
        distributed.call_in_first_process(lambda: write_statistics(run.workdir, initial.statistics))
    return initial


# --------------------------------------------------------------------------------------------------
# 3. run_loop: the steps, and what happens between them.
# --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Where the loop's results go.

    Attributes:
        gan: renders the clips of previews and evaluations.
        checkpoints: the checkpoints of the run.
        log: the log of the metrics.
        metric: evaluates generated clips; None for no evaluation.
        bar: the progress bar of the steps.
    """

    gan: models.GAN
    checkpoints: Checkpoints
    log: MetricsLog
    metric: progress_evaluation.ValidationMetric | None
    bar: TrainingBar


def run_loop(
    run: Run, state: TrainState, dispatch: Callable, data: Iterator[Any], outputs: Outputs, stop: threading.Event
) -> TrainState:
    """Runs the steps up to `train.steps`, a signal, or the time limit; returns the last state.

    Args:
        run: the run.
        state: to start from.
        dispatch: the compiled steps of one dispatch.
        data: from `inputs.make`.
        outputs: where results go.
        stop: is set by a signal.

    Raises:
        TrainError: NaN or Inf.
    """
    config, mesh = run.config, run.mesh
    start, steps, count = int(state.step), config.train.steps, config.train.steps_per_dispatch
    key = jax.device_put(generator.run_key(config.seed, "train"), distributed.replicated(mesh))
    agree = distributed.make_agreement(mesh, _AHEAD)
    window, limit = MetricsWindow(_AHEAD), TimeLimit(config.train.minutes)
    guard = NonFiniteGuard(config.train.skip_not_finite, outputs.checkpoints)

    for step in range(start + count, steps + 1, count):
        state, metrics = dispatch(state, next(data), key)
        window.add(metrics)
        outputs.bar.show(step, limit.elapsed_s())
        last = agree(stop.is_set() or limit.is_over()) or step == steps
        due = DueActions.after(step, config, last)
        if due.log:
            _log_metrics(config, step, window, guard, outputs)
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
    outputs.bar.show_metrics(means)


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
