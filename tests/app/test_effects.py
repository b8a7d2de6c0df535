import numpy as np
import pytest

from technogen_jax.app import effects, library
from technogen_jax.sampling import generator

RATE_HZ = 44100


def loop(kick=0.5, hats=0.0, tone=0.0, side=0.0, seed=0):
    """Two seconds: a kick on each half, noise above 7 kHz, a tone, a difference of the channels."""
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    noise = np.random.default_rng(seed).standard_normal(len(time_s))
    spectrum = np.fft.rfft(noise)
    spectrum[np.fft.rfftfreq(len(noise), 1 / RATE_HZ) < 7000] = 0
    noise_high = np.fft.irfft(spectrum, len(noise))
    mono = kick * np.sin(2 * np.pi * 55 * time_s) * np.exp(-8 * (time_s % 0.5))
    mono = mono + hats * noise_high + tone * np.sin(2 * np.pi * 441 * time_s) + 0.01 * noise
    return np.float32(np.stack([mono + side * noise, mono - side * noise], 1))


@pytest.mark.parametrize(
    "name, less, more",
    [
        ("kick_db", dict(kick=0.1), dict(kick=0.5)),
        ("bright_db", dict(tone=0.1), dict(tone=0.02)),
        ("hats_db", dict(hats=0.01), dict(hats=0.1)),
        ("noise_db", dict(tone=0.1), dict(tone=0.0)),
        ("width_db", dict(side=0.001), dict(side=0.01)),
        ("punch_db", dict(kick=0.0), dict(kick=0.5)),
    ],
)
def test_a_feature_measures_what_its_words_say(name, less, more):
    found = [effects.measure(loop(**options), RATE_HZ) for options in (less, more)]
    assert found[1][name] > found[0][name] + 3
    louder = effects.measure(loop(**more) * 0.25, RATE_HZ)
    assert louder[name] == pytest.approx(found[1][name], abs=0.1)  # whatever its loudness
    assert list(found[0]) == list(effects.FEATURES)


def test_a_loop_with_notes_in_between_is_busier():
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    sparse, busy = (np.sin(2 * np.pi * 800 * time_s) * np.exp(-30 * (time_s % every)) for every in (1.0, 0.125))
    found = [effects.measure(np.float32(side)[:, None], RATE_HZ)["busy_db"] for side in (sparse, busy)]
    assert found[1] > found[0] + 3


def test_silence_and_mono_have_features():
    assert np.isfinite(list(effects.measure(np.zeros((8000, 1), np.float32), 8000).values())).all()


def test_an_effect_rises_all_the_way_in_most_loops():
    rising = np.linspace(-1, 1, 5)[:, None] + np.zeros(12)
    assert effects.is_effect(rising)
    assert not effects.is_effect(-rising) and not effects.is_effect(0.2 * rising)
    bend = rising.copy()
    bend[3] = -1
    assert not effects.is_effect(bend)
    mixed = rising.copy()
    mixed[:, :4] *= -0.1
    assert not effects.is_effect(mixed)


def test_directions_are_combined_for_a_feature_and_named(playable, tmp_path, monkeypatch):
    """Of a model whose second latent is the level of the kick, and whose others do nothing."""
    monkeypatch.setattr(
        effects.latent_directions, "find", lambda gan, params, count: np.eye(4, dtype=np.float32)[[2, 1]]
    )
    monkeypatch.setattr(
        effects.generator,
        "draw_latents",
        lambda gan, seed, indices: np.random.default_rng(1).normal(size=(len(indices), 4)).astype(np.float32),
    )
    monkeypatch.setattr(
        effects.generator,
        "render_batches",
        lambda gan, params, z, size: loop(kick=np.exp(0.3 * z[0, 1]), tone=0.05, seed=3)[None],
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        effects,
        "measure",
        lambda audio, rate: {name: value if name == "kick_db" else 0.0 for name, value in real(audio, rate).items()},
    )
    audio = {**playable.trained.config.audio.to_dict(), "sample_rate_hz": RATE_HZ}
    trained = playable.trained._replace(weights="f" * 64, config=type(playable.trained.config)({"audio": audio}))
    found = effects.find(trained)
    assert found.effects == (("less kick", "more kick"),)
    np.testing.assert_allclose(found.directions, [[0, 1, 0, 0]], atol=1e-5)
    monkeypatch.setattr(effects.latent_directions, "find", None)  # it is read from the file that was written
    again = effects.find(trained)
    assert again.effects == found.effects
    np.testing.assert_array_equal(again.directions, found.directions)


real = effects.measure


def test_the_model_that_comes_with_technogen_brings_its_directions():
    trained = generator.load(library.SHIPPED)
    found = effects.read(effects.PRETRAINED / f"controls-{trained.weights[:16]}.npz")
    assert found is not None and len(found.effects) == len(found.directions) >= 2
    assert effects.UNNAMED not in found.effects
    np.testing.assert_allclose(found.directions @ found.directions.T, np.eye(len(found.directions)), atol=1e-3)
