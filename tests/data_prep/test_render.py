import numpy as np
import pytest
from scipy import signal

from data_prep import synthesize
from data_prep.corpus import compose, render

SHORT = (0.3, 0.4)  # minutes
RATE_HZ = 22050


@pytest.fixture(scope="module")
def rendered():
    """Six short tracks and their audio."""
    tracks = [compose.compose(7, index, SHORT) for index in range(6)]
    return [(track, render.render(track, RATE_HZ)) for track in tracks]


def _without_hits(track, *layers):
    """The track with only these layers, and nothing else that it would add."""
    levels = {layer: level if layer in layers else np.zeros_like(level) for layer, level in track.levels.items()}
    quiet = {layer: -200.0 for layer in track.parameters["levels_db"] if layer not in layers}
    parameters = track.parameters | {
        "fills": ["none"] * 4,
        "filter_intro": False,
        "filter_build": False,
        "levels_db": track.parameters["levels_db"] | quiet,
    }
    return track._replace(levels=levels, parameters=parameters)


def test_any_two_tracks_differ(rendered):
    """The mean spectra of the drops, in third octaves, are further apart than any part of one track needs."""
    spectra = []
    for track, sound in rendered:
        drop = next(part for part in track.parts if part.name == "drop")
        first, end = (round(track.time_s(bar) * RATE_HZ) for bar in (drop.start_bar, drop.start_bar + drop.bars))
        hz, power = signal.welch(sound[first:end].mean(axis=1), RATE_HZ, nperseg=8192)
        edges = np.searchsorted(hz, 50 * 2 ** (np.arange(23) / 3))
        spectra.append(10 * np.log10(np.add.reduceat(power, edges)[:-1]))
    for one in range(len(spectra)):
        for other in range(one):
            assert np.abs(spectra[one] - spectra[other]).mean() > 1.5  # dB


def test_audio_has_the_given_peak_and_no_dc(rendered):
    for track, sound in rendered:
        assert sound.shape == (round(track.seconds * RATE_HZ), 2) and sound.dtype == np.float32
        assert np.isfinite(sound).all()
        peak = np.abs(sound).max()
        assert peak == pytest.approx(10 ** (track.parameters["ceiling_db"] / 20), rel=1e-5)
        assert np.abs(sound.mean(axis=0)).max() < 1e-3  # no DC
        assert np.abs(sound[-1]).max() < 1e-3  # it does not break off
        crest_db = 20 * np.log10(peak / np.sqrt(np.mean(sound**2)))
        assert 7 < crest_db < 20


def test_audio_is_stereo_with_mono_bass(rendered):
    for _, sound in rendered:
        middle, sides = sound.mean(axis=1), (sound[:, 0] - sound[:, 1]) / 2
        assert np.sqrt(np.mean(sides**2)) > 0.01 * np.sqrt(np.mean(middle**2))
        hz, middle_power = signal.welch(middle, RATE_HZ, nperseg=8192)
        _, sides_power = signal.welch(sides, RATE_HZ, nperseg=8192)
        low = hz < 100
        assert 10 * np.log10(sides_power[low].sum() / middle_power[low].sum()) < -25


@pytest.mark.parametrize("rate_hz", [8000, 16000, 48000, 96000, 192000])
def test_tracks_have_the_same_bass_level_at_any_sampling_rate(rate_hz):
    track = compose.compose(0, 1, (0.2, 0.2))
    sound = render.render(track, rate_hz)
    assert len(sound) == round(track.seconds * rate_hz)
    assert np.isfinite(sound).all() and 0.85 < np.abs(sound).max() < 1

    def low_end_db(sound, rate_hz):
        hz, power = signal.welch(sound.mean(axis=1), rate_hz, nperseg=rate_hz // 4)
        return 10 * np.log10(power[(hz > 30) & (hz < 400)].sum() * (hz[1] - hz[0]))

    reference = render.render(track, 44100)
    assert low_end_db(sound, rate_hz) == pytest.approx(low_end_db(reference, 44100), abs=2.5)


def test_drums_are_on_the_beat_grid():
    """Rendered alone, bass drums start within a sample of where the description says that bars and beats are."""
    for index in range(4):
        track = _without_hits(compose.compose(5, index, SHORT), "kick")
        sound = render.render(track, RATE_HZ).mean(axis=1)
        description = synthesize.describe(track, RATE_HZ, len(sound))
        loud = np.abs(sound) > 1e-4
        # Where 60 ms of silence end.
        quiet = np.convolve(loud, np.ones(round(0.06 * RATE_HZ)), "full")[: len(loud)] == 0
        onsets = np.flatnonzero(quiet[:-1] & ~quiet[1:]) + 1
        assert len(onsets) and onsets[0] - round(description["first_downbeat_s"] * RATE_HZ) in range(12)
        downbeats = np.array(description["downbeats_s"])
        sixteenths = (downbeats[:, None] + np.arange(16) * 15 / track.bpm).ravel()
        straight = track._replace(swing=0.5)
        assert straight.time_s(1) == pytest.approx(downbeats[1])
        for onset in onsets / RATE_HZ:
            late_s = (onset - sixteenths)[np.argmin(np.abs(onset - sixteenths))]
            swing_s = (2 * track.swing - 1) * 15 / track.bpm
            assert -1e-4 < late_s < 12 / RATE_HZ + swing_s


@pytest.mark.parametrize("index", range(6))
def test_tempo_and_downbeats_match_an_estimate(index):
    """Onsets found without the description: the low end's strongest period is a beat, and bars start where something does."""
    track = compose.compose(20, index, (0.9, 1.1))
    sound = render.render(track, RATE_HZ).mean(axis=1)
    hop, n_fft = 64, 512
    frames_hz = RATE_HZ / hop

    if all(pattern == [1.0, 0.0, 0.0, 0.0] * 4 for pattern in track.parameters["kick"]["pattern"]):
        low = signal.sosfilt(signal.butter(2, 120, fs=RATE_HZ, output="sos"), sound) ** 2
        level = np.sqrt(low[: len(low) // hop * hop].reshape(-1, hop).mean(axis=1))
        rises = np.maximum(0, np.diff(level, prepend=0))
        candidates = np.arange(120, 155, 0.05)
        spectrum = np.exp(-2j * np.pi * candidates[:, None] / 60 * np.arange(len(rises)) / frames_hz) @ (
            rises - rises.mean()
        )
        resolution_bpm = 60 / (len(sound) / RATE_HZ)
        assert candidates[np.argmax(np.abs(spectrum))] == pytest.approx(track.bpm, abs=resolution_bpm)

    # Spectral flux: the low end's level alone goes up and down within a period of the bass drum.
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(sound, n_fft // 2), n_fft)[::hop] * np.hanning(n_fft)
    spectra = np.log1p(100 * np.abs(np.fft.rfft(frames)))
    flux = np.maximum(0, np.diff(spectra, axis=0, prepend=spectra[:1])).sum(axis=1)
    drops = [part for part in track.parts if part.name == "drop"]
    bars = np.concatenate([np.arange(part.start_bar, part.start_bar + part.bars) for part in drops])
    near = np.arange(-round(0.05 * frames_hz), round(0.05 * frames_hz) + 1)  # half a sixteenth to both sides
    places = np.round(track.time_s(bars) * frames_hz).astype(int)[:, None] + near
    late_s = near[np.argmax(flux[places].mean(axis=0))] / frames_hz
    assert abs(late_s) < n_fft / 2 / RATE_HZ  # a frame sees an onset from half a frame before it


def test_swing_delays_the_second_sixteenth():
    track = compose.compose(0, 0, SHORT)._replace(swing=0.6, bpm=125.0, first_downbeat_s=0.0)
    starts = render._Mix(track, 48000).starts
    eighth = 48000 * 60 / 125 / 2
    np.testing.assert_array_equal(starts[0, :4], np.round([0, 0.6 * eighth, eighth, 1.6 * eighth]))


def test_a_higher_cutoff_makes_a_bass_line_brighter():
    """The same notes sound brighter with the filter further open."""
    track = _without_hits(compose.compose(0, 0, SHORT), "acid")
    shares = []
    for octaves in (-1.0, 0.5, 2.0):
        still = dict.fromkeys(("envelope_octaves", "accent_octaves", "wobble_octaves"), 0.0)
        opening = [[octaves, octaves]] * len(track.parts)
        acid = track.parameters["acid"] | still | {"opening_octaves": opening, "drive": 1.0}
        sound = render.render(track._replace(parameters=track.parameters | {"acid": acid}), RATE_HZ)
        hz, power = signal.welch(sound.mean(axis=1), RATE_HZ, nperseg=4096)
        shares.append(power[hz > 800].sum() / power.sum())
    assert shares[0] * 2 < shares[1] and shares[1] * 2 < shares[2]


def test_bass_drum_lowers_the_music(rendered):
    track, _ = rendered[0]
    mix = render._Mix(track, RATE_HZ)
    render._render_kick(mix, np.random.default_rng(0))
    depth = track.parameters["duck"]["depth"]
    assert mix.duck.min() == pytest.approx(1 - depth, abs=0.01) and mix.duck.max() == 1
    bar = int(np.flatnonzero(track.levels["kick"])[0])
    assert mix.duck[mix.downbeats[bar]] == pytest.approx(1 - depth, abs=0.01)
