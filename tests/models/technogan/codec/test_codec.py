import functools

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import scipy.signal
from conftest import ROOT
from helpers import building
from helpers.bars import PARTS, SMALL, TONES, bar
from sklearn.decomposition import PCA

from technogen_jax.audio import spectral
from technogen_jax.common import array_files
from technogen_jax.evaluation.features import musical
from technogen_jax.models.technogan.codec import codec, pitch
from technogen_jax.sampling import generator

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def bars():
    return np.stack([bar(seed) for seed in range(6)])


def known(audio, **options):
    """The codec of a set, which is this `[B, T, C]`, and the statistics."""
    options = SMALL | PARTS | options | dict(clip_samples=audio.shape[1])
    statistics = building.measure(
        "technogan",
        [audio[:2], audio[2:]],
        **{name: value for name, value in options.items() if name != "audio_channels"},
    )
    return coder(statistics, audio.shape[2], **options), statistics


def coder(statistics, channels=2, count=1, **options):
    """The codec of so many clips on end."""
    options = SMALL | PARTS | options
    samples, rate_hz = count * options["clip_samples"], options["sample_rate_hz"]
    grid = codec.grid_of(samples, rate_hz, count, options["frames_per_step"])
    parts = codec.part_sizes(grid, options["n_mels"], channels, "pitch_basis" in (statistics or {}))
    counts = {part: (statistics or {}).get(f"{part}_basis", np.zeros((1, 1))).shape[1] for part in parts}
    return codec.make(samples, rate_hz, grid, options["n_mels"], counts, statistics)


@pytest.fixture(scope="module")
def linear(bars):
    """(codec, statistics) of `bars`."""
    return known(bars)


@pytest.fixture(scope="module")
def toned(bars):
    """(codec, statistics) of `bars`, pitch and lines too."""
    return known(bars, **TONES, shaper="new")


def test_corrected_sound_has_the_levels_of_the_set_and_rises_and_falls_as_far():
    """Noise in bursts, by few components, before and after the codec has heard itself."""
    rng, time_s = np.random.default_rng(0), np.arange(14336) / 8000
    swells = np.exp(-(time_s % 0.448)[:, None] * rng.uniform(2, 12, (8, 1, 2))) * rng.uniform(0.05, 0.3, (8, 1, 1))
    audio = np.float32(rng.standard_normal((8, 14336, 2)) * swells)
    counts = dict(mid_components=3, side_components=3)
    _, statistics = known(audio, **counts)
    options = SMALL | dict(clip_samples=14336)
    options = {name: value for name, value in options.items() if name != "audio_channels"}
    corrected = building.correct("technogan", lambda: [audio[:5], audio[5:]], statistics, **options)
    assert corrected.keys() - statistics.keys() == {"mid_level", "mid_swing", "side_level", "side_swing"}
    grid = codec.grid_of(14336, 8000, 1, options["frames_per_step"])
    bands = codec._bands(14336, 8000, grid, options["n_mels"])

    def levels(audio):
        """`[16, frames, bands]` of mid and side, without the side's band below."""
        found = codec._features(jnp.asarray(audio), grid, bands, 8000, toned=False)
        found = {part: found[part].reshape(8, 16 * grid.frames, -1) for part in ("mid", "side")}
        return np.concatenate([found["mid"], found["side"][..., 1:]])

    def back(statistics):
        made = coder(statistics, clip_samples=14336)
        return levels(jax.jit(lambda audio: made.decode(made.encode(audio)))(audio))

    real, before, after = levels(audio), back(statistics), back(corrected)
    for read in (lambda values: values.mean(1), lambda values: values.std(1)):
        off = [np.abs((read(values) - read(real)).reshape(2, 8, -1).mean(1)).mean() for values in (before, after)]
        assert off[1] < 0.3 * off[0], off
    silent = building.correct(
        "technogan", lambda: [audio, 0 * audio[:3]], statistics, **options
    )  # three clips of eleven
    for name in corrected.keys() - statistics.keys():
        np.testing.assert_allclose(silent[name], corrected[name], atol=0.15)
    again = building.correct("technogan", lambda: [audio[:5], audio[5:]], corrected, **options)
    assert all((again[name] == corrected[name]).all() for name in corrected)
    usual = {name: np.ones if name.endswith("swing") else np.zeros for name in corrected.keys() - statistics.keys()}
    usual = {name: make(corrected[name].shape) for name, make in usual.items()}
    np.testing.assert_array_equal(back(statistics | usual), before)  # statistics that an older version measured


@pytest.mark.parametrize("gate, least, most", [(0.2, 1.5, 2), (3.0, 0.5, 0.8)])
def test_corrected_sound_has_as_much_of_its_energy_in_lines_as_the_set(bars, gate, least, most):
    """By a shaper that asks for too little of them in the mid, and for too much; bars in hiss."""
    audio = bars + np.float32(np.random.default_rng(0).normal(0, 0.01, (*bars.shape[:2], 1)))
    statistics = known(audio, **TONES, shaper="new")[1] | codec.named_shaper(biased(mid_lines=gate))
    options = {name: value for name, value in SMALL.items() if name != "audio_channels"}
    corrected = building.correct("technogan", lambda: [audio[:4], audio[4:]], statistics, **options)
    assert corrected.keys() - statistics.keys() == {
        f"{part}_{what}" for part in ("mid", "side") for what in ("level", "swing", "tone")
    }
    for part in ("mid", "side"):
        assert corrected[f"{part}_tone"].min() >= 0.5 and corrected[f"{part}_tone"].max() <= 2
    farthest = corrected["mid_tone"][np.abs(np.log(corrected["mid_tone"])).argmax()]
    assert least <= farthest <= most

    def back(statistics):
        made = coder(statistics)
        return np.asarray(jax.jit(lambda audio: made.decode(made.encode(audio)))(audio))

    def share(sound):
        return np.asarray(pitch.line_shares(jnp.asarray(sound.mean(-1)), 8000, 16)).sum(1).mean()

    off = [abs(np.log(share(back(found)) / share(audio))) for found in (statistics, corrected)]
    assert off[1] < 0.8 * off[0], off
    usual = {name: np.ones_like(corrected[name]) for name in ("mid_tone", "side_tone")}
    # Statistics that an older version measured:
    np.testing.assert_array_equal(back(statistics | usual), back(statistics))


def test_statistics_are_sklearns_of_levels_and_waveform(bars, linear):
    """Levels by numpy and librosa's mel filters, the waveform by scipy's resampling."""
    _, statistics = linear
    n_fft, hop = 448, 224  # four frames in each of 16 steps of 896 samples, overlapping by half
    filters = librosa.filters.mel(sr=8000, n_fft=n_fft, n_mels=16, fmin=125)
    filters /= filters.sum(1, keepdims=True)
    below = np.r_[0, np.ones(6), np.zeros(218)][None] / 6  # of the side: 17.9 to 107 Hz
    window = scipy.signal.get_window("hann", n_fft)
    places = (np.arange(64)[:, None] * hop - (n_fft - hop) // 2 + np.arange(n_fft)) % 14336
    signals = dict(mid=bars.mean(-1, dtype=np.float64), side=(bars[..., 0] - bars[..., 1]).astype(np.float64) / 2)
    rows = {}
    for part, signal in signals.items():
        magnitude = np.abs(np.fft.rfft(signal[:, places] * window)) / (n_fft / 4)
        bands = filters if part == "mid" else np.concatenate([below, filters])
        rows[part] = np.log(magnitude @ bands.T + 1e-4).reshape(96, -1)
    low = np.fft.rfft(signals["mid"])
    low[:, 16 * 27 :] = 0
    rows["low"] = scipy.signal.resample(np.fft.irfft(low), 16 * 54, axis=-1)
    for distance in range(6):  # before and behind each boundary, a sixth of a lap of 54 // 8 samples after the other
        behind = np.arange(16) * 54 + distance
        before = (behind - 2 * distance - 1) % (16 * 54)
        angle = np.pi / 4 * (1 - np.sin(np.pi / 2 * (distance + 0.5) / 6))
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        rows["low"][:, [behind, before]] = np.einsum("ij,bjn->bin", turn, rows["low"][:, [behind, before]])
    rows["low"] = rows["low"].reshape(-1, 54)

    def weigh(part, values, factor):
        """What changes in the side from one to another of four frames so many times as large."""
        if part != "side":
            return values
        frames = values.reshape(96, 4, -1)
        mean = frames.mean(1, keepdims=True)
        return (mean + factor * (frames - mean)).reshape(96, -1)

    for part, count in (("mid", 12), ("side", 3), ("low", 10)):
        weighted = weigh(part, rows[part], 3)
        wanted = PCA(count, svd_solver="full").fit(weighted)
        variances = statistics[f"{part}_deviation"] ** 2 * 96 / 95  # scikit-learn's are the sample's
        np.testing.assert_allclose(statistics[f"{part}_mean"], rows[part].mean(0), atol=2e-4)
        np.testing.assert_allclose(variances, wanted.explained_variance_, rtol=2e-3)
        lost = weigh(part, weighted - wanted.inverse_transform(wanted.transform(weighted)), 1 / 3)
        lost = np.square(lost).mean(0)
        np.testing.assert_allclose(statistics[f"{part}_lost"], lost, rtol=2e-3, atol=2e-4)
        leading = statistics[f"{part}_basis"][:, :3]  # later ones may lie close together and turn
        np.testing.assert_allclose(np.abs((leading * wanted.components_[:3].T).sum(0)), 1, atol=2e-3)


def test_of_its_set_each_number_has_mean_zero_and_the_deviation_that_scale_says_and_none_goes_with_another(
    bars, linear
):
    made, statistics = linear
    x = np.asarray(jax.jit(made.encode)(bars)).reshape(-1, 27)
    np.testing.assert_allclose(
        (made.scale[:12] / made.scale[0]),
        (statistics["mid_deviation"] / statistics["mid_deviation"][0]) ** 0.75,
        rtol=1e-4,
    )
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-2)
    for part in (slice(0, 12), slice(12, 15), slice(15, 25), slice(25, 27)):
        np.testing.assert_allclose(np.cov(x[:, part].T, bias=True), np.diag(made.scale[part] ** 2), atol=2e-2)


def test_numbers_are_scaled_as_the_statistics_say_whatever_is_usual_now(bars, linear):
    made, statistics = linear
    other = building.build(
        "technogan", **SMALL | PARTS, statistics=statistics | {"side_scale": 3 * statistics["side_scale"]}
    )
    x, scaled = np.asarray(made.encode(bars[:2])), np.asarray(other.encode(bars[:2]))
    np.testing.assert_allclose(scaled[..., 12:15], 3 * x[..., 12:15], rtol=1e-5)
    np.testing.assert_array_equal(np.delete(scaled, range(12, 15), -1), np.delete(x, range(12, 15), -1))
    of_older = {name: value for name, value in statistics.items() if name != "side_scale"}
    with pytest.raises(ValueError, match="expected statistics with a side_scale; these are an older version's"):
        building.build("technogan", **SMALL | PARTS, statistics=of_older)


def test_turning_the_bar_by_a_sixteenth_turns_the_sequence_by_one_and_back():
    clip_samples = 14080  # brought to 14336 within
    audio = np.stack([bar(seed, SMALL | dict(clip_samples=clip_samples)) for seed in range(3)])
    made, _ = known(audio)
    encode, decode = jax.jit(made.encode), jax.jit(made.decode)
    x = encode(audio)
    turned = jnp.roll(audio, 3 * clip_samples // 16, 1)
    np.testing.assert_allclose(encode(turned), jnp.roll(x, 3, 1), atol=5e-3)
    sound = decode(x)
    again = decode(jnp.roll(x, 3, 1))
    np.testing.assert_allclose(again, jnp.roll(sound, 3 * clip_samples // 16, 1), atol=1e-3)


def below_100_hz(sound):
    """The mono low end of `[B, T, C]`."""
    return scipy.signal.sosfiltfilt(scipy.signal.butter(4, 100, fs=8000, output="sos"), sound.mean(-1))


def test_a_bar_comes_back_its_kick_as_a_waveform_and_without_a_seam(bars):
    made, _ = known(bars, mid_components=60, side_components=30, low_components=50)
    sound = np.asarray(jax.jit(lambda audio: made.decode(made.encode(audio)))(bars))
    for again, real in zip(sound, bars, strict=True):
        low, wanted = below_100_hz(again), below_100_hz(real)
        assert np.linalg.norm(low - wanted) / np.linalg.norm(wanted) < 0.1
        features = musical.measure(again, 8000, beats=4, loop=True)
        assert features["seam_db"] < 3 and features["kick_similarity"] > 0.99


def test_sixteenths_that_do_not_belong_together_still_join():
    """Of a bass, each sixteenth as loud as it likes: what jumps at a boundary is a small part of what jumped without a lap."""
    time = np.arange(16 * 54) / 54
    bass = np.sin(2 * np.pi * 6.3 * time).reshape(1, 16, 54)
    gain = np.random.default_rng(0).uniform(0, 1, (1, 16, 1))
    folded = codec.folded(jnp.float32(bass), 1)
    np.testing.assert_allclose(codec.folded(folded, -1), bass, atol=1e-5)
    np.testing.assert_allclose(jnp.sum(folded**2), np.sum(bass**2), rtol=1e-5)
    plain, lapped = gain * bass, np.asarray(codec.folded(gain * folded, -1))

    def rough(low):
        """The power of fourth differences across boundaries."""
        seams = [np.diff(np.roll(low.reshape(-1), 4 - 54 * i)[:8], 4) for i in range(16)]
        return np.square(seams).mean()

    assert rough(lapped) < 0.25 * rough(plain)


@pytest.mark.parametrize("turns", [6, 9])
def test_the_low_end_is_pictured_as_loud_as_it_is_wherever_it_lies_in_phase(turns):
    """Of a sixteenth; against numpy, frame by frame."""
    grid = codec.grid_of(14336, 8000, 1, SMALL["frames_per_step"])
    tones_of_all_kinds = np.random.default_rng(0).standard_normal((4, 14336, 1)).astype(np.float32)
    coder, _ = known(tones_of_all_kinds, low_components=grid.low_samples)
    places = np.arange(16 * grid.low_samples) / grid.low_samples

    def pictured(phase):
        tone = (0.3 * np.sin(2 * np.pi * (turns * places + phase))).astype(np.float32)
        sequence = np.zeros((1, 16, coder.components), np.float32)
        begin = PARTS["mid_components"]
        low = coder.code("low", codec.folded(jnp.asarray(tone).reshape(1, 16, -1), 1))
        sequence[..., begin : begin + grid.low_samples] = low
        return tone, np.asarray(coder.low_pictures(sequence))[0, 8]

    (tone, now), (_, late) = pictured(0), pictured(1 / 3)
    np.testing.assert_allclose(now, late, atol=0.05)
    wanted = []
    for size, frames in ((108, 1), (54, 2), (27, 4)):
        for i in range(frames):
            centre = 8 * 54 + (i + 0.5) * 54 / frames
            inside = np.flatnonzero(np.abs(np.arange(len(tone)) + 0.5 - centre) < size / 2)
            place = (inside + 0.5 - centre) / size
            window = np.cos(np.pi * place) ** 2
            waves = np.exp(-2j * np.pi * place * np.arange(1, size // 2 + 1)[:, None])
            wanted += [*np.abs(waves @ (window * tone[inside]) * 2 / window.sum())]
    wanted = (np.log(np.hypot(wanted, 0.003)) + 3) / 2
    assert len(wanted) == coder.low_pictured
    np.testing.assert_allclose(now, wanted, atol=1e-3)
    assert now[2 * turns - 1] == pytest.approx((np.log(0.3) + 3) / 2, abs=1e-3)  # of the first, two sixteenths long


def test_of_the_low_end_that_comes_back_which_its_components_keep(bars, linear):
    made, statistics = linear
    sound = np.asarray(jax.jit(lambda audio: made.decode(made.encode(audio)))(bars))
    lost = np.square(below_100_hz(sound) - below_100_hz(bars)).sum() / np.square(below_100_hz(bars)).sum()
    kept, left_out = np.square(statistics["low_deviation"]).sum(), statistics["low_lost"].sum()
    assert lost == pytest.approx(left_out / (kept + left_out), abs=0.02)


def test_noise_comes_back_as_loud_in_each_band():
    audio = np.random.default_rng(0).normal(0, [0.1, 0.03], (6, 14336, 2)).astype(np.float32)
    audio = scipy.signal.sosfilt(scipy.signal.butter(1, 800, fs=8000, output="sos"), audio, axis=1).astype(np.float32)
    made, _ = known(audio)
    again = np.asarray(jax.jit(lambda audio: made.decode(made.encode(audio)))(audio))
    powers = [np.square(np.abs(np.fft.rfft(codec.mid_and_side(x)))) for x in (again, audio)]
    bands = [power[..., 540:7164].reshape(6, 2, 12, -1).mean((0, 3)) for power in powers]  # from 300 Hz up
    np.testing.assert_allclose(10 * np.log10(bands[0] / bands[1]), 0, atol=1.5)


def test_levels_come_back_with_the_power_of_the_noise_that_is_lost(linear, monkeypatch):
    """With levels spread by a variance v about m the mean power is exp(2 m + 2 v), of a log-normal distribution."""
    given, magnitudes = [], []
    resynthesize = spectral.resynthesize_circular

    def overheard(function, audio, controls, n_fft, hop, *, before, **rest):
        spectra = spectral.stft_circular(audio, n_fft, hop)
        made = function(jnp.concatenate([spectra[:, :, -before:], spectra], 2), controls)
        magnitudes.append(jnp.abs(jnp.stack(made, 1)))
        return resynthesize(function, audio, controls, n_fft, hop, before=before, **rest)

    monkeypatch.setattr(spectral, "resynthesize_circular", overheard)

    def magnitude(statistics, x):
        coder(statistics).decode(x)
        return magnitudes.pop()

    for lost in (0, 0.5):
        statistics = linear[1] | {f"{part}_mean": np.full(64 + 4 * (part == "side"), -2.0) for part in ("mid", "side")}
        statistics |= {f"{part}_lost": np.full(64 + 4 * (part == "side"), lost) for part in ("mid", "side")}
        given.append(jax.jit(functools.partial(magnitude, statistics))(np.zeros((1, 16, 27), np.float32)))
    given = np.asarray(given)
    heard = given[0] > 1e-3
    assert given[0].shape == (1, 2, 128, 225) and heard.mean() > 0.5
    louder = (np.exp(-1.5) - 1e-4) / (np.exp(-2) - 1e-4)
    np.testing.assert_allclose(given[1][heard] / given[0][heard], louder, rtol=1e-3)


def test_the_side_of_mono_stays_silent_whatever_the_generator_makes_of_it(bars):
    made, statistics = known(np.repeat(bars[..., :1], 2, -1))
    assert statistics["side_deviation"].max() < 1e-3
    x = np.random.default_rng(0).normal(0, 3, (2, 16, 27)).astype(np.float32)
    sound = np.asarray(jax.jit(made.decode)(x))
    assert np.isfinite(sound).all() and np.abs(sound[..., 0] - sound[..., 1]).max() < 1e-3 < np.abs(sound).max()


def test_mono_has_no_side_and_wild_numbers_stay_finite(bars):
    made, statistics = known(bars[..., :1])
    assert not any(name.startswith("side") for name in statistics)
    sound = np.asarray(jax.jit(made.decode)(np.full((1, 16, 22), 1e3, np.float32)))
    assert sound.shape == (1, 14336, 1) and np.isfinite(sound).all()


def test_without_clips_there_are_no_statistics_and_without_statistics_no_audio(bars, linear):
    options = {name: value for name, value in SMALL.items() if name != "audio_channels"}
    with pytest.raises(ValueError, match="expected clips to measure, got none"):
        building.measure("technogan", [], **options)
    with pytest.raises(ValueError, match="clip_samples = 14336, got 14000; .* --grid bars --bars 1"):
        building.measure("technogan", [bars[:, :14000]], **options)
    with pytest.raises(ValueError, match="no statistics of the training set"):
        coder(None).encode(bars)
    with pytest.raises(ValueError, match=r"a mid_basis of \(64, 20\), got \(64, 12\)"):
        building.build("technogan", **SMALL | PARTS | dict(mid_components=20), statistics=linear[1])


# ------------------------------------------------------------------------------------------------------------- shaping


def test_the_spectrum_of_noise_has_a_mean_square_of_one():
    grid = codec.grid_of(14336, 8000, 1, 4)
    noise = jax.random.normal(KEY, (8, 2, 14336))
    spectrum = spectral.noise_power(grid.n_fft) ** -0.5 * spectral.stft_circular(noise, grid.n_fft, grid.hop_length)
    power = np.square(np.abs(spectrum))[..., 2:-2].mean()
    assert power == pytest.approx(1, abs=0.02)


def biased(**gates):
    """A shaper whose gates are these, the same in all bands and at all times."""
    params = jax.tree.map(np.array, codec.shaper(16).init(KEY))
    names = [f"{part}_{name}" for part, all_names in codec._GATES.items() for name in all_names]
    for name, value in gates.items():
        params["gates"]["bias"].reshape(-1, 16)[names.index(name)] = value
    return params


def test_gates_multiply_what_they_are_named_after(toned, bars):
    made = coder(toned[1] | dict(pan_mean=np.zeros(8), pan_basis=np.zeros((8, 2))))  # nothing of the mid in the side
    x, noise = jax.jit(made.encode)(bars[:2]), jax.random.normal(KEY, (2, 2, 14336))
    play = jax.jit(made.play)
    plain = play(None, x, noise)
    above = functools.partial(scipy.signal.sosfiltfilt, scipy.signal.butter(8, 400, "high", fs=8000, output="sos"))

    def change(**gates):
        return [np.std(above(np.asarray(sound - plain)), (0, 2)) for sound in [play(biased(**gates), x, noise)]][0]

    loudness = np.std(above(np.asarray(plain)), (0, 2))
    np.testing.assert_allclose(change(mid_noise=np.log(2)), [loudness[0], 0], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(change(side_noise=np.log(3)), [0, 2 * loudness[1]], rtol=1e-3, atol=1e-6)
    for name in ("square", "rectified", "pulse", "pitch"):
        mid, side = change(**{f"mid_{name}": 1.0})
        assert 0.2 * loudness[0] < mid < 3 * loudness[0] and side < 1e-6
    for name in ("square", "delayed"):
        mid, side = change(**{f"side_{name}": 1.0})
        assert mid < 1e-6 and 0.1 * loudness[1] < side < 3 * loudness[1]


def test_the_peak_of_a_line_is_in_the_band_that_a_sine_there_is_loudest_in(bars):
    """By as many components as there are features, so that none is left out."""
    made, statistics = known(bars, **TONES | dict(mid_components=64, side_components=68), shaper="new")
    grid, time_s = codec.grid_of(14336, 8000, 1, 4), np.arange(14336)[:, None] / 8000
    filters = codec._bands(14336, 8000, grid, 16)
    for part, lowest_hz, channels in (("mid", 220, [1, 1]), ("side", 125, [1, -1])):
        basis, deviation, scale, within = (
            statistics[f"{part}_{name}"] for name in ("basis", "deviation", "scale", "within")
        )
        deviation = np.maximum(deviation, codec._LEAST_DEVIATION)
        read = codec._weigh((deviation / scale * basis).T, 4, 1 / float(within))
        for band in (4, 7, 10):
            line = round(60 * np.log2(filters[part][band].argmax() * 8000 / grid.n_fft / lowest_hz))
            sine = np.float32(np.sin(2 * np.pi * lowest_hz * 2 ** (line / 60) * time_s) * channels)
            heard = codec._features(sine[None], grid, filters, 8000, toned=False)[part]
            levels = (made.peaks(part)[line] @ read).reshape(4, -1)
            loudest = np.asarray(heard).reshape(-1, levels.shape[1]).mean(0).argmax()
            assert loudest == band and (levels.argmax(1) == band).all()
            np.testing.assert_allclose(levels[:, band], 1, atol=0.05)


def test_noise_gives_way_where_pulses_have_most_of_the_power():
    noise, swells = jnp.log(jnp.full((1, 4, 2), 0.5)), jnp.zeros((1, 2, 4 * codec._SWELLS))
    swells = swells.at[:, 0, : codec._SWELLS].set(np.log(20.0))  # in the first frame noise is loud after all
    pitch = jnp.stack([jnp.full((1, 4), 5.0), jnp.zeros((1, 4))], -1)
    less = np.asarray(noise - codec._less_noise(noise, pitch, swells))[0]
    share = np.array([25 / (25 + 100), *[25 / (25 + 0.25)] * 3])
    np.testing.assert_allclose(less, np.stack([share**2, np.zeros(4)], -1) * codec._LESS_NOISE, rtol=1e-5)


def test_a_voice_comes_back_as_a_voice():
    """Sawtooths behind a low-pass, one a sixteenth, through the codec that comes with the package; noise stays noise."""
    trained = generator.load(ROOT / "technogen_jax" / "pretrained" / "technogan.npz")
    samples, steps = trained.config.audio.clip_samples, 16 * trained.config.model.bars
    rng, time_s = np.random.default_rng(0), np.arange(samples // steps) / 44100
    envelope = np.exp(-4 * time_s) * np.clip(np.minimum(time_s / 0.003, (time_s[-1] - time_s) / 0.01), 0, 1)
    notes = []
    for semitones in rng.integers(12, 36, steps):
        hz = 55 * 2 ** (semitones / 12) * np.arange(1, 40)[:, None]
        notes.append(np.sum(np.sin(2 * np.pi * hz * time_s) / hz / (1 + (hz / 1500) ** 2), 0) * envelope)
    hiss = rng.standard_normal(samples)
    voice = 0.3 * np.concatenate(notes) / np.abs(notes).max() + 0.003 * hiss
    labels = np.full((1, len(trained.gan.classes)), 1 / len(trained.gan.classes), np.float32)
    back = jax.jit(lambda audio: trained.gan.decode(trained.gan.encode(audio, labels)))
    band = scipy.signal.butter(4, [800, 3000], "band", fs=44100, output="sos")

    def periodic(sound):
        """Of each sixteenth the highest of its autocorrelation from 55 to 500 Hz, 1 for what repeats exactly."""
        parts = scipy.signal.sosfiltfilt(band, sound).reshape(steps, -1)
        window = np.hanning(parts.shape[1])
        of_parts, of_window = (
            np.fft.irfft(np.abs(np.fft.rfft(x, 4 * len(window))) ** 2) for x in (parts * window, window)
        )
        return (of_parts[:, 88:800] / of_parts[:, :1] * of_window[0] / of_window[88:800]).max(1)

    for sound, least, most in ((voice, 0.9, 1.01), (0.1 * hiss, 0.1, 0.4)):
        (again,) = np.asarray(back(np.float32(sound)[None, :, None].repeat(2, -1)))
        assert least < np.quantile(periodic(again.mean(-1)), 0.25) < most


def test_a_tone_that_stands_in_the_side_alone_comes_back_as_one(bars):
    """Below where the mid's lines begin, and with a gate of noise it is as broad as its band."""
    hz = np.round([150, 210, 330, 440, 520, 660] / np.float64(8000 / 14336)) * 8000 / 14336
    tone = 0.05 * np.sin(2 * np.pi * hz[:, None] * np.arange(14336) / 8000)[..., None]
    audio = (bars.mean(-1, keepdims=True) + tone * [1, -1]).astype(np.float32)
    made, _ = known(audio, **TONES | dict(side_partial_components=6), shaper="new")
    x, noise = jax.jit(made.encode)(audio), jax.random.normal(KEY, (6, 2, 14336))
    play = jax.jit(made.play)

    def share(**gates):
        power = np.abs(np.fft.rfft(np.asarray(play(biased(**gates), x, noise))[:, 1])) ** 2
        bins = np.round(hz * 14336 / 8000).astype(int)
        return np.array([row[at - 9 : at + 10].sum() / row.sum() for row, at in zip(power, bins, strict=True)])

    assert share(side_noise=-8.0, side_lines=1.0).min() > 0.6 > 0.4 > share().max()


def test_the_shaper_among_the_statistics_is_used_and_mono_is_shaped_too(bars, toned):
    for channels, (made, statistics) in ((1, known(bars[..., :1], **TONES, shaper="new")), (2, toned)):
        shaped = coder(statistics | codec.named_shaper(biased(mid_noise=np.log(2))), channels)
        x = jax.jit(made.encode)(bars[..., :channels])
        sounds = [np.asarray(jax.jit(each.decode)(x)).mean(-1) for each in (made, shaped)]
        above = scipy.signal.butter(8, 600, "high", fs=8000, output="sos")
        plain, louder = (scipy.signal.sosfiltfilt(above, sound).std() for sound in sounds)
        assert louder == pytest.approx(2 * plain, rel=0.02)


def test_clips_on_end_sound_as_one(linear, bars):
    """In the middle of a clip: what is below the crossover is a sinc's reach from its neighbours."""
    made, statistics = linear
    x = jax.jit(made.encode)(bars[:3])
    together = jax.jit(coder(statistics, count=3).decode)(jnp.concatenate(list(x))[None])
    apart = jax.jit(made.decode)(x)
    for index in range(3):
        middle = slice(3000, 11000)
        np.testing.assert_allclose(together[0, 14336 * index :][middle], apart[index][middle], atol=2e-3)


# --------------------------------------------------------------------------------------------------- the shipped shaper


def test_the_shipped_shaper_is_one_and_shapes():
    found = codec._read_shaper("shipped", 44100, 8, 96)
    params = codec.shaper_of(found)
    wanted = jax.eval_shape(codec.shaper(96).init, KEY)
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, wanted)
    assert all(np.isfinite(value).all() for value in found.values())
    assert np.abs(params["gates"]["kernel"]).max() > 0.01  # a new one's are zero
    assert codec._read_shaper("none", 8000, 4, 16) == {}


def test_a_shaper_for_another_grid_or_no_shaper_is_an_error(tmp_path):
    with pytest.raises(
        ValueError, match="config.model.shaper: expected 8 frames_per_step, 96 n_mels .* got 8, 96 and 16000"
    ):
        codec._read_shaper("shipped", 16000, 8, 96)
    with pytest.raises(ValueError, match="expected shipped, none, new or a file, got '.*absent.npz'"):
        codec._read_shaper(str(tmp_path / "absent.npz"), 44100, 8, 96)
    array_files.write(tmp_path / "other.npz", {"a": np.zeros(3)})
    with pytest.raises(ValueError, match="other.npz: expected a shaper, as in the statistics.npz of a run"):
        codec._read_shaper(str(tmp_path / "other.npz"), 44100, 8, 96)


def test_however_wild_the_numbers_no_sample_is_above_the_ceiling(linear):
    x = np.random.default_rng(0).normal(0, 5, (2, 16, 27)).astype(np.float32)
    sound = np.asarray(jax.jit(linear[0].decode)(x))
    assert np.abs(sound).max() == pytest.approx(10 ** (-0.5 / 20), rel=1e-3)


def mix(count, curve=(0, 0, 0, 0), bass=0.0, width=0.0, swapped=False):
    """The same mix for so many clips."""
    return codec.Mix(
        jnp.tile(jnp.array(curve, jnp.float32), (count, 1)),
        jnp.full(count, bass),
        jnp.full(count, width),
        jnp.full(count, swapped),
    )


def noisy(bars):
    """Bars with noise, so that no band is silent."""
    return bars + 0.5 * np.random.default_rng(3).standard_normal(bars.shape).astype(np.float32)


def test_a_remixed_sequence_is_that_of_the_audio_when_it_is_mixed_so(bars):
    audio = noisy(bars)
    one, _ = known(audio)
    sequence = one.encode(audio)
    swapped = one.remix(sequence, mix(6, swapped=True))
    np.testing.assert_allclose(swapped, one.encode(audio[..., ::-1]), atol=2e-3)
    gain, width = 0.3, -0.4  # nepers
    mid, side = np.moveaxis(codec.mid_and_side(jnp.asarray(audio)), 1, 0)
    mid, side = np.exp(gain) * mid, np.exp(gain + width) * side
    wanted = one.encode(np.stack([mid + side, mid - side], -1))
    found = one.remix(sequence, mix(6, (gain, 0, 0, 0), gain, width))
    assert jnp.abs(wanted - sequence).max() > 0.5
    np.testing.assert_allclose(found, wanted, atol=0.02)  # the floor of levels is not moved


def test_an_equaliser_lifts_what_lies_low_and_lowers_what_lies_high(bars):
    audio = noisy(bars)
    one, _ = known(audio, mid_components=64, side_components=68)  # all there are
    tilt_db = 6.0
    plain = one.encode(audio)
    bent = one.remix(plain, mix(6, (0, tilt_db * np.log(10) / 20, 0, 0)))
    change = np.mean(
        [
            musical.ltas_db(b, 8000, loop=True) - musical.ltas_db(a, 8000, loop=True)
            for a, b in zip(*map(one.decode, (plain, bent)), strict=True)
        ],
        0,
    )
    assert change[-1] < -0.75 * tilt_db and change[10] > 0.5 * tilt_db  # the eleventh third of an octave is 250 Hz


def test_pictures_are_means_of_levels(bars):
    made, statistics = known(bars, mid_components=64, side_components=68)  # all there are
    found = np.asarray(made.pictures(made.encode(bars)))
    assert found.shape == (6, 16, 4, 2 * 8) and made.pictured == 16
    levels = made.encode(bars)[..., :64] / made.scale[:64] * statistics["mid_deviation"] @ statistics["mid_basis"].T
    levels = np.asarray(levels) + statistics["mid_mean"]
    wanted = levels.reshape(6, 16, 4, 8, 2).mean(-1)  # sixteen bands in eight groups
    np.testing.assert_allclose(found[..., :8], wanted, atol=1e-3)
    assert found[..., 8:].std((0, 1)).min() > 0.01  # the side's


def test_mixes_are_drawn_apart_and_centred():
    drawn = codec.draw_mix(KEY, 4000)
    for values in (*drawn.curve.T, drawn.bass, drawn.width):
        assert abs(values.mean()) < 0.02 and 0.2 < values.std() < 0.4
    assert 0.45 < drawn.swapped.mean() < 0.55
    assert np.abs(np.corrcoef(np.c_[drawn.curve, drawn.bass, drawn.width, drawn.swapped].T) - np.eye(7)).max() < 0.08


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_clips_is_mixed_otherwise_and_the_others_are_as_they_were_to_the_bit(linear, share):
    drawn = codec.draw_mix(KEY, 2000, share)
    is_mixed = np.asarray(drawn.bass != 0)
    assert is_mixed.mean() == pytest.approx(share, abs=0.03)
    x = jax.random.normal(KEY, (2000, 16, linear[0].components))
    changed = np.any(np.asarray(linear[0].remix(x, drawn) != x), (1, 2))
    np.testing.assert_array_equal(changed, is_mixed)


def test_nothing_that_is_not_heard_comes_out(linear):
    """A generator may put anything into the waveform below the crossover."""
    x = 3 * jax.random.normal(KEY, (2, 16, linear[0].components))
    power = np.abs(np.fft.rfft(np.asarray(linear[0].decode(x)).mean(-1))) ** 2
    frequencies_hz = np.fft.rfftfreq(14336, 1 / 8000)
    assert power[:, frequencies_hz < 8].sum() < 1e-4 * power.sum()  # what the limiter's gain leaves
