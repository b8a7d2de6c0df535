import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from technogen_jax import models
from technogen_jax.audio import audio_files
from technogen_jax.common.config_fields import Section, field
from technogen_jax.data.clip_source import ClipSource
from technogen_jax.models import layers
from technogen_jax.models.gan import GAN, functional
from technogen_jax.runs import encoded_dataset
from technogen_jax.runs.metrics_log import METRICS_FILE
from technogen_jax.runs.workdir import write_statistics
from technogen_jax.sampling import generator
from technogen_jax.training import loop

CLASSES = ("industrial",)  # of the labels of `prepared_set`, acid is none of them


def blocks(audio):
    """`[B, T, C]` to `[B, 16, 4]`: a little of the sound of each sixteenth."""
    return audio[:, :2048, 0].reshape(len(audio), 16, -1)[..., :4]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnceConfig(Section):
    section = "model"
    channels: int = field(6, "Channels of both networks.", least=1)
    classes: tuple[str, ...] = field((), "Labels.")


def build(config, sound, statistics=None):
    """A model that encodes once, and says so when it is asked to encode in a step."""
    clip_samples, channels, classes = sound.clip_samples, config.channels, config.classes
    labels = len(classes)
    g, d = (functional(lambda *, rngs, size=size: layers.Dense(size + labels, channels, rngs=rngs)) for size in (8, 4))

    def generate(params, z):
        x = jnp.tanh(g.apply(params, z)[:, None, :4] * jnp.linspace(0, 1, 16)[:, None])
        return jnp.concatenate([x, jnp.broadcast_to(z[:, None, 8:], (len(z), 16, labels))], -1)

    def encode(audio, weights):
        x = blocks(audio) * statistics["gain"]
        return jnp.concatenate([x, jnp.broadcast_to(weights[:, None], (len(x), 16, labels))], -1)

    return GAN(
        sample_latents=lambda key, n: jnp.concatenate([jax.random.normal(key, (n, 8)), jnp.ones((n, labels))], 1),
        init_g=g.init,
        init_d=d.init,
        generate=generate,
        discriminate=lambda params, x, key: (jnp.mean(jnp.sin(d.apply(params, x)), 1),),
        encode=encode,
        decode=lambda x: jnp.repeat(x[..., :4].reshape(len(x), 64), clip_samples // 64, 1)[..., None],
        calibrate=lambda params, key: params,
        classes=tuple(classes),
        encode_once=True,
    )


@pytest.fixture
def config(tiny_config, monkeypatch):
    """A run of that model; its sets are cropped from 2250 samples to 2048."""
    gain = {"gain": np.float64(0.5)}
    monkeypatch.setitem(models.MODELS, "once", models.Model(OnceConfig, build, lambda batches, config, sound: gain))
    tiny_config.model = dict(name="once", channels=6, classes=CLASSES)
    tiny_config.data.crop = "start"
    tiny_config.eval.every = 0
    return tiny_config


@pytest.fixture
def source(prepared_set):
    return ClipSource(prepared_set, "train")


def the_file(workdir):
    (path,) = workdir.glob("codes-*.npy")
    return path


def run(config, workdir, **changes):
    config.train.update(changes)
    printed = []
    return loop.train(config, workdir, say=printed.append), printed


def assert_same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def lines(workdir):
    rows = [json.loads(line) for line in (workdir / METRICS_FILE).read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


def test_codes_equal_encode_of_each_clip_and_label(config, source, tmp_path):
    gan, done = models.build(config, {"gain": np.float64(0.5)}), []
    path = tmp_path / "codes-0.npy"
    encoded_dataset.write(path, gan, source, 2048, done.append)
    rows = encoded_dataset.read(path)
    assert rows.dtype == np.float32 and sum(done) == len(rows) == len(source) == 48
    sound = np.stack([audio_files.from_int16(clip["audio"]) for clip in source])
    np.testing.assert_array_equal(rows[..., :4], blocks(sound) * np.float32(0.5))
    # One class: a clip that has it is of it, any other is of all classes alike, which is the same.
    np.testing.assert_array_equal(rows[..., 4], 1)
    assert encoded_dataset.make_label_weights(["a", "b", "c"], ("c", "a")).tolist() == [[0, 1], [0.5, 0.5], [1, 0]]


def test_half_written_file_is_an_error_and_old_codes_are_deleted(config, source, tmp_path, monkeypatch):
    gan, old = models.build(config, {"gain": np.float64(0.5)}), tmp_path / "codes-0.npy"
    old.write_bytes(b"of another set")

    def killed(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoded_dataset.write(tmp_path / "codes-1.npy", gan, source, 2048, killed)
    assert not list(tmp_path.iterdir())
    encoded_dataset.write(tmp_path / "codes-2.npy", gan, source, 2048, lambda done: None)
    assert [path.name for path in tmp_path.iterdir()] == ["codes-2.npy"]
    (tmp_path / "codes-2.npy").write_bytes((tmp_path / "codes-2.npy").read_bytes()[:-1])
    with pytest.raises(ValueError, match="codes-2.npy: unreadable .* delete it and train on"):
        encoded_dataset.read(tmp_path / "codes-2.npy")


def test_path_depends_on_statistics_fields_and_dataset(config, source, tmp_path):
    def name(statistics=None, **changes):
        manifest = source.manifest.__class__(**vars(source.manifest) | changes)
        return encoded_dataset.find_path(
            tmp_path, config, manifest, {"gain": np.float64(0.5)} if statistics is None else statistics
        )

    names = [name(), name({"gain": np.float64(0.6)}), name({}), name(fingerprint="x"), name(labels=["b", "a"])]
    config.model.classes = list(CLASSES)  # as JSON gives them back
    assert name() == names[0]
    config.model.classes = ("acid",)
    names.append(name())
    config.data.split = "valid"
    names.append(name())
    assert len(set(names)) == len(names) == 7


def test_run_encodes_its_dataset_once_and_resumes_bit_for_bit(config, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    state, printed = run(config, whole)
    assert any("24 clips with other labels count as all of these" in line for line in printed)
    # Killed while it encoded, then after two steps.
    make = encoded_dataset.write

    def die(path, gan, source, clip_samples, count):
        def count_and_die(done):
            raise KeyboardInterrupt

        make(path, gan, source, clip_samples, count_and_die)

    monkeypatch.setattr(encoded_dataset, "write", die)
    with pytest.raises(KeyboardInterrupt):
        run(config, killed)
    monkeypatch.setattr(encoded_dataset, "write", make)
    assert not list(killed.glob("codes-*"))
    run(config, killed, steps=2)
    monkeypatch.setattr(encoded_dataset, "write", None)  # they are there
    resumed, _ = run(config, killed, steps=6)
    assert_same(resumed, state)
    assert lines(killed) == lines(whole)
    assert the_file(killed).read_bytes() == the_file(whole).read_bytes()
    assert not list(killed.rglob("*tmp*"))
    clip = next(generator.render(trained := generator.load(whole), generator.draw_latents(trained.gan, 0, [0])))
    assert clip.shape == (2048, 1) and np.abs(clip).max() > 0


def test_dataset_is_encoded_again_for_other_statistics(config, tmp_path):
    run(config, tmp_path / "run", steps=2)
    before = the_file(tmp_path / "run")
    rows = np.array(encoded_dataset.read(before))
    write_statistics(tmp_path / "run", {"gain": np.float64(1.0)})
    run(config, tmp_path / "run", steps=4)
    after = the_file(tmp_path / "run")
    assert after.name != before.name
    np.testing.assert_array_equal(encoded_dataset.read(after)[..., :4], 2 * rows[..., :4])


def test_several_steps_in_a_dispatch_give_the_same_bits(config, tmp_path):
    state, _ = run(config, tmp_path / "one", steps=12, log_every=6, save_every=6, sample_every=0)
    rows = [row for row in lines(tmp_path / "one") if row["step"] > 6]
    for count in (2, 3):
        several, _ = run(config, tmp_path / str(count), steps_per_dispatch=count)
        assert_same(several, state)
        assert [row for row in lines(tmp_path / str(count)) if row["step"] > 6] == rows
