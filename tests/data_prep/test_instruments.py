import dataclasses

import numpy as np
import pytest
from scipy import signal

from data_prep.corpus import drums, effects, filters, synthesizer

RATE_HZ = 44100
KICK = drums.KickParameters(
    tune_hz=50.0,
    sweep_hz=150.0,
    sweep_s=0.025,
    zap_hz=1000.0,
    hold_s=0.05,
    decay_s=0.15,
    click=0.3,
    drive=2.0,
    bias=0.0,
    tone_hz=6000.0,
)
HAT = dict(base_hz=500.0, spread=5.0, metal=0.5, cut_hz=7000.0, decay_s=0.05, drive=1.0)
CYMBAL = dict(base_hz=500.0, spread=9.0, metal=0.5, cut_hz=4000.0, decay_s=0.3, ping=0.5)
CLAP = dict(centre_hz=1200.0, bandwidth=1.5, bursts=3, spacing_s=0.011, decay_s=0.1, drive=1.0)
SNARE = dict(tune_hz=190.0, snap=0.6, cut_hz=2000.0, decay_s=0.09)
METAL = dict(tune_hz=400.0, ratio=1.73, index=3.0, decay_s=0.15, drive=2.0)
ONE_SHOTS = {
    "kick": (drums.kick, dict(p=KICK)),
    "hat": (drums.hat, HAT),
    "cymbal": (drums.cymbal, CYMBAL),
    "clap": (drums.clap, CLAP),
    "snare": (drums.snare, SNARE),
    "tom": (drums.tom, dict(tune_hz=90.0, decay_s=0.15)),
} | {f"metal_{kind}": (function, METAL) for kind, function in drums.METAL.items()}


def _draw(seed=0):
    return np.random.default_rng(seed)


def _noise(samples, seed=0):
    return _draw(seed).standard_normal(samples, np.float32)


def _steady(value, samples):
    return np.full(samples // filters.CONTROL_SAMPLES + 2, value, np.float32)


def _impulse(samples, height=1.0):
    audio = np.zeros(samples, np.float32)
    audio[0] = height
    return audio


def _energy_share(audio, low_hz, high_hz, rate_hz=RATE_HZ):
    audio = np.atleast_2d(audio)
    hz = np.fft.rfftfreq(audio.shape[1], 1 / rate_hz)
    power = (np.abs(np.fft.rfft(audio)) ** 2).sum(axis=0)
    return power[(hz >= low_hz) & (hz < high_hz)].sum() / power.sum()


# ---------------------------------------------------------------------------------------------------------- one-shots


@pytest.mark.parametrize("rate_hz", [8000, 16000, 44101, 96000, 192000])
@pytest.mark.parametrize("name", ONE_SHOTS)
def test_one_shots_work_at_any_sampling_rate(name, rate_hz):
    function, parameters = ONE_SHOTS[name]
    sound = function(_draw(), rate_hz, **parameters)
    assert sound.dtype == np.float32 and sound.ndim == (2 if name in ("cymbal", "clap") else 1)
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() == pytest.approx(1, abs=1e-6)
    assert np.abs(sound[..., -1]).max() < 1e-3  # no click at its end
    early = np.atleast_2d(np.abs(sound))[:, : round(0.06 * rate_hz)]
    assert early.max() > 0.5  # and no delay before it starts
    np.testing.assert_array_equal(sound, function(_draw(), rate_hz, **parameters))


@pytest.mark.parametrize("tune_hz", [42.0, 50.0, 58.0])
def test_kick_frequency_falls_to_tune_and_attack_is_immediate(tune_hz):
    sound = drums.kick(_draw(), RATE_HZ, dataclasses.replace(KICK, tune_hz=tune_hz))
    tail = sound[round(0.15 * RATE_HZ) : round(0.5 * RATE_HZ)]
    rising = np.flatnonzero((tail[:-1] < 0) & (tail[1:] >= 0))
    period = np.diff(rising).mean()
    assert RATE_HZ / period == pytest.approx(tune_hz, rel=0.03)
    first = sound[: round(0.01 * RATE_HZ)]
    crossings = np.count_nonzero(np.diff(np.sign(first)))
    assert crossings > 2  # the attack is much higher than the tail: 10 ms are half a period of it
    assert np.abs(sound[: round(0.003 * RATE_HZ)]).max() > 0.2


def test_kick_drive_adds_harmonics():
    shares = []
    for drive in (0.5, 5.0, 25.0):
        sound = drums.kick(_draw(), RATE_HZ, dataclasses.replace(KICK, drive=drive, click=0.0))
        tail = sound[round(0.1 * RATE_HZ) : round(0.5 * RATE_HZ)]
        shares.append(_energy_share(tail * np.hanning(len(tail)), 120, 2000))
    assert shares[0] < 0.01 < shares[1] < shares[2]


def test_hats_are_above_5_khz_and_open_hat_decays_longer():
    closed = drums.hat(_draw(), RATE_HZ, **HAT | {"decay_s": 0.02})
    opened = drums.hat(_draw(), RATE_HZ, **HAT | {"decay_s": 0.2})
    assert _energy_share(closed, 5000, RATE_HZ) > 0.9 and _energy_share(opened, 5000, RATE_HZ) > 0.9

    def ringing_s(sound):
        energy = np.cumsum(sound[::-1] ** 2)[::-1]
        return np.count_nonzero(energy > 0.01 * energy[0]) / RATE_HZ

    assert ringing_s(opened) > 5 * ringing_s(closed)


def test_clap_has_the_given_number_of_bursts():
    sound = drums.clap(_draw(), RATE_HZ, **CLAP | {"bursts": 4, "decay_s": 0.05}).mean(axis=0)
    level = np.convolve(sound**2, np.ones(40) / 40, "same")
    spacing = round(CLAP["spacing_s"] * RATE_HZ)
    for burst in range(1, 4):
        before = level[burst * spacing - 120 : burst * spacing - 20].mean()
        after = level[burst * spacing + 20 : burst * spacing + 120].mean()
        assert after > 3 * before


# -------------------------------------------------------------------------------------------------------- synthesiser


@pytest.mark.parametrize("shape", [0.0, 1.0])
def test_oscillator_has_the_given_frequency_and_little_aliasing(shape):
    hz, samples = 1234.5, RATE_HZ
    starts, still = np.array([0, samples]), np.zeros(1, bool)
    wave = synthesizer.oscillator(starts, np.array([hz]), still, 0.02, shape, float(RATE_HZ))
    t = np.arange(samples) / RATE_HZ
    naive = 2 * (hz * t % 1) - 1 if shape == 0 else np.sign(0.5 - hz * t % 1)
    window = signal.windows.blackmanharris(samples)
    bins_hz = np.fft.rfftfreq(samples, 1 / RATE_HZ)
    distance = np.abs(bins_hz / hz - np.round(bins_hz / hz)) * hz
    between = (distance > 10) & (bins_hz > 10) & (bins_hz < 5000)

    def aliases(audio):
        power = np.abs(np.fft.rfft(audio * window)) ** 2
        return power[between].sum() / power.sum()

    assert bins_hz[np.argmax(np.abs(np.fft.rfft(wave * window)))] == pytest.approx(hz, abs=1)
    assert aliases(wave) < 0.03 * aliases(naive)
    assert abs(wave.mean()) < 0.01
    if shape == 1:  # a square has odd harmonics only
        spectrum = np.abs(np.fft.rfft(wave * window))
        assert spectrum[np.abs(bins_hz - 2 * hz) < 5].max() < 1e-3 * spectrum.max()


def test_oscillator_glides_only_into_slides():
    starts, hz = np.array([0, 11025, 22050]), np.array([200.0, 400.0])

    def just_after(slides):
        wave = synthesizer.oscillator(starts, hz, np.array([False, slides]), 0.05, 0.0, float(RATE_HZ))
        piece = wave[11025 : 11025 + 2205]  # 50 ms: 20 periods of 400 Hz
        return np.count_nonzero((piece[:-1] > 0) & (piece[1:] <= 0)) / 0.05

    assert just_after(False) == pytest.approx(400, abs=25)
    assert 250 < just_after(True) < 350


@pytest.mark.parametrize("rate_hz", [16000, 44100, 96000])
@pytest.mark.parametrize(("cutoff_hz", "resonance"), [(200, 0.0), (1000, 2.0), (3000, 3.6)])
def test_ladder_matches_its_transfer_function_for_small_signals(rate_hz, cutoff_hz, resonance):
    samples = 1 << 16
    out = synthesizer.ladder(
        _impulse(samples, 1e-2), _steady(cutoff_hz, samples), _steady(resonance, samples), float(rate_hz)
    )
    hz = np.fft.rfftfreq(samples, 1 / rate_hz)[:-1]
    response = np.fft.rfft(out.astype(np.float64))[:-1] / 1e-2
    s = 1j * np.tan(np.pi * hz / rate_hz) / np.tan(np.pi * cutoff_hz / rate_hz)
    expected = 1 / ((1 + s) ** 4 + resonance)
    np.testing.assert_allclose(response, expected, atol=1e-3 * np.abs(expected).max())


def test_ladder_peaks_at_cutoff_and_stays_bounded():
    cutoff_hz, samples = 1500, 1 << 16
    out = synthesizer.ladder(
        _impulse(samples, 1e-2), _steady(cutoff_hz, samples), _steady(3.8, samples), float(RATE_HZ)
    )
    peak_hz = np.argmax(np.abs(np.fft.rfft(out))) * RATE_HZ / samples
    assert peak_hz == pytest.approx(cutoff_hz, rel=0.03)
    loud = synthesizer.ladder(20 * _noise(samples), _steady(cutoff_hz, samples), _steady(3.95, samples), float(RATE_HZ))
    assert np.abs(loud).max() < 2


def test_ladder_follows_a_rising_cutoff():
    samples = 1 << 16
    cutoff_hz = np.geomspace(100, 8000, samples // filters.CONTROL_SAMPLES + 2).astype(np.float32)
    out = synthesizer.ladder(0.1 * _noise(samples), cutoff_hz, _steady(0.0, samples), float(RATE_HZ))
    levels = [piece.std() for piece in np.split(out, 4)]
    assert all(later > 1.5 * earlier for earlier, later in zip(levels, levels[1:], strict=False))


@pytest.mark.parametrize("kind", ["low", "high"])
def test_sweep_with_constant_cutoff_is_a_butterworth_filter(kind):
    samples, cutoff_hz = 8192, 700
    shares = (1.0, 0.0, 0.0) if kind == "low" else (0.0, 0.0, 1.0)
    out = synthesizer.sweep(_noise(samples), _steady(cutoff_hz, samples), 2**-0.5, *shares, float(RATE_HZ))
    sos = signal.butter(2, cutoff_hz, f"{kind}pass", fs=RATE_HZ, output="sos")
    np.testing.assert_allclose(out, signal.sosfilt(sos, _noise(samples).astype(np.float64)), atol=1e-5)


def test_sweep_outputs_sum_to_the_input():
    samples = 8192
    cutoff_hz = np.geomspace(50, 15000, samples // filters.CONTROL_SAMPLES + 2).astype(np.float32)
    out = synthesizer.sweep(_noise(samples), cutoff_hz, 3.0, 1.0, 1.0, 1.0, float(RATE_HZ))
    np.testing.assert_allclose(out, _noise(samples), atol=1e-5)


def test_saturate_follows_its_curve_with_less_aliasing():
    steady = np.linspace(-3, 3, 7, dtype=np.float32)[:, None] * np.ones(4, np.float32)
    expected = 2 * steady / np.sqrt(1 + 4 * steady**2)
    np.testing.assert_allclose(synthesizer.saturate(steady, 2.0), expected, rtol=1e-6)

    samples, hz = 1 << 15, 4001.0
    tone = np.sin(2 * np.pi * hz * np.arange(samples) / RATE_HZ).astype(np.float32)
    bins_hz = np.fft.rfftfreq(samples, 1 / RATE_HZ)
    below = (bins_hz > 20) & (bins_hz < hz - 50)  # the first harmonic is hz: below it everything is an alias

    def aliases(audio):
        return (np.abs(np.fft.rfft(audio * np.blackman(samples))) ** 2)[below].sum()

    plain = 10 * tone / np.sqrt(1 + 100 * tone**2)
    assert aliases(synthesizer.saturate(tone, 10.0)) < 0.1 * aliases(plain)


# -------------------------------------------------------------------------------------------------------------- space


@pytest.mark.parametrize("decay_s", [0.7, 2.0])
def test_reverb_has_the_given_decay_time(decay_s):
    samples = round(1.2 * decay_s * RATE_HZ)
    room = effects.reverb(_impulse(samples), RATE_HZ, size_s=0.05, decay_s=decay_s, damping_hz=1e9, low_cut_hz=20.0)
    level = 10 * np.log10(np.cumsum((room**2).sum(axis=0)[::-1])[::-1])  # Schroeder's backward integral
    t = np.arange(samples) / RATE_HZ
    steady = (t > 0.1 * decay_s) & (t < 0.7 * decay_s)
    slope = np.polyfit(t[steady], level[steady], 1)[0]
    assert -60 / slope == pytest.approx(decay_s, rel=0.1)
    assert abs(np.corrcoef(room)[0, 1]) < 0.3  # two sides, not one


def test_reverb_removes_bass_and_high_frequencies_decay_first():
    room = effects.reverb(_impulse(3 * RATE_HZ), RATE_HZ, size_s=0.08, decay_s=2.0, damping_hz=3000)
    assert _energy_share(room, 0, 80) < 0.01
    early, late = room[:, RATE_HZ // 10 : RATE_HZ // 2], room[:, RATE_HZ : 2 * RATE_HZ]
    assert _energy_share(late, 4000, RATE_HZ) < 0.3 * _energy_share(early, 4000, RATE_HZ)


def test_echoes_match_a_feedback_comb_filter():
    audio, delay, feedback = _noise(4000), 173, 0.7
    expected = signal.lfilter([0] * delay + [1], [1] + [0] * (delay - 1) + [-feedback], audio.astype(np.float64))
    np.testing.assert_allclose(effects.echoes(audio, delay, feedback), expected, atol=1e-5)


def test_ping_pong_alternates_between_channels():
    delay, feedback = 5000, 0.6
    wide_open = dict(high_cut_hz=1e9, low_cut_hz=0.01)
    out = effects.ping_pong(_impulse(4 * delay + 2000), RATE_HZ, delay_samples=delay, feedback=feedback, **wide_open)
    bound = 1 - np.exp(-2 * np.pi * 0.45)  # the most open that the filter gets, at the echo itself
    for echo in range(1, 5):
        heard, other = out[(echo - 1) % 2], out[echo % 2]
        place = delay * echo
        returns = (echo + 1) // 2  # through the high cut
        assert heard[place] == pytest.approx(feedback ** (echo - 1) * bound**returns, rel=1e-3)
        assert abs(other[place]) < 1e-4


def test_rumble_is_a_seamless_low_frequency_loop():
    kick = drums.kick(_draw(), RATE_HZ, KICK)
    samples = 75_600
    hits = [(samples * beat // 4, 1.0) for beat in range(4)]
    loop = effects.rumble(kick, hits, samples, RATE_HZ, _draw(), decay_s=0.3, cut_hz=110.0, drive=2.0)
    assert len(loop) == samples
    assert np.sqrt(np.mean(loop**2)) == pytest.approx(1, rel=1e-3)
    assert _energy_share(loop, 20, 300) > 0.97
    assert abs(loop[0] - loop[-1]) <= np.abs(np.diff(loop)).max()


def test_texture_has_the_given_spectrum():
    noise = effects.texture(_draw(), RATE_HZ, centre_hz=2000.0, tilt=2.0)
    assert noise.dtype == np.float32 and noise.shape[0] == 2 and noise.shape[1] >= 4 * RATE_HZ
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1, rel=1e-3)
    assert _energy_share(noise, 1000, 4000) > 0.6
    assert _energy_share(noise, 0, 150) < 1e-6


def test_limit_limits_in_place_and_removes_dc():
    audio = 3 * _noise(20000).reshape(2, 10000) + 0.5
    louder = 1.5 * audio.astype(np.float64)
    expected = signal.lfilter([1, -1], [1, -0.999], louder / (1 + louder**4) ** 0.25)
    peak = effects.limit(audio, np.float32(1.5), np.float32(0.999))
    np.testing.assert_allclose(audio, expected, atol=2e-5)
    assert peak == np.abs(audio).max()
    assert np.abs(audio.mean(axis=1)).max() < 0.05


def test_add_cuts_sounds_at_the_end_of_the_bus():
    sound = _noise(20).reshape(2, 10)
    bus = np.ones((2, 15), np.float32)
    for start in (0, 9, 15, 40):
        effects.add(bus, sound, start, np.float32(0.5))
    expected = np.ones((2, 15), np.float32)
    expected[:, :10] += 0.5 * sound
    expected[:, 9:] += 0.5 * sound[:, :6]
    np.testing.assert_allclose(bus, expected, rtol=1e-6)
