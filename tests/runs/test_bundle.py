import json

import jax
import numpy as np
import pytest
from conftest import load_config

from technogen_jax import models
from technogen_jax.common import array_files
from technogen_jax.runs import bundle
from technogen_jax.runs.workdir import WorkdirError

KEY = jax.random.key(0)
CARD = dict(licence="CC0-1.0", data="noise", step=7, weights="abc")


@pytest.fixture(scope="module")
def wavegan():
    """(config, parameters) with some arrays above 10,000 numbers; its batch statistics are measured, not made."""
    config = load_config("wavegan")
    config.audio.clip_samples = 1024
    config.model.update(latent_size=8, channels=16, batch_norm=True)
    config.data.dir, config.train.init_from = "/home/someone/set", "/home/someone/run"
    gan = models.build(config)
    return config, jax.jit(lambda key: gan.calibrate(gan.init_g(key), key))(KEY)


@pytest.fixture(scope="module")
def file(wavegan, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "wavegan.npz"
    bundle.write(path, config=wavegan[0], params=wavegan[1], statistics={}, card=CARD)
    return path


def rewritten(file, path, change):
    """The file with another content, its hash being right."""
    content = array_files.read(file)
    change(content)
    array_files.write(path, content)
    return path


def below_db(found, expected):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return 20 * np.log10(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_bundle_sounds_like_the_run_to_60_db_at_half_the_size(file, wavegan):
    gan, params = models.build(wavegan[0]), wavegan[1]
    packed = bundle.read(file)
    z = gan.sample_latents(KEY, 4)
    make = jax.jit(lambda params: gan.decode(gan.generate(params, z)))
    assert -200 < below_db(make(packed.params), make(params)) < -60
    assert file.stat().st_size < 2.1 * models.count_parameters(params)
    stored = {name: value.dtype for name, value in array_files.read(file).items()}
    assert {stored["params/upconv_1/kernel"], stored["params/upconv_1/bias"]} == {np.dtype("f2"), np.dtype("f4")}
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(packed.params))


def test_statistics_in_a_bundle_lose_less_than_60_db(tmp_path):
    config = load_config("technogan", "xs")
    config.audio.clip_samples, config.audio.sample_rate_hz = 14336, 8000
    config.model.update(channels=8, blocks=1, n_mels=24, mid_components=60, shaper="none")
    rng = np.random.default_rng(0)
    # A spectrum that falls, as music's.
    noise = np.cumsum(rng.standard_normal((4, config.audio.clip_samples, 2)), 1)
    bars = (0.3 * (noise - noise.mean(1, keepdims=True)) / noise.std(1, keepdims=True)).astype(np.float32)
    statistics = models.measure(config, [bars])
    gan = models.build(config, statistics)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(gan.init_g, KEY))
    bundle.write(tmp_path / "t.npz", config=config, params=params, statistics=statistics, card=CARD)
    packed = bundle.read(tmp_path / "t.npz")
    assert array_files.read(tmp_path / "t.npz")["statistics/mid_basis"].dtype == np.float16
    x = rng.standard_normal(jax.eval_shape(gan.generate, params, gan.sample_latents(KEY, 2)).shape, np.float32)
    assert -200 < below_db(jax.jit(packed.gan.decode)(x), jax.jit(gan.decode)(x)) < -60


def test_bundle_has_config_and_card_without_paths(file, wavegan, tmp_path):
    packed = bundle.read(file, "best")
    assert packed.card == {**CARD, "parameters": models.count_parameters(wavegan[1]), "format": 1}
    assert packed.config.model.to_dict() == wavegan[0].model.to_dict()
    assert "someone" not in str(packed.config) and wavegan[0].data.dir == "/home/someone/set"
    bundle.write(tmp_path / "again.npz", config=wavegan[0], params=wavegan[1], statistics={}, card=CARD)
    assert (tmp_path / "again.npz").read_bytes() == file.read_bytes()


def test_values_out_of_float16_range_stay_float32(file, wavegan, tmp_path):
    params = jax.tree.map(lambda leaf: np.asarray(leaf) * np.float32(1e-9), wavegan[1])
    params["upconv_0"]["kernel"] = params["upconv_0"]["kernel"] * np.float32(1e16)
    bundle.write(tmp_path / "odd.npz", config=wavegan[0], params=params, statistics={}, card=CARD)
    found = bundle.read(tmp_path / "odd.npz").params
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_flipped_bit_is_an_error_or_changes_nothing(file, tmp_path):
    good, content = file.read_bytes(), array_files.read(file)
    rng = np.random.default_rng(0)
    caught = 0
    for position in [*rng.integers(0, len(good), 30), *rng.integers(len(good) - 2000, len(good), 30)]:
        bad = bytearray(good)
        bad[position] ^= 1 << rng.integers(8)
        (tmp_path / "bad.npz").write_bytes(bad)
        try:
            found = array_files.read(tmp_path / "bad.npz")
        except ValueError:
            with pytest.raises(WorkdirError, match=r"bad\.npz: .*make it again"):
                bundle.read(tmp_path / "bad.npz")
            caught += 1
        else:
            jax.tree.map(np.testing.assert_array_equal, found, content)
    assert caught > 40


def drop(name):
    return lambda content: content.pop(name)


def put(name, value):
    return lambda content: content.update({name: np.asarray(value)})


def configured(**model):
    def change(content):
        config = json.loads(str(content["config"]))
        config["model"].update(model)
        content["config"] = np.asarray(json.dumps(config))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("params/upconv_1/bias"), r"upconv_1/bias: expected \(\d+,\), found nothing"),
        (put("params/upconv_1/other", [1.0]), r"upconv_1/other: expected nothing, found \(1,\)"),
        (put("params/upconv_1/bias", [1.0]), r"upconv_1/bias: expected \(\d+,\), found \(1,\)"),
        (put("other", 1), "contains other, which"),
        (drop("card"), "export the run again"),
        (drop("config"), "export the run again"),
        (put("card", "{}"), "export the run again"),
        (put("card", "[]"), "export the run again"),
        (put("config", "{"), "export the run again"),
        (put("config", "[]"), "export the run again"),
        (configured(name="new"), "config.model.name: expected one of"),
        (configured(newer=1), "has no field newer"),
        (configured(name="specgan"), "does not fit the model"),
    ],
)
def test_bundle_of_another_model_or_version_is_an_error(file, tmp_path, change, message):
    with pytest.raises(WorkdirError, match=message):
        bundle.read(rewritten(file, tmp_path / "changed.npz", change))


def test_missing_file_step_or_suffix_is_an_error(file, wavegan, tmp_path):
    with pytest.raises(WorkdirError, match="missing.npz: not found; expected what technogen_jax.export wrote"):
        bundle.read(tmp_path / "missing.npz")
    with pytest.raises(WorkdirError, match="has no step 8, only 7"):
        bundle.read(file, 8)
    with pytest.raises(ValueError, match=r"a name that ends in \.npz"):
        bundle.write(tmp_path / "x.zip", config=wavegan[0], params=wavegan[1], statistics={}, card=CARD)
    assert not list(tmp_path.iterdir())
