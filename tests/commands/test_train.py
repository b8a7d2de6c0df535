import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from conftest import RATE_HZ, ROOT
from ml_collections import ConfigDict

from technogen_jax import train
from technogen_jax.data import clip_source
from technogen_jax.data.manifest import read_manifest
from technogen_jax.runs.checkpoints import Checkpoints
from technogen_jax.runs.metrics_log import METRICS_FILE
from technogen_jax.runs.workdir import (
    CONFIG_FILE,
    DATA_FILE,
    LOCK_FILE,
    SAMPLES_FOLDER,
    WorkdirError,
    claim_workdir,
    read_config,
)
from technogen_jax.training import loop
from technogen_jax.training.errors import TrainError
from technogen_jax.training.progress_evaluation import BEST_METRIC


def quiet(line):
    pass


def run(config, workdir, **changes):
    for name, value in changes.items():
        config.train[name] = value
    return loop.train(config, workdir, say=quiet)


def state_of(config, workdir, step):
    _, _, new_state = loop.build_training(config)
    like = jax.jit(new_state)(jax.random.key(0))
    with Checkpoints(workdir, read_only=True) as checkpoints:
        return checkpoints.restore(step, like)


def assert_same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def lines(workdir):
    """metrics.jsonl without what a clock decides."""
    rows = [json.loads(line) for line in (workdir / METRICS_FILE).read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


def command(config, workdir, *more):
    """The command line that trains `config`: the file, and every field that differs from it."""
    return [
        sys.executable,
        "-m",
        "technogen_jax.train",
        "--config",
        "configs/wavegan.py:relativistic",
        "--workdir",
        str(workdir),
        f"--config.audio.sample_rate_hz={RATE_HZ}",
        "--config.audio.clip_samples=2048",
        f"--config.data.dir={config.data.dir}",
        "--config.model.channels=2",
        "--config.model.latent_size=8",
        *(f"--config.train.{name}={value}" for name, value in config.train.items() if value is not None),
        *(f"--config.eval.{name}={value}" for name, value in config.eval.items()),
        *more,
    ]


def start(argv):
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(path, process, text="", seconds=120):
    """Waits until a file holds a text."""
    end = time.monotonic() + seconds
    while not (path.exists() and text in path.read_text()):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end, f"{path} did not come to hold {text!r}"
        time.sleep(0.05)


def test_run_writes_config_checkpoints_metrics_and_previews(trained_workdir, tiny_config):
    assert read_config(trained_workdir) == ConfigDict(json.loads(json.dumps(tiny_config.to_dict()))).lock()
    with Checkpoints(trained_workdir, read_only=True) as checkpoints:
        assert checkpoints.steps() == [2, 4, 6]
        best = checkpoints.best_step()
    scores = {row["step"]: row[BEST_METRIC] for row in lines(trained_workdir) if BEST_METRIC in row}
    assert sorted(scores) == [2, 4, 6] and best == min(scores, key=scores.get)
    losses = [row for row in lines(trained_workdir) if "d/adversarial" in row]
    assert [row["step"] for row in losses] == [1, 2, 4, 6]
    assert {"g/adversarial", "d/r1", "d/r2", "g/gradient_norm", "d/gradient_norm"} < set(losses[0])
    preview, rate_hz = soundfile.read(trained_workdir / "samples" / "step00000004.wav", always_2d=True)
    assert rate_hz == RATE_HZ and preview.shape == (2 * (2048 + round(0.2 * RATE_HZ)), 1)
    assert (trained_workdir / "samples" / "step00000006.png").exists()


def test_resumed_run_equals_the_uninterrupted_run_bit_for_bit(tiny_config, trained_workdir, tmp_path):
    tiny_config.train.steps = 4
    loop.train(tiny_config, tmp_path, say=quiet)
    with open(tmp_path / METRICS_FILE, "a") as file:  # as if it had been killed two steps later
        file.write('{"step": 5, "d/adversarial": 0}\n{"step": 6, "d/adv')
    tiny_config.train.steps = 6
    state = loop.train(tiny_config, tmp_path, say=quiet)
    assert_same(state, state_of(tiny_config, trained_workdir, 6))
    assert lines(tmp_path) == lines(trained_workdir)
    name = pathlib.Path("samples") / "step00000006.wav"
    assert (tmp_path / name).read_bytes() == (trained_workdir / name).read_bytes()


def test_finished_run_says_so_and_deletes_unfinished_files(trained_workdir, tiny_config):
    printed, left = [], trained_workdir / SAMPLES_FOLDER / ".step00000006.wav.123.tmp"
    before = (trained_workdir / METRICS_FILE).read_bytes()
    left.write_bytes(b"half of the so")
    loop.train(tiny_config, trained_workdir, say=printed.append)
    assert "already at step 6 of 6" in printed[-1]
    assert (trained_workdir / METRICS_FILE).read_bytes() == before and not left.exists()


def test_killed_run_resumes_bit_for_bit_from_any_moment(tiny_config, trained_workdir, tmp_path):
    tiny_config.train.keep_every = 1
    metrics = tmp_path / "run" / METRICS_FILE
    # Before the first step; just when a checkpoint is on its way; after one.
    for moment in ('{"step": 1', '{"step": 2', '{"step": 4'):
        process = start(command(tiny_config, tmp_path / "run"))
        wait_for(metrics, process, moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    process = start(command(tiny_config, tmp_path / "run"))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert_same(state_of(tiny_config, tmp_path / "run", 6), state_of(tiny_config, trained_workdir, 6))
    assert lines(tmp_path / "run") == lines(trained_workdir)
    assert not list((tmp_path / "run").rglob("*tmp*"))


def test_sigterm_saves_and_exits_with_0(tiny_config, tmp_path):
    tiny_config.train.update(steps=100_000, save_every=50_000, sample_every=0)
    tiny_config.eval.every = 0
    process = start(command(tiny_config, tmp_path / "run"))
    wait_for(tmp_path / "run" / METRICS_FILE, process, '{"step": 2')
    process.terminate()
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert "the same command resumes it" in output


def test_a_closed_terminal_ends_a_run_with_a_checkpoint(tiny_config, tmp_path):
    """Nobody reads its output any more, then SIGHUP comes."""
    tiny_config.train.update(steps=100_000, save_every=50_000, sample_every=0)
    tiny_config.eval.every = 0
    old = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup, which ignores it
    process = start(command(tiny_config, tmp_path / "run"))
    signal.signal(signal.SIGHUP, old)
    wait_for(tmp_path / "run" / METRICS_FILE, process, '{"step": 2')
    process.stdout.close()
    read = len(lines(tmp_path / "run"))
    end = time.monotonic() + 60
    while len(lines(tmp_path / "run")) < read + 50 and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0
    step = lines(tmp_path / "run")[-1]["step"]
    assert step > 50
    with Checkpoints(tmp_path / "run", read_only=True) as checkpoints:
        assert checkpoints.steps() == [step]
    with Checkpoints(tmp_path / "run", read_only=True) as checkpoints:
        (step,) = checkpoints.steps()
    assert 2 <= step < 50_000


@pytest.fixture
def too_early():
    """A signal that no one heeds is an error, and not the end of all tests."""

    def heed(number, _):
        raise AssertionError(f"signal {number} came before its handler")

    old = signal.signal(signal.SIGTERM, heed)
    yield heed
    assert signal.signal(signal.SIGTERM, old) is heed, "the handler of before is not back"


@pytest.mark.parametrize("moment", ["claim_workdir", "restore"])
def test_signal_before_the_first_step_ends_the_run_without_compiling(
    tiny_config, tmp_path, monkeypatch, too_early, moment
):
    work, printed = getattr(loop, moment), []
    monkeypatch.setattr(loop, moment, lambda *args: os.kill(os.getpid(), signal.SIGTERM) or work(*args))
    monkeypatch.setattr(loop, "_compile", lambda *_: pytest.fail("it compiles"))
    assert int(loop.train(tiny_config, tmp_path, say=printed.append).step) == 0
    assert printed[-1].startswith("stopped before the first step; the same command resumes")


def test_time_limit_ends_a_run_that_can_be_resumed(tiny_config, tmp_path):
    state = run(tiny_config, tmp_path, steps=10_000, minutes=1e-6)
    assert int(state.step) == 1
    state = run(tiny_config, tmp_path, minutes=1e-6)
    assert int(state.step) == 2


def test_nan_error_names_step_quantity_and_checkpoint(tiny_config, trained_workdir, tmp_path):
    tiny_config.optimizer.learning_rate_d = 1e30
    tiny_config.train.init_from = str(trained_workdir)
    tiny_config.eval.every = 0
    with pytest.raises(TrainError, match=r"step \d+: \S+ is (nan|inf|-inf); there is no checkpoint yet"):
        run(tiny_config, tmp_path / "bad", steps=50, save_every=60)


def test_checkpoint_never_contains_nan(tiny_config, tmp_path, monkeypatch):
    finite = loop.make_train_step

    def broken(*args, **kwargs):
        step = finite(*args, **kwargs)

        def broken_step(state, pcm, key):
            state, metrics = step(state, pcm, key)
            spoilt = jax.numpy.where(state.step == 4, jax.numpy.nan, 1.0)
            return state._replace(ema=jax.tree.map(lambda x: x * spoilt, state.ema)), metrics

        return broken_step

    monkeypatch.setattr(loop, "make_train_step", broken)
    with pytest.raises(TrainError, match=r"step 4: a parameter .* last good checkpoint is .*checkpoints/2"):
        run(tiny_config, tmp_path, steps=6)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.steps() == [2]


def toy_steps(monkeypatch, quantity, bad):
    """In the place of the train step one that compiles in no time: in the steps `bad` a quantity is NaN or Inf."""

    def toy_step(state, clips, key):
        spoilt = jnp.where(jnp.isin(state.step + 1, jnp.array(bad)), bad[0] % 2 and jnp.nan or jnp.inf, 1.0)
        metrics = {"d/adversarial": state.step + 1.0, "d/gradient_norm": 1.0, "g/gradient_norm": 2.0}
        metrics = {name: jnp.where(name == quantity, spoilt, 1) * value for name, value in metrics.items()}
        ema = jax.tree.map(lambda x: (x + 1) * jnp.where(quantity == "a number of the state", spoilt, 1), state.ema)
        return state._replace(step=state.step + 1, ema=ema), metrics

    monkeypatch.setattr(loop, "make_train_step", lambda *_, **__: toy_step)


@pytest.mark.parametrize("quantity", ["d/adversarial", "d/gradient_norm", "g/gradient_norm"])
def test_error_names_the_loss_or_gradient_that_is_not_finite(tiny_config, tmp_path, monkeypatch, quantity):
    toy_steps(monkeypatch, quantity, [4])
    tiny_config.eval.every = 0
    with pytest.raises(TrainError, match=f"step 4: {quantity} is inf; the last good checkpoint is .*/2. A low"):
        run(tiny_config, tmp_path, sample_every=0)


@pytest.mark.parametrize("quantity", ["g/gradient_norm", "a number of the state"])
def test_step_that_is_not_finite_is_skipped_and_counted(tiny_config, tmp_path, monkeypatch, quantity):
    toy_steps(monkeypatch, quantity, [3, 6, 7])
    tiny_config.eval.every = 0
    state = run(tiny_config, tmp_path, steps=8, sample_every=0, log_every=4, save_every=2, skip_not_finite=True)
    before, after = (state_of(tiny_config, tmp_path, step) for step in (4, 8))
    assert [int(x.step) for x in (before, after, state)] == [4, 8, 8]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(y - x, 2, rtol=1e-6), before.ema, after.ema)  # of four
    counted = [(row["step"], row["skipped"], row["d/adversarial"]) for row in lines(tmp_path)]
    assert counted == [(1, 0, 1), (2, 0, 2), (4, 1, 4), (6, 1, 5), (8, 1, 8)]


def test_run_ends_after_a_hundred_skipped_steps_in_a_row(tiny_config, tmp_path, monkeypatch):
    toy_steps(monkeypatch, "d/adversarial", [3, 5, *range(7, 200)])
    tiny_config.eval.every = 0
    with pytest.raises(TrainError, match="step 106: d/adversarial is nan; the last good checkpoint is .*/75"):
        run(tiny_config, tmp_path, steps=150, sample_every=0, log_every=25, save_every=75, skip_not_finite=True)


def test_new_run_starts_from_the_weights_of_another_run(tiny_config, trained_workdir, tmp_path):
    old = state_of(tiny_config, trained_workdir, 6)
    tiny_config.optimizer.learning_rate_g = tiny_config.optimizer.learning_rate_d = 0.0
    state = run(tiny_config, tmp_path, steps=1, init_from=str(trained_workdir))
    assert_same(state.params, old.params)
    assert int(state.step) == 1


def test_resuming_with_a_changed_field_is_an_error(tiny_config, trained_workdir):
    tiny_config.optimizer.learning_rate_g = 0.5
    with pytest.raises(WorkdirError, match=r"begun with config.optimizer.learning_rate_g = 0.0002, now it is 0.5"):
        loop.train(tiny_config, trained_workdir, say=quiet)


def test_resuming_on_another_dataset_is_an_error(tiny_config, trained_workdir, tmp_path, monkeypatch):
    read = read_manifest
    monkeypatch.setattr(
        clip_source, "read_manifest", lambda path: read(path).__class__(**vars(read(path)) | {"fingerprint": "x"})
    )
    with pytest.raises(WorkdirError, match="begun on another dataset"):
        loop.train(tiny_config, trained_workdir, say=quiet)


def test_folder_with_other_files_is_not_used(tiny_config, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(WorkdirError, match="contains files but no config.json"):
        loop.train(tiny_config, tmp_path, say=quiet)
    assert os.listdir(tmp_path) == ["thesis.txt"]


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("train.batch_size", 0, "config.train.batch_size: expected a whole number from 1 to 1048576, got 0"),
        ("train.steps", -5, "config.train.steps: expected a whole number of at least 1, got -5"),
        ("train.ema_decay", 1.5, "config.train.ema_decay: expected a number from 0 to 1, got 1.5"),
        ("train.minutes", -1.0, "config.train.minutes: expected None or a number above 0, got -1.0"),
        ("eval.every", 3, "config.eval.every is 3 and config.train.save_every is 2"),
        (
            "train.steps_per_dispatch",
            4,
            "config.train.steps is 6 and config.train.steps_per_dispatch 4: make it a multi",
        ),
        ("audio.channels", 3, "config.audio.channels: expected 1 or 2, got 3"),
        ("audio.channels", 2, "config.audio.channels is 2, but the dataset has 1"),
        ("audio.sample_rate_hz", 44100, "config.audio.sample_rate_hz is 44100, but the dataset has 8000"),
        ("audio.clip_samples", 4096, "config.audio.clip_samples is 4096, but the dataset has clips of 2250"),
        ("data.dir", None, "config.data.dir: missing"),
        ("data.crop", "end", "config.data.crop: expected random or start, got 'end'"),
        ("model.name", "gan", "config.model.name: expected one of wavegan, specgan, technogan, got 'gan'"),
        (
            "model.channels",
            4096,
            "config.model: wavegan of this size needs .* GB for its .* M parameters.* the device has .* lower",
        ),
        ("model.batch_norm", True, "config.model.batch_norm is True and config.loss has a gradient penalty"),
        ("loss.adversarial", "gan", "config.loss.adversarial: expected one of wgan, .* got 'gan'"),
        ("loss.gp_weight", -1.0, "config.loss.gp_weight: expected a number of at least 0, got -1.0"),
        ("optimizer.name", "sgd", "config.optimizer.name: expected adam or rmsprop, got 'sgd'"),
    ],
)
def test_invalid_field_is_an_error_before_anything_is_written(tiny_config, tmp_path, field, value, message):
    section, name = field.split(".")
    tiny_config[section][name] = value
    with pytest.raises(ValueError, match=message):
        loop.train(tiny_config, tmp_path / "run", say=quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "expected --config FILE and --workdir DIR"),
        (["--config", "nope.py", "--workdir", "x"], "--config nope.py: no such file"),
        (["--config", "configs/wavegan.py:gan", "--workdir", "x"], "expected one of wgan-gp"),
        (["--config", "configs/wavegan.py", "--workdir", "x", "--config.train.stepz=3"], "did you mean steps?"),
        (["--config", "configs/wavegan.py", "--workdir", "x", "--config.train.steps=many"], "config.train.steps=many"),
    ],
)
def test_invalid_command_line_prints_one_line(argv, message):
    done = subprocess.run(
        [sys.executable, "-m", "technogen_jax.train", *argv], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("left", [".config.json.tmp", "config.json"])
def test_run_killed_while_it_created_its_workdir_starts_again(tiny_config, trained_workdir, tmp_path, left):
    whole = trained_workdir / CONFIG_FILE
    (tmp_path / left).write_bytes(whole.read_bytes())
    with claim_workdir(tmp_path, tiny_config, read_manifest(tiny_config.data.dir)):
        assert sorted(os.listdir(tmp_path)) == [LOCK_FILE, CONFIG_FILE, DATA_FILE]
    assert (tmp_path / CONFIG_FILE).read_bytes() == whole.read_bytes()


def test_a_relative_dataset_means_the_same_from_every_folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    config_file = str(ROOT / "configs" / "wavegan.py")
    monkeypatch.chdir(tmp_path)
    for word in ("data", "./data", "sub/../data"):
        assert train.read_config(config_file, [f"--config.data.dir={word}"]).data.dir == str(tmp_path / "data")
    assert train.read_config(config_file, ["--config.data.dir="]).data.dir == ""


def test_help_says_that_a_config_is_a_program(capsys):
    with pytest.raises(SystemExit):
        train.main(["--help"])
    assert "run as a program" in " ".join(capsys.readouterr().out.split())
