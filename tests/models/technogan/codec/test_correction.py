import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import codecs
from helpers.bars import PARTS, SMALL, TONES

from technogen_jax.models.technogan.codec import analysis, partials, shaper


def test_correct_gives_decoded_sound_the_levels_and_swings_of_the_dataset():
    """Noise in bursts, by few components, before and after the correction."""
    rng, time_s = np.random.default_rng(0), np.arange(14336) / 8000
    swells = np.exp(-(time_s % 0.448)[:, None] * rng.uniform(2, 12, (8, 1, 2))) * rng.uniform(0.05, 0.3, (8, 1, 1))
    audio = np.float32(rng.standard_normal((8, 14336, 2)) * swells)
    counts = dict(mid_components=3, side_components=3)
    _, statistics = codecs.measure(audio, **counts)
    options = SMALL | PARTS | counts
    corrected = codecs.correct(lambda: [audio[:5], audio[5:]], statistics, **options)
    assert corrected.keys() - statistics.keys() == {"mid_level", "mid_swing", "side_level", "side_swing"}
    grid = codecs.GRID
    bands = codecs.BANDS

    def levels(audio):
        """`[16, frames, bands]` of mid and side, without the side's band below."""
        found = analysis.analyze(jnp.asarray(audio), grid, bands, tonal=False)
        mid, side = (values.reshape(8, grid.frames, -1) for values in (found.mid, found.side))
        return np.concatenate([mid, side[..., 1:]])

    def back(statistics):
        made = codecs.make(statistics)
        return levels(jax.jit(lambda audio: made.decode(made.encode(audio)))(audio))

    real, before, after = levels(audio), back(statistics), back(corrected)
    for read in (lambda values: values.mean(1), lambda values: values.std(1)):
        off = [np.abs((read(values) - read(real)).reshape(2, 8, -1).mean(1)).mean() for values in (before, after)]
        assert off[1] < 0.3 * off[0], off
    silent = codecs.correct(lambda: [audio, 0 * audio[:3]], statistics, **options)  # three clips of eleven
    for name in corrected.keys() - statistics.keys():
        np.testing.assert_allclose(silent[name], corrected[name], atol=0.15)
    again = codecs.correct(lambda: [audio[:5], audio[5:]], corrected, **options)
    assert all((again[name] == corrected[name]).all() for name in corrected)
    usual = {name: np.ones if name.endswith("swing") else np.zeros for name in corrected.keys() - statistics.keys()}
    usual = {name: make(corrected[name].shape) for name, make in usual.items()}
    np.testing.assert_array_equal(back(statistics | usual), before)  # statistics that an older version measured


@pytest.mark.parametrize("gate, least, most", [(0.2, 1.5, 2), (3.0, 0.5, 0.8)])
def test_correct_gives_decoded_sound_the_energy_in_partials_of_the_dataset(gate, least, most):
    """Shapers that ask for too little of them in the mid, and for too much; bars in hiss."""
    bars = codecs.bars()
    audio = bars + np.float32(np.random.default_rng(0).normal(0, 0.01, (*bars.shape[:2], 1)))
    _, statistics = codecs.measure(audio, **TONES, shaper="new")
    statistics |= shaper.to_arrays(codecs.biased_shaper(mid_partials=gate))
    options = SMALL | PARTS | TONES | dict(shaper="new")
    corrected = codecs.correct(lambda: [audio[:4], audio[4:]], statistics, **options)
    assert corrected.keys() - statistics.keys() == {
        f"{part}_{what}" for part in ("mid", "side") for what in ("level", "swing", "tone")
    }
    for part in ("mid", "side"):
        assert corrected[f"{part}_tone"].min() >= 0.5 and corrected[f"{part}_tone"].max() <= 2
    farthest = corrected["mid_tone"][np.abs(np.log(corrected["mid_tone"])).argmax()]
    assert least <= farthest <= most

    def back(statistics):
        made = codecs.make(statistics)
        return np.asarray(jax.jit(lambda audio: made.decode(made.encode(audio)))(audio))

    def share(sound):
        return np.asarray(partials.measure_energy_shares(jnp.asarray(sound.mean(-1)), 8000, 16)).sum(1).mean()

    before, after = back(statistics), back(corrected)
    off = [abs(np.log(share(sound) / share(audio))) for sound in (before, after)]
    assert off[1] < 0.8 * off[0], off


def test_statistics_of_an_older_version_decode_as_with_a_tone_of_one():
    _, statistics = codecs.tonal()
    assert "mid_tone" not in statistics
    ones = {name: np.ones_like(statistics[f"{name}_mean"][: SMALL["n_mels"]]) for name in ("mid", "side")}
    x = np.random.default_rng(0).normal(size=(1, 16, codecs.tonal()[0].layout.size)).astype(np.float32)
    with_ones = codecs.make(statistics | {f"{name}_tone": values for name, values in ones.items()})
    np.testing.assert_array_equal(with_ones.decode(x), codecs.tonal()[0].decode(x))
