import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import codecs

from technogen_jax.audio import spectral
from technogen_jax.models.technogan.codec import analysis, leveling

GRID, BANDS = codecs.GRID, codecs.BANDS
FILTERS = [BANDS.mid, BANDS.side]


def measure(loop):
    spectra = spectral.stft_circular(loop, GRID.n_fft, GRID.analysis_hop_length)
    return [analysis.measure_levels(spectra[:, i], weights, GRID) for i, weights in enumerate(FILTERS)]


def rms_db(found, wanted):
    return np.array([20 / np.log(10) * float(jnp.std(a - b)) for a, b in zip(found, wanted, strict=True)])


def test_loop_that_has_the_levels_already_does_not_change():
    loop = analysis.split_mid_side(codecs.bars()[:2])
    loop = spectral.resample_circular(loop, GRID.samples)
    found = np.asarray(leveling.match_levels(loop, measure(loop), FILTERS, GRID))
    # The bands of the mid begin at the crossover; the one below it is that of the side.
    hz = np.fft.rfftfreq(GRID.samples, 1 / GRID.rate_hz)
    difference = np.abs(np.fft.rfft(found - loop))[..., (hz > 250) & (hz < 3800)]
    assert difference.max() < 1e-3 * np.abs(np.fft.rfft(loop))[..., hz > 250].max()


def test_each_pass_brings_noise_closer_to_steady_levels():
    loop = 0.05 * jax.random.normal(codecs.KEY, (1, 2, GRID.samples))
    wanted = [jnp.broadcast_to(levels.mean(1, keepdims=True), levels.shape) for levels in measure(loop)]
    match = jax.jit(lambda loop: leveling.match_levels(loop, wanted, FILTERS, GRID))
    once = match(loop)
    before, after, twice = (rms_db(measure(sound), wanted) for sound in (loop, once, match(once)))
    assert (before > 1).all()
    assert (after < 0.7 * before).all() and (twice < 0.95 * after).all()


def test_decoded_levels_are_those_of_the_code():
    """Of a code that leaves nothing out: as many components as features."""
    sizes = dict(mid_components=64, side_components=68)
    _, statistics = codecs.measure(codecs.bars(), **sizes)
    plain, leveled = (codecs.make(statistics, level_passes=passes, **sizes) for passes in (0, 1))
    code = plain.encode(codecs.bars())

    @jax.jit
    def levels(audio):
        features = analysis.analyze(audio, GRID, BANDS, tonal=False)
        return [features.mid, features.side]

    wanted = levels(codecs.bars())
    before, after = (rms_db(levels(codec.decode(code)), wanted) for codec in (plain, leveled))
    assert (after < 0.8 * before).all()


def test_pass_is_the_same_in_onnx():
    pytest.importorskip("onnx", reason="pip install -r requirements-export.txt")
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    from technogen_jax.exporting import onnx_graph, real_arithmetic

    loop = 0.05 * np.asarray(jax.random.normal(codecs.KEY, (1, 2, GRID.samples)))
    wanted = [np.asarray(levels.mean(1, keepdims=True)) for levels in measure(loop)]

    def match(loop):
        return leveling.match_levels(loop, wanted, FILTERS, GRID)

    exported = onnx_graph.convert(real_arithmetic.real_form(match), {"loop": loop.shape}, "matched")
    session = onnxruntime.InferenceSession(exported.SerializeToString())
    np.testing.assert_allclose(session.run(None, {"loop": loop})[0], jax.jit(match)(loop), atol=1e-5)
