"""Trains a model on a prepared dataset: the training run from its config and workdir to its last state."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence

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
from technogen_jax.models.technogan import shaper_training
from technogen_jax.runs import encoded_dataset
from technogen_jax.runs.checkpoints import Checkpoints
from technogen_jax.runs.metrics_log import MetricsLog
from technogen_jax.runs.workdir import CONFIG_FILE, STATISTICS_FILE, claim_workdir, read_statistics, write_statistics
from technogen_jax.sampling import generator as generate
from technogen_jax.training import previews, progress_evaluation
from technogen_jax.training.optimizers import make_optimizer, make_schedule
from technogen_jax.training.progress_evaluation import ValidationMetric, make_validation_metric
from technogen_jax.training.state import Pair, TrainState, init_state
from technogen_jax.training.step import StepOptions, all_finite, make_train_step, run_several, skip_not_finite

_RESIDENT_SHARE = 0.1  # of a device's memory, that "auto" lets a set take
_MOST_SKIPPED = 100  # steps in a row that are left out; more will not help
_CORRECTED_S = 240.0  # of the set, by which decoded sound is corrected: 136 bars at 136 BPM, see experiments/README.md
_SHAPING_FILE = "shaping.npz"  # state of a shaper in training; deleted when it is in the statistics
_AHEAD = 2  # dispatches before the oldest must be done: a signal is answered soon


class TrainError(ValueError):
    """Why training cannot start or go on, in one line."""


class _Stopped(Exception):
    """A signal, before the first step."""


def train(config: ConfigDict, workdir: str | os.PathLike, say: Callable[[str], None] = print) -> TrainState:
    """Trains up to `config.train.steps`, from the workdir's newest checkpoint if it has one.

    Args:
        config: every field (docs/configuration.md lists them); those that a config leaves to the set, with None, are what the set says.
        workdir: the run's folder, made if it is not there.
        say: takes lines for people.

    Returns:
        The last state; its step is below `config.train.steps` after a signal or when `config.train.minutes` were over.

    Raises:
        ValueError: FieldError for fields that cannot work, RecordError for the set, WorkdirError for the workdir, TrainError
            for NaN or Inf in training.
    """
    workdir = pathlib.Path(workdir)
    mesh = distributed.mesh()
    say = say if distributed.is_first() else lambda line: None
    if config_fields.value(config, "data.dir"):
        config = dataset_config.complete_config(config, read_manifest(config.data.dir))
    gan, _, new_state = build_training(config)  # so that a field that cannot work is named before anything is made
    rows = batching.assign_rows(config.train.batch_size)
    shapes = jax.eval_shape(new_state, jax.random.key(0))
    laid = distributed.shardings(shapes, mesh, config.train.shard_parameters)
    _check_memory(config, shapes, laid)
    source = _open_set(config, gan)
    everywhere, by_row = distributed.everywhere(mesh), distributed.by_row(mesh, 2)
    with contextlib.ExitStack() as stack, distributed.ended_together():
        stop = stack.enter_context(_stop_requests())
        distributed.from_first(lambda: _claim(workdir, config, source))
        distributed.check_shared(workdir / CONFIG_FILE)
        state = jax.jit(new_state, out_shardings=laid)(generate.run_key(config.seed, "init"))
        try:
            statistics = _statistics(config, workdir, source, stop)
            gan, train_step, _ = build_training(
                config, distributed.by_row(mesh), statistics, laid if config.train.shard_parameters else None
            )
            clips = (
                _codes(config, gan, workdir, source, statistics, stop)
                if gan.encode_once
                else batching.ClipAudio(source)
            )
        except _Stopped:
            say(f"stopped before the first step; the same command goes on in {workdir}")
            return state
        say(_greeting(config, gan, source, state, mesh))
        checkpoints = stack.enter_context(
            Checkpoints(workdir, keep_last=config.train.keep_last, keep_every=config.train.keep_every)
        )
        # 1. the workdir's newest checkpoint; 2. the weights of another run; 3. from scratch
        if (saved := checkpoints.newest(state, say)) is not None:
            state = saved
            say(f"going on from step {int(state.step)} in {workdir}")
        elif config.train.init_from:
            state = _weights_of(config.train.init_from, state)
            say(f"starting with the weights of {config.train.init_from}")
        start = int(state.step)
        if start >= config.train.steps:
            say(f"{workdir}: already at step {start} of {config.train.steps}; for more, --config.train.steps=N")
            return state

        logbook = stack.enter_context(contextlib.closing(MetricsLog(workdir, start)))
        metric = _validation_metric(config, say) if distributed.is_first() else None
        observer = _Observer(config, gan, metric, workdir, logbook)
        resident = _is_resident(config, clips)
        local = batching.iterate_batches(
            clips,
            rows=rows,
            n_critic=config.train.n_critic,
            steps=config.train.steps_per_dispatch,
            length=None if gan.encode_once else config.audio.clip_samples,
            crop=config.data.crop,
            rotate=config.data.rotate,
            seed=config.seed,
            first_step=start,
            read_threads=config.data.read_threads,
            read=not resident,
        )
        batches, gather = batching.to_device(stack.enter_context(contextlib.closing(local)), by_row, rows), None
        if resident:
            there = batching.stack_clips(clips)
            length = there.shape[1] if gan.encode_once else config.audio.clip_samples
            there = jax.make_array_from_callback(there.shape, everywhere, there.__getitem__)
            batches, gather = zip(itertools.repeat(there), batches), functools.partial(batching.gather, length=length)
        stepped = jax.jit(
            run_several(train_step, gather),
            in_shardings=(laid, (everywhere, by_row) if resident else by_row, everywhere),
            out_shardings=(laid, everywhere),
            donate_argnums=0,
        )
        bar = stack.enter_context(
            progress.bar("training", config.train.steps, " steps", start, shown=distributed.is_first())
        )
        bar.set_postfix_str("compiling")
        if not distributed.from_first(stop.is_set):  # compiling takes longer than some give a process to end
            state = _loop(config, state, stepped, batches, checkpoints, observer, stop, bar, mesh)
    done = int(state.step)
    say(
        f"step {done} of {config.train.steps}: checkpoints, previews and metrics are in {workdir}"
        + ("" if done == config.train.steps else "; the same command goes on")
    )
    return state


def _claim(workdir: pathlib.Path, config: ConfigDict, source: ClipSource) -> None:
    """Makes the workdir this run's, and clears what a killed one left in it."""
    claim_workdir(workdir, config, source.manifest)
    previews.delete_unfinished(workdir)


class _Observer:
    """Previews and evaluations of the averaged generator."""

    def __init__(self, config: ConfigDict, gan: models.GAN, metric: ValidationMetric | None, workdir, logbook):
        self._config, self._gan, self._metric, self._workdir, self.logbook = config, gan, metric, workdir, logbook

    def preview(self, step, ema) -> None:
        previews.write_preview(self._config, self._gan, ema, step, self._workdir, self.logbook)

    def evaluate(self, step, ema) -> float | None:
        return progress_evaluation.evaluate(self._metric, self._config, self._gan, ema, step, self.logbook)


def _loop(
    config: ConfigDict,
    state: TrainState,
    train_steps: Callable,
    batches: Iterator[jax.Array],
    checkpoints: Checkpoints,
    observer: _Observer,
    stop: threading.Event,
    bar,
    mesh: Mesh,
) -> TrainState:
    every = config.train
    agree = distributed.agreement(mesh, _AHEAD)
    key = generate.run_key(config.seed, "train")
    finite = jax.jit(all_finite)
    begun, window_begun, pending = time.monotonic(), None, []
    first, in_a_row = int(state.step), 0

    def flush(step: int) -> None:
        """Looks at what the steps since the last time gave; the devices have then done all of them."""
        nonlocal window_begun, in_a_row
        if not pending:
            return
        rows = [
            dict(zip(row, map(float, values), strict=True))
            for row in jax.device_get(pending)
            for values in zip(*row.values(), strict=True)
        ]
        kept = []
        for number, row in enumerate(rows, step - len(rows) + 1):
            bad = next((name for name, value in row.items() if not math.isfinite(value)), None)
            in_a_row = in_a_row + 1 if bad else 0
            if bad and (not every.skip_not_finite or in_a_row == _MOST_SKIPPED):
                raise TrainError(_not_finite(number, bad, row[bad], checkpoints))
            if not bad:
                kept.append(row)
        means = {name: sum(row[name] for row in kept) / len(kept) for name in rows[0] if kept}
        if every.skip_not_finite:
            means["skipped"] = len(rows) - len(kept)
        if window_begun is not None:  # the first window holds the compilation
            means["time/steps_per_s"] = len(rows) / (time.monotonic() - window_begun)
        observer.logbook.write(step, means)
        shown = [name for name in means if name.endswith("adversarial")]
        bar.set_postfix_str(" ".join(f"{name} {means[name]:.3g}" for name in shown), refresh=False)
        if every.minutes is not None:  # the bar's end is then where the time will be over
            elapsed = time.monotonic() - begun
            steps_left = max(0, 60 * every.minutes - elapsed) * (step - first) / elapsed
            bar.total = min(every.steps, step + round(steps_left))
        pending.clear()
        window_begun = time.monotonic()

    count = every.steps_per_dispatch
    for step in range(first + count, every.steps + 1, count):
        state, row = train_steps(state, next(batches), key)
        pending.append(row)
        if len(pending) > _AHEAD:
            jax.block_until_ready(pending[-1 - _AHEAD])
        bar.update(count)
        over = every.minutes is not None and time.monotonic() - begun > 60 * every.minutes
        last = agree(stop.is_set() or over) or step == every.steps
        if step % every.log_every == 0 or step == count or last:
            flush(step)
        sampling, evaluating = _due(step, every.sample_every), _due(step, config.eval.every)
        if _due(step, every.save_every) or sampling or evaluating or last:
            flush(step)
            if not finite(state):  # an update can overflow after a loss that was finite
                raise TrainError(_not_finite(step, "a parameter or a moment of the optimiser", math.nan, checkpoints))
            ema = distributed.on_one(state.ema, mesh) if evaluating or sampling or last else None
            score = distributed.from_first(functools.partial(observer.evaluate, step, ema)) if evaluating else None
            if _due(step, every.save_every) or last:
                checkpoints.save(state, score)
            if distributed.is_first() and (sampling or last):
                observer.preview(step, ema)
            window_begun = time.monotonic()
        if last:
            break
    return state


def build_training(
    config: ConfigDict,
    batch_sharding: NamedSharding | None = None,
    statistics: models.Statistics | None = None,
    state_shardings: TrainState | None = None,
) -> tuple[models.GAN, Callable, Callable]:
    """(the model, the train step, key -> the first state), all fields checked; nothing compiles."""
    run_config.check(config)
    _check_dispatch(config)
    gan = models.build(config, statistics)
    options, optimizer = StepOptions.from_config(config), config.optimizer
    optimizers = Pair(
        *(
            make_optimizer(
                optimizer.name,
                make_schedule(rate, updates, optimizer.tail),
                optimizer.b1,
                optimizer.b2,
                optimizer.largest_update,
            )
            for rate, updates in (
                (optimizer.learning_rate_g, config.train.steps),
                (optimizer.learning_rate_d, config.train.steps * config.train.n_critic),
            )
        )
    )
    train_step = make_train_step(gan, optimizers, options, batch_sharding, state_shardings)
    if config.train.skip_not_finite:
        train_step = skip_not_finite(train_step)
    return gan, train_step, lambda key: init_state(gan, optimizers, key)


def _check_memory(config: ConfigDict, shapes: TrainState, laid: TrainState) -> None:
    """Raises if the state alone, without a step's activations, is larger than what a device has."""
    needed = sum(
        math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, sharding in zip(jax.tree.leaves(shapes), jax.tree.leaves(laid), strict=True)
    )
    there = _memory()
    if needed > there:
        raise TrainError(
            f"config.model: {config.model.name} of this size needs {needed / 1e9:.3g} GB for its "
            f"{models.count_parameters(shapes.params) / 1e6:.3g} M parameters, optimisers and averages alone, and the device "
            f"has {there / 1e9:.3g} GB; lower what sets its width (channels)"
        )


def _memory() -> int:
    """Bytes of a device; a CPU has the machine's."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    return statistics.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _is_resident(config: ConfigDict, clips: Sequence[np.ndarray]) -> bool:
    """Whether the set is to be in the devices' memory; "auto": where they have one of their own, of which it takes little."""
    if config.data.resident == "auto" and jax.default_backend() != "cpu":
        return len(clips) * clips[0].nbytes <= _RESIDENT_SHARE * _memory()
    return config.data.resident == "always"


def _check_dispatch(config: ConfigDict) -> None:
    """Raises unless all that happens between steps falls between dispatches."""
    count = config.train.steps_per_dispatch
    for field in ("train.steps", "train.log_every", "train.sample_every", "train.save_every", "eval.every"):
        if (value := config_fields.value(config, field)) % count:
            raise config_fields.FieldError(
                f"config.{field} is {value} and config.train.steps_per_dispatch {count}: make it a multiple"
            )


def _open_set(config: ConfigDict, gan: models.GAN) -> ClipSource:
    """The clips to train on, their set held against the config."""
    manifest = read_manifest(config.data.dir)
    sizes = dict(
        sample_rate_hz=config.audio.sample_rate_hz,
        channels=config.audio.channels,
        clip_samples=config.audio.clip_samples,
    )
    model = dict(classes=gan.classes, encode_once=gan.encode_once)
    dataset_config.check_config(manifest, config.data.split, config.data.crop, **sizes, **model)
    return ClipSource(config.data.dir, config.data.split)


def _validation_metric(config: ConfigDict, say: Callable[[str], None]) -> ValidationMetric | None:
    """What generated clips are measured by while training; None where the config or the set has no evaluation."""
    if not config.eval.every:
        return None
    try:
        valid, train = (
            clip_sets.from_records(config.data.dir, [split], config.audio.clip_samples)
            for split in ("valid", config.data.split)
        )
        metric = make_validation_metric(valid, train, config.eval.clips)
    except ValueError as error:
        say(f"no evaluation, and no best checkpoint: {error}")
        return None
    say(f"evaluation against {valid.name}: real clips give {progress_evaluation.BEST_METRIC} {metric.floor:.3f}")
    return metric


def _statistics(
    config: ConfigDict, workdir: pathlib.Path, source: ClipSource, stop: threading.Event
) -> models.Statistics | None:
    """What the model has to know of the set: measured when a run first starts, by one process, then read by all."""
    if models.find(config).measure is None:
        return None

    def measure() -> None:
        if (workdir / STATISTICS_FILE).exists():
            return
        with _progress("measuring the set", len(source), " clips", stop) as count:
            statistics = models.measure(config, batching.iterate_in_order(source, count))
        if steps := config.model.get("shaping_steps"):
            path = workdir / _SHAPING_FILE
            with _progress("shaping", steps, " steps", stop) as count:
                statistics = shaper_training.train(config, statistics, source, path, count)
        if models.find(config).correct is not None:
            clips = min(len(source), math.ceil(_CORRECTED_S * config.audio.sample_rate_hz / config.audio.clip_samples))
            some = [source[index] for index in np.linspace(0, len(source) - 1, clips).astype(int)]

            def heard():
                with _progress("hearing it coded", clips, " clips", stop) as count:
                    yield from batching.iterate_in_order(some, count)

            statistics = models.correct(config, heard, statistics)
        write_statistics(workdir, statistics)
        (workdir / _SHAPING_FILE).unlink(missing_ok=True)

    _or_stopped(measure)
    return read_statistics(workdir)


def _codes(
    config: ConfigDict,
    gan: models.GAN,
    workdir: pathlib.Path,
    source: ClipSource,
    statistics: models.Statistics | None,
    stop: threading.Event,
) -> np.ndarray:
    """The set as the model encodes it: made when a run first starts, by one process, then read by all."""
    path = encoded_dataset.path_in(workdir, config, source.manifest, statistics)

    def encode() -> None:
        if not path.exists():
            with _progress("encoding the set", len(source), " clips", stop) as count:
                encoded_dataset.make(path, gan, source, config.audio.clip_samples, count)

    _or_stopped(encode)
    return encoded_dataset.read(path)


def _or_stopped(work: Callable[[], None]) -> None:
    """Work of the first process for all, who wait; after a signal to it, `_Stopped` in all."""

    def stopped() -> bool:
        try:
            work()
        except _Stopped:
            return True
        return False

    if distributed.from_first(stopped):
        raise _Stopped


@contextlib.contextmanager
def _progress(what: str, total: int, unit: str, stop: threading.Event) -> Iterator[Callable[[int], None]]:
    """A bar; what counts on it ends with `_Stopped` after a signal."""
    with progress.bar(what, total, unit) as bar:

        def count(more: int) -> None:
            bar.update(more)
            if stop.is_set():
                raise _Stopped

        yield count


def _weights_of(workdir: str, state: TrainState) -> TrainState:
    """The state with the parameters of another run's newest checkpoint, step and optimisers as they are."""
    with Checkpoints(workdir, read_only=True) as other:
        if not other.steps():
            raise TrainError(f"config.train.init_from: {workdir} has no checkpoint")
        return other.restore_weights(other.steps()[-1], state)


@contextlib.contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event set by SIGTERM and Ctrl-C; a second Ctrl-C interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number, _):
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    saved = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


def _greeting(config: ConfigDict, gan: models.GAN, source: ClipSource, state: TrainState, mesh) -> str:
    generator, discriminator = (models.count_parameters(params) / 1e6 for params in state.params)
    tracks = source.manifest.splits[config.data.split]["tracks"]
    labels = dataset_config.count_clips_by_label(source.manifest, config.data.split)
    others = sum(count for label, count in labels.items() if label not in gan.classes) if gan.classes else 0
    return (
        f"{config.model.name}: generator {generator:.2f} M parameters, discriminator {discriminator:.2f} M; "
        f"{config.audio.clip_samples / config.audio.sample_rate_hz:.3g} s at {config.audio.sample_rate_hz} Hz; "
        f"{mesh.size} {jax.devices()[0].device_kind} device(s)\n"
        f"{config.data.dir}: {len(source)} clips of {tracks} tracks"
        + (f"; {others} have labels that are not in config.model.classes, and count as all of these" if others else "")
    )


def _not_finite(step: int, name: str, value: float, checkpoints: Checkpoints) -> str:
    checkpoints.wait()
    good = checkpoints.steps()
    where = (
        f"the last good checkpoint is {checkpoints.folder / str(good[-1])}" if good else "there is no checkpoint yet"
    )
    return f"step {step}: {name} is {value}; {where}. A lower config.optimizer.learning_rate_g and _d may help; config.train.skip_not_finite leaves out a few"


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0
