"""Musical features against closed forms, scipy, and loops of known tempo, beats and faults."""

import math

import numpy as np
import pytest
import scipy.signal

from technogen_jax.evaluation.features import musical

RATE = 16000


def sine(hz, seconds, rate=RATE, phase=0.0):
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate + phase)[:, None]


def noise(seconds, rate=RATE, channels=1, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal((round(seconds * rate), channels))


def four_to_the_floor(bpm=132.0, beats=8, rate=RATE, seed=0):
    """A seamless loop of a kick, an off-beat hat and a line of three sixteenths after each kick, `[T, 1]`."""
    rng = np.random.default_rng(seed)
    audio = np.zeros(round(beats * 60 / bpm * rate))
    t = np.arange(round(0.3 * rate)) / rate
    kick = np.sin(2 * np.pi * (50 * t + 4.5 * (1 - np.exp(-t / 0.03)))) * np.exp(-t / 0.1)
    t = np.arange(round(0.05 * rate)) / rate
    hat = rng.standard_normal(len(t)) * np.exp(-t / 0.015)
    t = np.arange(round(0.09 * rate)) / rate
    notes_hz = rng.choice([220, 247, 262, 330], 3)
    line = [(np.sin(2 * np.pi * hz * t) + np.sin(4 * np.pi * hz * t)) * np.exp(-t / 0.04) for hz in notes_hz]

    def hit(place, sound, level):
        start = round(place * 60 / bpm * rate)
        audio[(start + np.arange(len(sound))) % len(audio)] += level * sound

    for beat in range(beats):
        hit(beat, kick, 0.8)
        hit(beat + 0.5, hat, 0.15)
        for step, note in enumerate(line, 1):
            hit(beat + step / 4, note, 0.1)
    return 0.9 * audio[:, None] / np.abs(audio).max()


def rearranged(audio, pieces, order, shifts_s=None):
    """The loop's equal pieces in another order, or each moved by so much, with cross-fades of 5 ms."""
    edges = np.round(np.linspace(0, len(audio), pieces + 1)).astype(int)
    fade = round(0.005 * RATE)
    out = np.zeros_like(audio)
    for index, source in enumerate(order):
        length = edges[index + 1] - edges[index]
        shift = round(shifts_s[index] * RATE) if shifts_s is not None else 0
        places = np.arange(-fade, length)
        window = np.minimum(1, np.minimum(np.arange(length + fade) / fade, np.arange(length + fade)[::-1] / fade))
        taken = audio[(edges[source] + places - shift) % len(audio)]
        np.add.at(out, (edges[index] + places) % len(audio), taken * window[:, None])
    return out


def phase_randomised(audio, seed=0):
    spectrum = scipy.signal.stft(audio[:, 0], nperseg=1024)[2]
    spectrum = np.abs(spectrum) * np.exp(2j * np.pi * np.random.default_rng(seed).random(spectrum.shape))
    return scipy.signal.istft(spectrum, nperseg=1024)[1][: len(audio), None]


# --------------------------------------------------------------------------------------------------------------- level


@pytest.mark.parametrize("seconds", [1, 4])  # a second is tiled
@pytest.mark.parametrize("rate,lufs", [(48000, -3.0103), (44100, -3.0075), (16000, -2.970)])
def test_loudness_of_a_full_scale_997_hz_sine(rate, lufs, seconds):
    got = musical.measure(sine(997, seconds, rate), rate)["loudness_lufs"]
    assert got == pytest.approx(lufs, abs=0.005)


def test_loudness_of_two_channels_at_minus_23_dbfs():
    both = np.repeat(sine(997, 4, 48000), 2, axis=1) * 10 ** (-23 / 20)
    assert musical.measure(both, 48000)["loudness_lufs"] == pytest.approx(-23.0, abs=0.005)


def test_true_peak_is_between_the_samples():
    values = musical.measure(sine(RATE / 4, 1, phase=np.pi / 4), RATE)
    assert 0 <= values["true_peak_dbtp"] < 0.02
    assert values["crest_db"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("samples", [40, 4099, 16000])
def test_true_peak_of_a_loop_equals_that_of_resample_poly(samples):
    audio = noise(1, channels=2)[:samples]
    curve = scipy.signal.resample_poly(np.tile(audio, (3, 1)), 4, 1, axis=0)[4 * samples : 8 * samples]
    want = 20 * np.log10(max(np.abs(curve).max(), np.abs(audio).max()))
    assert musical.measure(audio, RATE, loop=True)["true_peak_dbtp"] == pytest.approx(want, abs=1e-9)


def test_crest_dc_and_clipped_share_of_known_signals():
    values = musical.measure(0.5 * sine(1000, 1) + 0.1, RATE)
    assert values["dc"] == pytest.approx(0.1)
    assert musical.measure(0.5 * sine(1000, 1, phase=0.1), RATE)["crest_db"] == pytest.approx(3.0103, abs=0.05)
    assert musical.measure(np.sign(sine(100, 1, phase=0.1)), RATE)["crest_db"] == pytest.approx(0)
    audio = noise(1) / 10
    audio[10:13], audio[20:22], audio[30:35], audio[50] = 0.9, 0.9, -0.9, 0.9  # runs of 3, 2, 5 and 1
    assert musical.measure(audio, RATE)["clipped_share"] == pytest.approx(8 / RATE)
    assert musical.measure(np.clip(3 * sine(440, 1), -1, 1), RATE)["clipped_share"] > 0.5


# ------------------------------------------------------------------------------------------------------------ spectrum


@pytest.mark.parametrize("rate,samples", [(16000, 16000), (44100, 88200), (16000, 1000)])
def test_ltas_equals_welchs_spectrum_in_third_octaves(rate, samples):
    audio = noise(2, rate, channels=2)[:samples]
    audio[:, 1] *= 0.5
    got = musical.ltas_db(audio, rate, loop=True)
    lines_hz, density = scipy.signal.welch(np.tile(audio, (16, 1)), rate, nperseg=4096, axis=0, detrend=False)
    edges_hz = [1000 * 10 ** ((band - 0.5) / 10) for band in range(-16, 14)]
    edges_hz = [hz for hz in edges_hz if hz < rate / 2] + [rate / 2]
    assert len(got) == len(edges_hz) - 1
    centres_hz = musical.ltas_centres_hz(rate)
    assert centres_hz[:-1] == pytest.approx([1000 * 10 ** (band / 10) for band in range(-16, len(got) - 17)])
    assert edges_hz[-2] < centres_hz[-1] < rate / 2
    for index in range(10, len(got)):  # lower bands are narrower than a few lines
        inside = (lines_hz >= edges_hz[index]) & (lines_hz < edges_hz[index + 1])
        want = 10 * np.log10(density[inside].mean() * (edges_hz[index + 1] - edges_hz[index]))
        assert got[index] == pytest.approx(want, abs=0.5)
    assert 10 * np.log10(np.sum(10 ** (got / 10))) == pytest.approx(10 * np.log10(np.mean(audio**2)), abs=0.2)


def test_ltas_distance_separates_gain_from_shape():
    audio = four_to_the_floor() + noise(8 * 60 / 132) / 100
    reference = musical.ltas_db(audio, RATE, loop=True)
    shape, offset = musical.ltas_distance(reference, musical.ltas_db(audio / 2, RATE, loop=True))
    assert shape == pytest.approx(0, abs=1e-9) and offset == pytest.approx(-6.0206, abs=1e-4)
    cuts = [scipy.signal.butter(8, hz, fs=RATE, output="sos") for hz in (7000, 6000, 5000, 3500)]
    shapes = [
        musical.ltas_distance(reference, musical.ltas_db(scipy.signal.sosfilt(cut, audio, axis=0), RATE, loop=True))[0]
        for cut in cuts
    ]
    assert 0.3 < shapes[0] < shapes[1] < shapes[2] < shapes[3]  # 7 kHz is seen by the partial band at the top alone
    with pytest.raises(ValueError, match="one sample rate"):
        musical.ltas_distance(reference, reference[:-1])


def test_sub_ratio_of_noise_sines_and_a_loop():
    got = musical.measure(noise(20), RATE)["sub_ratio_db"]
    assert got == pytest.approx(10 * math.log10(90 / (RATE / 2)), abs=0.3)  # -19.49
    assert musical.measure(sine(60, 1), RATE, loop=True)["sub_ratio_db"] == pytest.approx(0, abs=1e-6)
    assert musical.measure(sine(1000, 1), RATE, loop=True)["sub_ratio_db"] == musical.FLOOR_DB
    loop = four_to_the_floor()
    high_passed = scipy.signal.sosfilt(scipy.signal.butter(8, 200, "high", fs=RATE, output="sos"), loop, axis=0)
    assert musical.measure(loop, RATE)["sub_ratio_db"] > -4
    assert musical.measure(high_passed, RATE)["sub_ratio_db"] < -20


# -------------------------------------------------------------------------------------------------------------- stereo


@pytest.mark.parametrize("hz", [80, 1000])
def test_width_and_correlation_of_two_sines(hz):
    one = sine(hz, 2)
    for other, width_db, correlation in (
        (one, -120, 1),
        (-one, 120, -1),
        (sine(hz, 2, phase=np.pi / 2), 0, 0),
        (0.5 * one, 20 * math.log10(0.25 / 0.75), 1),
        (0 * one, 0, None),
    ):
        values = musical.measure(np.concatenate([one, other], axis=1), RATE, loop=True)
        assert values["width_db"] == pytest.approx(width_db, abs=1e-6)
        assert values["channel_correlation"] == (None if correlation is None else pytest.approx(correlation, abs=1e-9))
        if hz < 120:
            assert values["sub_width_db"] == pytest.approx(width_db, abs=1e-6)
        else:
            assert values["sub_width_db"] is None and values["sub_correlation"] is None


def test_stereo_below_120_hz_is_measured_separately():
    wide_top = np.repeat(sine(60, 4), 2, axis=1) + noise(4, channels=2) * [[3, -3]]
    values = musical.measure(wide_top, RATE)
    assert values["sub_width_db"] < -15 and values["sub_correlation"] > 0.95
    values = musical.measure(noise(4, channels=2), RATE)
    assert abs(values["width_db"]) < 0.2 and abs(values["channel_correlation"]) < 0.02


def test_one_channel_has_no_stereo_features():
    values = musical.measure(noise(4), RATE, beats=8, loop=True)
    missing = {name for name, value in values.items() if value is None}
    assert missing == {"width_db", "channel_correlation", "sub_width_db", "sub_correlation"}


# -------------------------------------------------------------------------------------------------------------- rhythm


def test_beat_periodic_energy_ratio_has_closed_form_values():
    def impulses(hits, periods=8):
        envelope = np.zeros(48 * periods)
        envelope[(np.asarray(hits) * 48 * periods).astype(int)] = 1
        return envelope

    beats = np.arange(8) / 8
    ratio = musical.beat_periodic_energy_ratio
    assert ratio(impulses(beats), 8) == pytest.approx(1)
    assert ratio(impulses(np.delete(beats, 3)), 8) == pytest.approx(6 / 7)
    assert ratio(impulses(beats[::2]), 8) == pytest.approx(3 / 7)
    assert ratio(impulses(beats[::2]), 4) == pytest.approx(1)
    assert ratio(impulses(np.arange(32) / 32), 8) == ratio(impulses(np.arange(32) / 32), 32) == pytest.approx(1)
    rng = np.random.default_rng(0)
    assert np.mean([ratio(rng.standard_normal(384), 8) for _ in range(500)]) == pytest.approx(0, abs=0.01)
    assert ratio(np.full(384, 0.1), 8) is None
    with pytest.raises(ValueError, match="got 1 periods"):
        ratio(np.zeros(48), 1)


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("beats", [4, 7, 8, 16])
def test_tempo_of_four_to_the_floor(beats, loop):
    for index, bpm in enumerate((125, 128, 132, 137.5, 140, 145, 150)):
        rate = (16000, 44100)[index % 2]
        values = musical.measure(four_to_the_floor(bpm, beats, rate, seed=index), rate, loop=loop)
        assert abs(values["tempo_bpm"] - bpm) <= 0.2 + 1e-9
        assert values["tempo_bars"] == pytest.approx(beats / 4, abs=0.01)


def test_speed_scales_the_tempo():
    loop = four_to_the_floor(130)
    for factor in (1.005, 1.02, 1.05, 1.1):
        faster = scipy.signal.resample(loop, round(len(loop) / factor))
        assert musical.measure(faster, RATE)["tempo_bpm"] == pytest.approx(130 * factor, abs=0.3)


def test_an_excerpt_has_the_features_of_its_loop():
    loop = four_to_the_floor(128, 16)
    whole = musical.measure(loop, RATE, beats=16, loop=True)
    cut = musical.measure(loop[5000 : 5000 + 5 * RATE], RATE)  # begins and ends anywhere: 10.7 beats
    assert cut["tempo_bpm"] == pytest.approx(128, abs=0.2)
    assert cut["bar_repetition"] > 0.9 and cut["kick_similarity"] > 0.95
    for band in musical.BANDS_HZ:
        for periods in ("beat", "sixteenth"):
            name = f"{periods}_regularity_{band}"
            assert cut[name] == pytest.approx(whole[name], abs=0.06)
    rolled = musical.measure(np.roll(loop, 3000, axis=0), RATE, beats=16, loop=True)
    assert rolled["beat_regularity_low"] == pytest.approx(whole["beat_regularity_low"], abs=1e-3)


def test_a_second_at_16_khz_has_two_beats():
    values = musical.measure(four_to_the_floor(128, 4)[:RATE], RATE)
    assert values["tempo_bpm"] == pytest.approx(128, abs=3) and 0.5 < values["tempo_bars"] < 0.6
    assert values["beat_regularity_low"] > 0.8 and values["kick_similarity"] > 0.85
    assert values["bar_repetition"] is None
    values = musical.measure(four_to_the_floor(128, 4)[: RATE // 2], RATE)
    assert values["tempo_bpm"] is values["pulse_clarity"] is values["kick_similarity"] is None
    assert values["loudness_lufs"] is not None and values["sub_ratio_db"] is not None


RHYTHM = ["beat_regularity_low", "pulse_clarity", "kick_similarity", "bar_repetition"]


def rhythm(audio):
    return {name: value for name, value in musical.measure(audio, RATE, beats=8, loop=True).items() if name in RHYTHM}


def test_shuffling_lowers_regularity_and_repetition():
    loop = four_to_the_floor()
    whole = rhythm(loop)
    assert whole["beat_regularity_low"] > 0.9 and whole["kick_similarity"] > 0.95 and whole["bar_repetition"] > 0.95
    assert rhythm(rearranged(loop, 2, [1, 0])) == pytest.approx(whole, rel=0.01)
    order = np.random.default_rng(3).permutation(32)
    assert rhythm(rearranged(loop, 32, order))["beat_regularity_low"] < 0.1
    assert rhythm(rearranged(loop, 32, order))["bar_repetition"] < 0.3


def test_jitter_lowers_regularity():
    loop = four_to_the_floor()
    rng = np.random.default_rng(0)
    shifts = rng.uniform(-1, 1, 8)
    found = [rhythm(rearranged(loop, 8, range(8), shifts * jitter_s)) for jitter_s in (0, 0.005, 0.015, 0.04)]
    for name in ("beat_regularity_low", "kick_similarity", "pulse_clarity"):
        values = [values[name] for values in found]
        assert values == sorted(values, reverse=True) and values[-1] < 0.75 * values[0], (name, values)


def test_random_phases_lower_kick_similarity():
    loop = four_to_the_floor()
    assert rhythm(loop + noise(8 * 60 / 132)[: len(loop)] * 0.3)["kick_similarity"] > 0.95
    random = phase_randomised(loop)
    assert rhythm(random)["kick_similarity"] < 0.2
    assert rhythm(random)["beat_regularity_low"] > 0.3  # the rhythm is still there
    assert (
        musical.ltas_distance(musical.ltas_db(loop, RATE, loop=True), musical.ltas_db(random, RATE, loop=True))[0] < 6
    )


def test_gain_changes_levels_only():
    loop = np.concatenate([four_to_the_floor(seed=seed) for seed in (0, 1)], axis=1)
    loud, quiet = (musical.measure(gain * loop, RATE, beats=8, loop=True) for gain in (1, 0.5))
    for name in ("loudness_lufs", "true_peak_dbtp"):
        assert quiet.pop(name) - loud.pop(name) == pytest.approx(-6.0206, abs=1e-3)
    assert quiet.pop("dc") == pytest.approx(loud.pop("dc") / 2)
    assert quiet == pytest.approx(loud, abs=1e-6)


def test_onset_pattern_has_peaks_at_the_onsets():
    silence, hits = noise(8 * 60 / 120) * 1e-3, {0: 60, 6: 60, 3: 800, 11: 800, 4: 6500, 14: 6500}
    t = np.arange(round(0.06 * RATE)) / RATE
    for step, hz in hits.items():
        for bar in (0, 16):
            start = (step + bar) * RATE // 8
            silence[start : start + len(t), 0] += 0.5 * np.sin(2 * np.pi * hz * t) * np.exp(-t / 0.02)
    pattern = musical.onset_pattern(silence, RATE, beats=8, loop=True)
    assert pattern.shape == (musical.STEPS, 3)
    for band, steps in enumerate([{0, 6}, {3, 11}, {4, 14}]):
        assert set(np.argsort(pattern[:, band])[-2:].tolist()) == steps
    assert musical.pattern_correlation(pattern, 3 * pattern + 1) == pytest.approx(1)
    assert musical.pattern_correlation(pattern, np.roll(pattern, 1, axis=0)) < 0.3
    assert musical.pattern_correlation(pattern, np.ones((16, 3))) is None
    flat = [(p - p.mean(axis=0)).ravel() for p in (pattern, pattern[::-1])]
    assert musical.pattern_correlation(pattern, pattern[::-1]) == pytest.approx(np.corrcoef(*flat)[0, 1])
    assert musical.onset_pattern(silence[: RATE // 2], RATE) is None
    assert musical.onset_pattern(0 * silence, RATE, beats=8) is None


# ---------------------------------------------------------------------------------------------------------------- seam


def test_describe_equals_the_three_functions():
    loop = four_to_the_floor(beats=4)
    for how in (dict(beats=4, loop=True), dict()):
        got = musical.describe(loop, RATE, **how)
        assert got.features == musical.measure(loop, RATE, **how)
        np.testing.assert_array_equal(got.ltas_db, musical.ltas_db(loop, RATE, loop="loop" in how))
        np.testing.assert_array_equal(got.onset_pattern, musical.onset_pattern(loop, RATE, **how))


def test_seam_of_a_sine_and_of_a_cut_sine():
    whole = musical.measure(sine(200, 2), RATE, beats=4, loop=True)["seam_db"]
    # The wrap is a zero crossing, and 3 samples to its sides are not yet the crest that 5 ms hold.
    assert whole == pytest.approx(20 * math.log10(math.sin(3 * 2 * math.pi * 200 / RATE)), abs=1e-6)
    quarter = sine(200, 2)[: 2 * RATE - RATE // 800]  # three quarters of its last cycle
    assert musical.measure(quarter, RATE, beats=4, loop=True)["seam_db"] > 30
    assert musical.measure(quarter, RATE, beats=4)["seam_db"] is None


def test_seam_is_high_for_loops_with_a_missing_tail():
    good, rolled, cut = [], [], []
    for seed in range(12):
        loop = four_to_the_floor(125 + 2 * seed, seed=seed)
        rng = np.random.default_rng(seed)
        short = loop[: -int(rng.uniform(0.012, 0.19) * RATE)]
        roll = np.roll(loop, int(rng.integers(len(loop))), axis=0)
        for found, audio in ((good, loop), (rolled, roll), (cut, short)):
            found.append(musical.measure(audio, RATE, beats=8, loop=True)["seam_db"])
    assert np.percentile(good, 90) <= 1 and np.percentile(rolled, 90) <= 1
    assert np.median(cut) >= 3


# ---------------------------------------------------------------------------------------- undefined values and errors


def test_every_value_is_a_finite_float_or_none_with_a_description():
    for samples in (1, 2, 3, 37, 500, 4000, 16384):
        for rate in (8000, 16000, 44100):
            for loop in (False, True):
                audio = noise(1, 16384, channels=2)[:samples].astype(np.float32)
                values = musical.measure(audio, rate, beats=1 if loop else None, loop=loop)
                assert values.keys() == musical.features().keys()
                for name, value in values.items():
                    assert value is None or (type(value) is float and math.isfinite(value)), (name, value)
                assert np.isfinite(musical.ltas_db(audio, rate, loop=loop)).all()
    assert all(feature.says.endswith(".") and "\n" not in feature.says for feature in musical.features().values())


def test_a_steady_tone_has_no_tempo_no_beat_and_no_kick():
    values = musical.measure(sine(440, 2), RATE, loop=True)
    assert not [
        name for name in values if name.startswith(("tempo", "beat", "sixteenth", "kick", "pulse")) and values[name]
    ]
    assert values["crest_db"] == pytest.approx(3.0103, abs=0.01)


@pytest.mark.parametrize("level", [0.0, 1e-6, 0.25])  # nothing, almost nothing, nothing but DC
def test_silence_has_only_peak_and_dc(level):
    values = musical.measure(np.full((2 * RATE, 2), level), RATE, beats=4, loop=True)
    defined = {name for name, value in values.items() if value is not None}
    if level < 0.1:
        assert defined == {"true_peak_dbtp", "dc", "clipped_share"}
    else:
        assert defined.isdisjoint({"sub_ratio_db", "width_db", "tempo_bpm", "kick_similarity", "bar_repetition"})
    assert {"true_peak_dbtp", "dc", "clipped_share"} <= defined
    assert values["dc"] == pytest.approx(level)


def test_audio_that_cannot_be_measured_raises():
    good = noise(1)
    for bad, message in (
        (good[:, 0], "channels, last, got shape"),
        (np.zeros((100, 3)), "one or two channels"),
        (good[:0], "empty"),
        ((good * 32767).astype(np.int16), "int16"),
        (np.where(np.arange(RATE) == 5, np.nan, good[:, 0])[:, None], "1 samples that are NaN or Inf, the first nan"),
        (np.where(np.arange(RATE) == 5, -np.inf, good[:, 0])[:, None], "first -inf"),
    ):
        for function in (musical.measure, musical.ltas_db, musical.onset_pattern):
            with pytest.raises(ValueError, match=message):
                function(bad, RATE)
    with pytest.raises(ValueError, match="at least 4000 Hz, got 2000"):
        musical.measure(good, 2000)
    with pytest.raises(ValueError, match="beats: expected 1 or more"):
        musical.measure(good, RATE, beats=0)


def test_dtype_and_the_order_of_channels_do_not_matter():
    stereo = np.concatenate([four_to_the_floor(seed=seed) for seed in (0, 1)], axis=1).astype(np.float32)
    want = musical.measure(stereo.astype(np.float64), RATE, beats=8, loop=True)
    assert musical.measure(stereo, RATE, beats=8, loop=True) == pytest.approx(want, abs=1e-6)
    assert musical.measure(stereo[:, ::-1], RATE, beats=8, loop=True) == pytest.approx(want, abs=1e-5)


def test_low_end_is_narrow_and_steady_for_notes_and_not_for_rumble():
    rng, rate_hz = np.random.default_rng(0), 44100
    time_s = np.arange(2 * rate_hz) / rate_hz
    note, octave = (0.3 * np.sin(2 * np.pi * hz * time_s)[:, None] for hz in (60, 120))
    band = scipy.signal.butter(4, (30, 230), "band", fs=rate_hz, output="sos")
    rumble = 0.1 * scipy.signal.sosfilt(band, rng.standard_normal((2 * rate_hz, 1)), axis=0)

    def measured(clip, rate_hz=rate_hz):
        features = musical.measure(clip, rate_hz, beats=4, loop=True)
        return features["low_spread_hz"], features["low_change_db"]

    narrow, steady = measured(note)
    power = np.array([1 / 6, 2 / 3, 1 / 6])  # of a Hann window, squared, on a bin and beside it
    assert narrow == pytest.approx(np.exp(-np.sum(power * np.log(power))) / 0.186, rel=0.05)
    assert measured(note + octave)[0] == pytest.approx(2 * narrow, rel=0.05)
    wide, flickering = measured(rumble)
    assert 90 < wide < 200 and flickering > 3 and steady < 0.5
    np.testing.assert_allclose(measured(0.1 * rumble), (wide, flickering), rtol=1e-6)
    np.testing.assert_allclose(measured(rumble[::2], rate_hz // 2), (wide, flickering), rtol=0.02)
    np.testing.assert_allclose(measured(np.roll(rumble, 7000, 0)), (wide, flickering), rtol=0.05)
    nothing = 0.1 * np.sin(2 * np.pi * 1000 * time_s)[:, None]
    assert measured(nothing) == measured(note[:8000]) == (None, None)


def test_line_share_separates_notes_from_noise():
    rng, rate_hz = np.random.default_rng(0), 44100
    noise = 0.1 * rng.standard_normal((rate_hz, 1))
    saw = 0.1 * scipy.signal.sawtooth(2 * np.pi * 220 * np.arange(rate_hz) / rate_hz)[:, None]
    shares = [musical.measure(clip, rate_hz)["line_share"] for clip in (noise, saw, noise + saw)]
    assert shares[0] < 0.002 and shares[1] > 0.95
    below, above = (np.fft.rfft(x[:, 0])[200:5000] for x in (saw, noise))
    expected = np.square(np.abs(below)).sum() / sum(np.square(np.abs(x)).sum() for x in (below, above))
    assert shares[2] == pytest.approx(expected, abs=0.15)
    assert musical.measure(noise[:4000], rate_hz)["line_share"] is None
