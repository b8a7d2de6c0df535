"""What a musician can act on: level, spectrum, tempo, rhythm, stereo and seam of one clip, in numpy alone.

`measure` gives one number a feature, to be compared between sets of clips as distributions. What is no single number has
its own function and its own distance: the long-term spectrum (`ltas_db`) and the onset pattern (`onset_pattern`).
`describe` gives all three for less than they cost one by one.

Rhythm is measured on the mean of the channels. A beat is a quarter note, a bar is four of them. With `beats` the clip is
taken to be that many beats long and to begin on a downbeat; without, its tempo is estimated, it is cut after its last
whole beat, and the first beat is where the low end sets in. With `loop` the clip's end meets its beginning everywhere.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal
import scipy.special

from technogen_jax.audio import loudness

STEPS = 16  # of a bar
BANDS_HZ = {"low": (30.0, 120.0), "mid": (300.0, 2000.0), "high": (5000.0, math.inf)}  # kick; claps, acid; hats
TEMPO_RANGE_BPM = (100.0, 180.0)
_LOW_END_HZ = (30.0, 230.0)  # of kick and bass, and where a codec keeps a waveform
MIN_TEMPO_S = 0.9  # one and a half of the slowest beat: less does not hold a period of every tempo
FLOOR_DB = -120.0  # stands for minus infinity, with its sign changed for plus infinity; 16-bit noise is at -98 dB
_IN_CACHE = 64  # frames or rows at a time: what is done to them finds them in the processor's cache


class Feature(NamedTuple):
    """What a number is: its unit ("" for a plain ratio), and in one line what it says to a musician."""

    unit: str
    says: str


class Description(NamedTuple):
    """One clip: its features, its long-term spectrum `[bands]`, its onset pattern `[16, 3]` where it has one."""

    features: dict[str, float | None]
    ltas_db: np.ndarray
    onset_pattern: np.ndarray | None


FEATURES = {
    "loudness_lufs": Feature("LUFS", "Integrated loudness; higher is louder."),
    "true_peak_dbtp": Feature(
        "dBTP", "The highest point of the curve through the samples; above 0 converters clip it."
    ),
    "crest_db": Feature("dB", "Peak over RMS; low is squashed or distorted, high is spiky or thin."),
    "dc": Feature("", "Mean of the samples; away from 0 the waveform is off-centre and loses headroom."),
    "clipped_share": Feature("", "Samples in flat tops at the peak; near 0 is clean, more is audible clipping."),
    "sub_ratio_db": Feature("dB", "Energy from 30 to 120 Hz against all of it; near 0 is nearly all kick and bass."),
    "low_spread_hz": Feature(
        "Hz", "Width of what sounds at once from 30 to 230 Hz; a kick or note is narrow, rumble wide."
    ),
    "low_change_db": Feature("dB", "Change of those levels from one 12 ms to the next; rumble and noise flicker."),
    "line_share": Feature("", "Energy from 200 Hz to 5 kHz in lines of a spectrum; 0 is noise, near 1 notes or metal."),
    "tempo_bpm": Feature("BPM", "Estimated tempo between 100 and 180; a rough one where tempo_bars is below 2."),
    "tempo_bars": Feature("bars", "Length of the clip at that tempo; below 2 the tempo is a rough one."),
    "beat_regularity_low": Feature("", "How alike all beats are in the kick's band; 1 is four to the floor, 0 none."),
    "beat_regularity_mid": Feature("", "The same from 300 Hz to 2 kHz; low where the line plays between the beats."),
    "beat_regularity_high": Feature("", "The same above 5 kHz; high where every beat has the same hats."),
    "sixteenth_regularity_low": Feature("", "How alike all sixteenths are in the kick's band; high is a rolling bass."),
    "sixteenth_regularity_mid": Feature("", "The same from 300 Hz to 2 kHz; high is an even sixteenth line."),
    "sixteenth_regularity_high": Feature("", "The same above 5 kHz; high is an even sixteenth hat."),
    "kick_similarity": Feature("", "Likeness of the waveform below 150 Hz from beat to beat; 1 is one kick, 0 mush."),
    "pulse_clarity": Feature("", "How strongly the onsets repeat after a beat; rises with noise, so never alone."),
    "bar_repetition": Feature("", "Likeness of a bar's onsets to the next bar's; 1 is a loop, 0 is unrelated bars."),
    "width_db": Feature("dB", "Side over mid energy; -120 is mono, 0 is very wide, above 0 is out of phase."),
    "channel_correlation": Feature(
        "", "Correlation of left and right; 1 is mono, 0 unrelated, below 0 cancels in mono."
    ),
    "sub_width_db": Feature("dB", "Side over mid below 120 Hz; club systems and vinyl want it low."),
    "sub_correlation": Feature("", "Correlation of left and right below 120 Hz; below 1 the low end loses in mono."),
    "seam_db": Feature("dB", "Jump at the loop point against those at the other beats; above 0 is a click."),
}


def measure(
    audio: np.ndarray, sample_rate_hz: int, *, beats: int | None = None, loop: bool = False
) -> dict[str, float | None]:
    """Every one of `FEATURES` for one clip; None where a feature is not defined for it.

    Not defined are: what the clip is too short for; stereo features of one channel; features of a band that is empty or
    above the Nyquist frequency; `seam_db` of what is no loop; and of a silent clip, one below BS.1770's gate, all but
    true peak, DC and clipped share.

    Args:
        audio: float `[T, C]` in [-1, 1], one or two channels.
        sample_rate_hz: its rate, 4000 or more.
        beats: length of the clip in beats, where it is known; the clip then begins on a downbeat.
        loop: the clip is meant to be repeated without a gap.

    Raises:
        ValueError: audio of another shape or type, empty, or with NaN or Inf; a rate too low; beats below 1.
    """
    return _measure(_analyse(audio, sample_rate_hz, loop), beats)[0]


def describe(audio: np.ndarray, sample_rate_hz: int, *, beats: int | None = None, loop: bool = False) -> Description:
    """What `measure`, `ltas_db` and `onset_pattern` give for one clip; see there."""
    features, pattern = _measure(_analyse(audio, sample_rate_hz, loop), beats)
    return Description(features, ltas_db(audio, sample_rate_hz, loop=loop), pattern)


# ------------------------------------------------------------------------------------------------ spectrum and pattern


def ltas_db(audio: np.ndarray, sample_rate_hz: int, *, loop: bool = False) -> np.ndarray:
    """Long-term average spectrum: power in thirds of an octave, dB, mean of the channels.

    Welch's method with Hann windows of 4096 samples at 50 % overlap; a loop, and a clip shorter than a window, is
    repeated. Bands are IEC 61260's from 25 Hz up; the last one ends at the Nyquist frequency. Values below -120 dB
    are -120.

    Args:
        audio: float `[T, C]` in [-1, 1], one or two channels.
        sample_rate_hz: its rate; only spectra of the same rate have the same bands.
        loop: the clip is meant to be repeated without a gap.

    Returns:
        float64 `[bands]`.

    Raises:
        ValueError: see `measure`.
    """
    audio = np.ascontiguousarray(_checked(audio, sample_rate_hz).T)
    samples, size, hop = audio.shape[1], 4096, 2048
    if loop or samples < size:
        # Frames as evenly as a circle allows: every sample counts equally.
        starts = np.arange(0, samples, samples / math.ceil(samples / hop)).astype(int)
        audio = np.take(audio, np.arange(samples + size), axis=1, mode="wrap")
    else:
        starts = np.arange(0, samples - size + 1, hop)
    window = scipy.signal.get_window("hann", size)
    power = np.zeros(size // 2 + 1)
    for start in starts:
        spectra = scipy.fft.rfft(audio[:, start : start + size] * window)
        power += (spectra.real**2 + spectra.imag**2).mean(axis=0)
    power *= 2 / (len(starts) * size * np.sum(window**2))
    # A band may be narrower than a bin: it takes its share of it.
    edges_hz = _third_octave_edges_hz(sample_rate_hz)
    totals = np.concatenate([[0.0], np.cumsum(power)])
    bounds_hz = (np.arange(len(totals)) - 0.5) * sample_rate_hz / size
    return _db(np.diff(np.interp(edges_hz, bounds_hz, totals)))


def ltas_centres_hz(sample_rate_hz: int) -> np.ndarray:
    """Middles of the bands of `ltas_db` on a logarithmic scale, `[bands]`."""
    edges_hz = _third_octave_edges_hz(sample_rate_hz)
    return np.sqrt(edges_hz[:-1] * edges_hz[1:])


def ltas_distance(reference_db: np.ndarray, other_db: np.ndarray) -> tuple[float, float]:
    """(shape, offset) in dB between two spectra of `ltas_db`, or two sets' mean ones.

    The offset is how much louder the other is, averaged over the bands; the shape is the RMS of what is left of the
    difference, and so blind to gain.

    Raises:
        ValueError: different numbers of bands.
    """
    reference_db, other_db = np.asarray(reference_db, np.float64), np.asarray(other_db, np.float64)
    if reference_db.shape != other_db.shape or reference_db.ndim != 1:
        raise ValueError(
            f"expected two spectra [bands] of one sample rate, got {reference_db.shape} and {other_db.shape}"
        )
    difference = other_db - reference_db
    offset = difference.mean()
    return float(np.sqrt(np.mean((difference - offset) ** 2))), float(offset)


def onset_pattern(
    audio: np.ndarray, sample_rate_hz: int, *, beats: int | None = None, loop: bool = False
) -> np.ndarray | None:
    """Where in the bar something sets in: rise of level in dB at each sixteenth, mean over the clip's whole bars.

    Without `beats` the pattern begins on a beat, but which one of the bar is not known.

    Args:
        audio: float `[T, C]` in [-1, 1], one or two channels.
        sample_rate_hz: its rate, 4000 or more.
        beats: length of the clip in beats, where it is known; the clip then begins on a downbeat.
        loop: the clip is meant to be repeated without a gap.

    Returns:
        float64 `[16, 3]`, bands as in `BANDS_HZ`, zeros for one above the Nyquist frequency; None for a clip without a
        whole bar, without a tempo, or silent.

    Raises:
        ValueError: see `measure`.
    """
    return _measure(_analyse(audio, sample_rate_hz, loop), beats)[1]


def pattern_correlation(reference: np.ndarray, other: np.ndarray) -> float | None:
    """Pearson correlation of two onset patterns, or of two sets' mean ones: 1 for the same rhythm, 0 for unrelated ones.

    Each band's mean is taken away first, so it is the rhythm that counts and not which band is busy. None where one of
    them has no rhythm at all.

    Raises:
        ValueError: different shapes.
    """
    reference, other = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    if reference.shape != other.shape or reference.ndim != 2:
        raise ValueError(f"expected two patterns [steps, bands] of one shape, got {reference.shape} and {other.shape}")
    return _correlation(reference - reference.mean(axis=0), other - other.mean(axis=0))


def beat_periodic_energy_ratio(envelope: np.ndarray, periods: int) -> float | None:
    """BPER: the share of an envelope's changes that repeats with every one of its N equal periods.

    With E = |rfft(e - mean e)|^2 and r = sum over m >= 1 of E[m N] over the sum of E, it is (r - 1/N) / (1 - 1/N): 1 if
    all periods are the same, 0 on average for noise. None for an envelope that does not change.

    Args:
        envelope: `[frames]` over a whole number of periods, best a multiple of N.
        periods: N, at least 2.

    Raises:
        ValueError: fewer than two periods, or fewer frames than two a period.
    """
    if periods < 2 or len(envelope) < 2 * periods:
        raise ValueError(
            f"expected at least 2 periods and 2 frames a period, got {periods} periods in {len(envelope)} frames"
        )
    mean = envelope.mean()
    energy = np.abs(scipy.fft.rfft(envelope - mean)[1:]) ** 2
    total = energy.sum()
    # Parseval: the variance against the mean's square. Rounding alone makes 1e-30 of it.
    if total <= 1e-12 * (mean * len(envelope)) ** 2 or not total:
        return None
    ratio = energy[periods - 1 :: periods].sum() / total
    return float((ratio - 1 / periods) / (1 - 1 / periods))


# ------------------------------------------------------------------------------------------------- what features share


class _Clip(NamedTuple):
    """A clip and its spectrum: of the circle that a loop is, else of the clip and the zeros after it."""

    audio: np.ndarray  # [C, T]: channels first, as every loop is over samples
    rate_hz: int
    seconds: float
    loop: bool
    spectra: np.ndarray  # [C, F], of the audio less its mean
    mono: np.ndarray  # [F], the mean of these
    size: int  # what the spectra are of


class _Onsets(NamedTuple):
    """Rise of level from frame to frame, mean over mel bands, dB."""

    all: np.ndarray  # [N]
    bands: np.ndarray  # [N, 3], as BANDS_HZ
    rate_hz: float


class _Grid(NamedTuple):
    """Where the beats are."""

    first_s: float
    beat_s: float
    beats: int  # the whole ones that fit into the clip


def _measure(clip: _Clip, beats: int | None) -> tuple[dict[str, float | None], np.ndarray | None]:
    """(features, onset pattern)."""
    if beats is not None and beats < 1:
        raise ValueError(f"beats: expected 1 or more, or None for an estimate, got {beats}")
    values = dict.fromkeys(FEATURES) | _level(clip)
    if values["loudness_lufs"] is None:
        return values, None
    values["sub_ratio_db"] = _sub_ratio_db(clip)
    values["low_spread_hz"], values["low_change_db"] = _low_end(clip)
    values["line_share"] = _line_share(clip)
    if len(clip.spectra) == 2:
        values |= _stereo(clip)
    onsets = _onsets(clip)
    tempo_bpm, values["pulse_clarity"] = _tempo(clip, onsets)
    if tempo_bpm is not None:
        values["tempo_bpm"], values["tempo_bars"] = tempo_bpm, clip.seconds * tempo_bpm / 240
    grid = _grid(clip, onsets, tempo_bpm, beats)
    if grid is None:
        return values, None
    values |= _regularity(clip, grid)
    values["kick_similarity"] = _kick_similarity(clip, grid)
    if clip.loop:
        values["seam_db"] = _seam_db(clip, grid)
    bars = _bars(onsets, grid, clip.loop)
    if bars is None:
        return values, None
    values["bar_repetition"] = _bar_repetition(bars)
    return values, bars.mean(axis=0)


def _checked(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    audio = np.asarray(audio)
    if audio.ndim != 2 or audio.shape[1] not in (1, 2):
        raise ValueError(f"expected audio [T, C] with one or two channels, last, got shape {audio.shape}")
    if not np.issubdtype(audio.dtype, np.floating):
        raise ValueError(f"expected float audio in [-1, 1], got {audio.dtype}; audio.from_int16 converts 16-bit PCM")
    if not len(audio):
        raise ValueError("expected audio [T, C], got an empty clip")
    if sample_rate_hz < 4000:
        raise ValueError(f"expected a sample rate of at least 4000 Hz, got {sample_rate_hz}")
    audio = audio.astype(np.float64)
    if not np.isfinite(audio).all():
        bad = audio[~np.isfinite(audio)]
        raise ValueError(f"expected finite audio, got {len(bad)} samples that are NaN or Inf, the first {bad[0]}")
    return audio


def _analyse(audio: np.ndarray, sample_rate_hz: int, loop: bool) -> _Clip:
    audio = np.ascontiguousarray(_checked(audio, sample_rate_hz).T)
    samples = audio.shape[1]
    # The zeros keep what the filters do at the end of a clip from its start: 50 ms is more than a period of 30 Hz.
    size = samples if loop else scipy.fft.next_fast_len(samples + sample_rate_hz // 20, real=True)
    spectra = scipy.fft.rfft(audio - audio.mean(axis=1, keepdims=True), size)
    return _Clip(audio, sample_rate_hz, samples / sample_rate_hz, loop, spectra, spectra.mean(axis=0), size)


def _filtered(clip: _Clip, low_hz: float, high_hz: float, rate_hz: float) -> tuple[np.ndarray, float]:
    """The mean of the channels between two frequencies, and its rate: the clip's own one or about `rate_hz`.

    The gain is that of a fourth-order Butterworth filter run forwards and backwards: no phase, no long ringing.
    """
    size = clip.size
    if rate_hz < clip.rate_hz:
        size = min(size, scipy.fft.next_fast_len(math.ceil(size * rate_hz / clip.rate_hz), real=True))
    spectrum = clip.mono[: size // 2 + 1]
    if low_hz > 0 or high_hz < math.inf:
        spectrum = spectrum * _gain(clip.size, size // 2 + 1, clip.rate_hz, low_hz, high_hz)
    rate_hz = clip.rate_hz * size / clip.size
    return scipy.fft.irfft(spectrum, size)[: max(1, round(clip.seconds * rate_hz))] * (size / clip.size), rate_hz


@functools.lru_cache(maxsize=16)
def _gain(size: int, lines: int, rate_hz: int, low_hz: float, high_hz: float) -> np.ndarray:
    frequencies_hz = np.arange(lines) * (rate_hz / size)
    high_pass = 1 - 1 / (1 + (frequencies_hz / low_hz) ** 8) if low_hz else 1.0
    return high_pass / (1 + (frequencies_hz / high_hz) ** 8)


def _band_energy(clip: _Clip, low_hz: float, high_hz: float, spectra: np.ndarray) -> float:
    """Sum of squares over channels and samples of what lies between two frequencies."""
    first, last = (math.ceil(hz * clip.size / clip.rate_hz) for hz in (low_hz, min(high_hz, clip.rate_hz)))
    part = spectra[..., max(1, first) : last]
    return float(np.vdot(part, part).real) * 2 / clip.size


def _wrapped(audio: np.ndarray, reach: int) -> np.ndarray:
    """`[..., T]` with so many samples of its other end at either end."""
    return np.take(audio, np.arange(-reach, audio.shape[-1] + reach), axis=-1, mode="wrap")


def _db(energy):
    """10 log10, at least -120."""
    return np.maximum(10 * np.log10(np.maximum(energy, 1e-300)), FLOOR_DB)


def _ratio_db(above: float, below: float) -> float:
    """10 log10 of the ratio of two energies of which at least one is not 0, within 120 dB either way."""
    return float(np.clip(10 * math.log10(max(above, 1e-300) / max(below, 1e-300)), FLOOR_DB, -FLOOR_DB))


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    energy = math.sqrt(np.vdot(a, a) * np.vdot(b, b))
    return float(np.vdot(a, b) / energy) if energy > 0 else None


def _empty(clip: _Clip, mean_square: float) -> bool:
    """Whether a band is 60 dB below the clip: what is there is another band's leakage, or rounding."""
    return mean_square <= 1e-6 * np.vdot(clip.audio, clip.audio) / clip.audio.size


# ----------------------------------------------------------------------------------------------------- level, spectrum


def _level(clip: _Clip) -> dict[str, float | None]:
    audio = clip.audio
    peak = max(float(audio.max()), -float(audio.min()))
    means = audio.mean(axis=1)
    values = {
        "loudness_lufs": _loudness_lufs(clip),
        "true_peak_dbtp": float(_db(_true_peak(audio, peak, clip.loop) ** 2)),
        "dc": float(means[np.abs(means).argmax()]),
        "clipped_share": _clipped_share(audio, peak),
    }
    if values["loudness_lufs"] is not None:
        values["crest_db"] = float(20 * np.log10(peak) - 10 * np.log10(np.vdot(audio, audio) / audio.size))
    return values


def _loudness_lufs(clip: _Clip) -> float | None:
    """Gated loudness; below 3 s of the clip eight times or more, as it would have one block or a few. None for silence."""
    meter = loudness.LoudnessMeter(clip.rate_hz, len(clip.audio))
    for _ in range(1 if clip.seconds >= 3 else max(8, math.ceil(3 / clip.seconds))):
        meter.add(clip.audio.T)
    lufs = loudness.gated_loudness(meter.energies())
    return lufs if math.isfinite(lufs) else None


_ROW, _REACH = 16, 10  # samples of one row of `_oversampling`; to either side of one that its filter looks at


@functools.cache
def _oversampling() -> np.ndarray:
    """`[36, 64]`: from 16 samples and their neighbours to the curve through them at four times the rate."""
    return scipy.signal.resample_poly(np.eye(_ROW + 2 * _REACH), 4, 1, axis=1)[:, 4 * _REACH : -4 * _REACH]


def _true_peak(audio: np.ndarray, peak: float, loop: bool) -> float:
    """Largest magnitude at four times the rate; the samples next to a clip's ends have no curve through them."""
    if loop:
        audio = _wrapped(audio, _REACH)
    width = _ROW + 2 * _REACH
    if audio.shape[1] < width:
        return peak
    for channel in audio:
        rows = np.lib.stride_tricks.sliding_window_view(channel, width)
        starts = np.append(np.arange(0, len(rows), _ROW), len(rows) - 1)
        for first in range(0, len(starts), 4 * _IN_CACHE):
            curve = rows[starts[first : first + 4 * _IN_CACHE]] @ _oversampling()
            peak = max(peak, float(curve.max()), -float(curve.min()))
    return peak


def _clipped_share(audio: np.ndarray, peak: float) -> float:
    """Share of the samples within 0.1 % of the peak that stand in runs of three or more."""
    clipped = 0
    for channel in audio if peak else ():
        near = np.flatnonzero(np.abs(channel) >= 0.999 * peak)
        starts = np.flatnonzero(near[2:] - near[:-2] == 2)
        clipped += len(np.unique(starts + [[0], [1], [2]]))
    return clipped / audio.size


def _sub_ratio_db(clip: _Clip) -> float | None:
    low, full = (_band_energy(clip, *band, clip.spectra) for band in (BANDS_HZ["low"], (0, math.inf)))
    return None if _empty(clip, full / clip.audio.size) else _ratio_db(low, full)


@functools.cache
def _third_octave_edges_hz(sample_rate_hz: int) -> np.ndarray:
    """From 22.4 Hz to the Nyquist frequency (IEC 61260: powers of 10^0.1 between the centres)."""
    edges_hz = 1000 * 10 ** ((np.arange(-16, 40) - 0.5) / 10)
    return np.append(edges_hz[edges_hz < sample_rate_hz / 2], sample_rate_hz / 2)


def _low_end(clip: _Clip) -> tuple[float | None, float | None]:
    """(spread in Hz, change in dB) from 30 to 230 Hz; None, None for a clip below 0.2 s or without a low end.

    The spread is that of a flat spectrum of the same entropy, in frames of 0.186 s, the mean weighted by energy; the change that of a
    level from one frame of 46 ms to the next, the mean over frames and bins. Below a ten thousandth of the loudest all is alike.
    """
    signal, rate_hz = _filtered(clip, 0, math.inf, 1000)
    if len(signal) < 0.2 * rate_hz:
        return None, None
    spreads, power = _power_frames(clip, signal, rate_hz, 0.186), _power_frames(clip, signal, rate_hz, 0.0464)
    energy = spreads.sum(1)
    if _empty(clip, _band_energy(clip, *_LOW_END_HZ, clip.mono) / clip.audio.shape[1]) or not energy.any():
        return None, None
    entropy = np.sum(scipy.special.entr(spreads / np.maximum(energy, 1e-300)[:, None]), 1)
    width_hz = (_LOW_END_HZ[1] - _LOW_END_HZ[0]) / spreads.shape[1]
    levels = 10 * np.log10(np.maximum(power, 1e-4 * power.max()))
    before = np.roll(levels, 1, 0) if clip.loop else levels[:-1]
    change = np.abs((levels if clip.loop else levels[1:]) - before).mean()
    return float(width_hz * np.exp(np.average(entropy, weights=energy))), float(change)


def _power_frames(clip: _Clip, signal: np.ndarray, rate_hz: float, frame_s: float) -> np.ndarray:
    """Power in the bins of the low end, `[frames, bins]`, of Hann windows a quarter of their length apart."""
    size = round(frame_s * rate_hz)
    if clip.loop:
        starts = np.linspace(0, len(signal), math.ceil(4 * len(signal) / size), endpoint=False).astype(int)
        signal = np.take(signal, np.arange(len(signal) + size), mode="wrap")
    else:
        starts = np.arange(0, len(signal) - size + 1, max(1, size // 4))
    frames = np.lib.stride_tricks.sliding_window_view(signal, size)[starts]
    power = np.abs(scipy.fft.rfft(frames * scipy.signal.get_window("hann", size))) ** 2
    frequencies_hz = np.arange(power.shape[1]) * rate_hz / size
    return power[:, (frequencies_hz > _LOW_END_HZ[0]) & (frequencies_hz < _LOW_END_HZ[1])]


def _line_share(clip: _Clip) -> float | None:
    """Energy in bins that stand out of 400 Hz around them, of all between 200 Hz and 5 kHz; None for a clip below 0.1 s."""
    signal, rate_hz = _filtered(clip, 200, 5000, 12000)
    size = 2 * round(0.05 * rate_hz)
    if len(signal) < size:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(signal, size)[:: size // 2]
    magnitude = np.abs(scipy.fft.rfft(frames * scipy.signal.get_window("hann", size)))
    around = scipy.ndimage.uniform_filter1d(magnitude, 2 * round(200 * size / rate_hz) + 1, mode="nearest")
    # Of white noise, by Rayleigh's law, one bin in 300,000 is that far above the mean.
    lines = scipy.ndimage.maximum_filter1d(
        np.where(magnitude > 4 * around, 1.0, 0.0), 3
    )  # with a window's two neighbours
    power = magnitude**2
    return float(np.sum(power * lines) / power.sum()) if power.any() else None


# -------------------------------------------------------------------------------------------------------------- stereo


def _stereo(clip: _Clip) -> dict[str, float | None]:
    values = {}
    spectra = (clip.mono, clip.spectra[0] - clip.mono, *clip.spectra)  # the mean of the channels is the mid
    for width, correlation, high_hz in (
        ("width_db", "channel_correlation", math.inf),
        ("sub_width_db", "sub_correlation", BANDS_HZ["low"][1]),
    ):
        mid, side, left, right = (_band_energy(clip, 0, high_hz, spectrum) for spectrum in spectra)
        if _empty(clip, (mid + side) / clip.audio.shape[1]):
            continue
        values[width] = _ratio_db(side, mid)
        if left and right:
            values[correlation] = (mid - side) / math.sqrt(left * right)
    return values


# -------------------------------------------------------------------------------------------------------------- rhythm


def _onsets(clip: _Clip) -> _Onsets:
    """Half-wave rectified changes of 64 mel bands in dB, every 3 ms.

    3 ms because a tempo is a lag: in librosa's default hop of 23 ms there is none between 123 and 129.2 BPM. The ends of the clip
    see each other even where it is no loop: silence beyond them would be an onset, a mirror would hide one.
    """
    audio, rate_hz = _filtered(clip, 0, math.inf, clip.rate_hz / max(1, round(clip.rate_hz / 22050)))
    size = 1 << round(math.log2(0.046 * rate_hz))  # 1024 samples at 22.05 kHz
    frames = max(2, round(len(audio) / (0.0029 * rate_hz)))
    views = np.lib.stride_tricks.sliding_window_view(_wrapped(audio, size // 2), size)
    starts = np.arange(frames) * len(audio) // frames
    window = scipy.signal.get_window("hann", size)
    filters, centres_hz = _mel_filters(round(rate_hz), size)
    power = np.empty((frames, filters.shape[1]))
    for first in range(0, frames, _IN_CACHE):
        spectra = scipy.fft.rfft(views[starts[first : first + _IN_CACHE]] * window)
        power[first : first + _IN_CACHE] = (spectra.real**2 + spectra.imag**2) @ filters
    levels_db = 10 * np.log10(np.maximum(power, 1e-8 * power.max() + 1e-300))  # 80 dB below the loudest
    rises = np.maximum(levels_db - np.roll(levels_db, 1, axis=0), 0)
    bands = np.zeros((frames, len(BANDS_HZ)))
    for index, (low_hz, high_hz) in enumerate(BANDS_HZ.values()):
        inside = (centres_hz >= low_hz) & (centres_hz < high_hz)
        if inside.any():
            bands[:, index] = rises[:, inside].mean(axis=1)
    return _Onsets(rises.mean(axis=1), bands, frames / clip.seconds)


@functools.cache
def _mel_filters(rate_hz: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`[F, 64]` triangles on the mel scale (O'Shaughnessy) from 30 Hz to Nyquist; their centres in Hz."""
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (30, rate_hz / 2))
    corners_hz = 700 * (10 ** (np.linspace(low, high, 66) / 2595) - 1)
    lines_hz = np.arange(size // 2 + 1)[:, None] * rate_hz / size
    # A triangle narrower than the lines' distance would fall between two of them.
    width_hz = np.maximum(np.diff(corners_hz), rate_hz / size)
    up = 1 - (corners_hz[1:-1] - lines_hz) / width_hz[:-1]
    down = 1 - (lines_hz - corners_hz[1:-1]) / width_hz[1:]
    return np.maximum(np.minimum(up, down), 0), corners_hz[1:-1]


_FINER = 4  # lags between two frames: straight lines from frame to frame pull a tempo by 0.3 BPM


def _autocorrelation(onsets: _Onsets, loop: bool) -> np.ndarray | None:
    """Of the onsets, 1 at lag 0, four lags a frame, circular for a loop; None if there are no onsets."""
    changes = onsets.all - onsets.all.mean()
    if np.mean(changes**2) < 1e-4:  # 0.01 dB: a steady tone makes 0.002 by the rounding of frames, noise 0.04
        return None
    size = len(changes) if loop else scipy.fft.next_fast_len(2 * len(changes), real=True)
    values = scipy.fft.irfft(np.abs(scipy.fft.rfft(changes, size)) ** 2, _FINER * size)[: _FINER * len(changes)]
    return values / values[0]


def _tempo(clip: _Clip, onsets: _Onsets) -> tuple[float | None, float | None]:
    """(tempo in BPM, pulse clarity): the tempo at whose first eight beats the onsets' autocorrelation is highest.

    Of what is no loop, a lag counts by how much of the clip it leaves to compare.
    """
    values = _autocorrelation(onsets, clip.loop) if clip.seconds >= MIN_TEMPO_S else None
    if values is None:
        return None, None
    low_bpm, high_bpm = TEMPO_RANGE_BPM
    tempos_bpm = np.linspace(low_bpm, high_bpm, round((high_bpm - low_bpm) * 10) + 1)
    rate_hz = _FINER * onsets.rate_hz
    lags = np.arange(1, 9) * 60 / tempos_bpm[:, None] * rate_hz  # [tempos, 8]
    places = np.arange(len(values))
    if clip.loop:
        scores = np.interp(lags, places, values, period=len(values)).mean(axis=1)
        weights = np.ones(len(values))
    else:
        weights = 1 - places / len(values)
        scores = np.interp(lags, places, values, right=0).sum(axis=1) / np.interp(lags, places, weights, right=0).sum(1)
    first, last = round(60 / high_bpm * rate_hz), round(60 / low_bpm * rate_hz)
    clarity = (values[first : last + 1] / weights[first : last + 1]).max()
    return float(tempos_bpm[scores.argmax()]), float(clarity)


def _grid(clip: _Clip, onsets: _Onsets, tempo_bpm: float | None, beats: int | None) -> _Grid | None:
    if beats is not None:
        return _Grid(0.0, clip.seconds / beats, beats)
    if tempo_bpm is None:
        return None
    exact = clip.seconds * tempo_bpm / 60
    count = round(exact) if clip.loop else math.floor(exact + 0.02)  # a tempo is estimated to 0.2 %
    if count < 1:
        return None
    beat_s = clip.seconds / count if clip.loop else min(60 / tempo_bpm, clip.seconds / count)
    rises = onsets.bands[:, 0] if onsets.bands[:, 0].any() else onsets.all
    # The offset at which a comb of beats finds most: on 48 places a beat, each as wide as 3 of them.
    folded = np.zeros(48)
    places = np.arange(len(rises)) / onsets.rate_hz / beat_s
    np.add.at(folded, (places * 48).astype(int) % 48, rises)
    folded += np.roll(folded, 1) + np.roll(folded, -1)
    # An onset is seen up to half a window early: just before the end of a beat is the clip's own beginning.
    first = (int(folded.argmax()) + 6) % 48 - 6
    return _Grid(first / 48 * beat_s, beat_s, count)


def _regularity(clip: _Clip, grid: _Grid) -> dict[str, float | None]:
    """BPER in the three bands, of beats and of sixteenths."""
    values = {}
    for band, (low_hz, high_hz) in BANDS_HZ.items():
        if low_hz >= clip.rate_hz / 2:
            continue
        audio, rate_hz = _filtered(clip, low_hz, high_hz, 4 * min(high_hz, clip.rate_hz))
        totals = np.concatenate([[0.0], np.cumsum(audio**2)])
        if _empty(clip, totals[-1] / len(audio)):
            continue
        for name, periods in (("beat", grid.beats), ("sixteenth", 4 * grid.beats)):
            if periods >= 2:
                edges = np.linspace(0, grid.beats * grid.beat_s * rate_hz, 48 * periods + 1)
                sums = np.diff(np.interp(edges, np.arange(len(totals)), totals))
                envelope = np.sqrt(np.maximum(sums, 0) / (edges[1] - edges[0]))
                values[f"{name}_regularity_{band}"] = beat_periodic_energy_ratio(envelope, periods)
    return values


def _kick_similarity(clip: _Clip, grid: _Grid) -> float | None:
    """Median over consecutive beats of the largest normalised cross-correlation within 1 ms, of 200 ms below 150 Hz."""
    audio, rate_hz = _filtered(clip, 0, 150, 8000)
    if _empty(clip, np.vdot(audio, audio) / len(audio)):
        return None
    length, slack = round(0.2 * rate_hz), round(0.001 * rate_hz)
    count = grid.beats + 1 if clip.loop else int((clip.seconds - grid.first_s - 0.2) / grid.beat_s + 1.01)
    starts = np.round((grid.first_s + np.arange(count) * grid.beat_s) * rate_hz).astype(int)
    windows = np.take(audio, starts[:, None] + np.arange(-slack, length + slack), mode="wrap" if clip.loop else "clip")
    similarities = []
    for one, next_one in zip(windows[:-1, slack : slack + length], windows[1:], strict=True):
        shifted = np.lib.stride_tricks.sliding_window_view(next_one, length)
        energies = np.vdot(one, one) * np.einsum("ij,ij->i", shifted, shifted)
        if energies.min() > 0:
            similarities.append((shifted @ one / np.sqrt(energies)).max())
    return float(np.median(similarities)) if similarities else None


def _bars(onsets: _Onsets, grid: _Grid, loop: bool) -> np.ndarray | None:
    """`[bars, 16, 3]`: the onsets of the whole bars at each sixteenth, from half a step before it to half after."""
    frames, bands = onsets.bands.shape
    step = grid.beat_s / 4 * onsets.rate_hz
    whole = frames if loop else frames - grid.first_s * onsets.rate_hz
    bars = int(whole / (STEPS * step) + 1e-2)
    if not bars:
        return None
    edges = grid.first_s * onsets.rate_hz + (np.arange(bars * STEPS + 1) - 0.5) * step
    totals = np.concatenate([np.zeros((1, bands)), np.cumsum(np.tile(onsets.bands, (3, 1)), axis=0)])
    sums = [np.diff(np.interp(edges + frames, np.arange(len(totals)), totals[:, band])) for band in range(bands)]
    return np.stack(sums, axis=1).reshape(bars, STEPS, bands)


def _bar_repetition(bars: np.ndarray) -> float | None:
    """Mean correlation of a bar's onsets with the next one's, each band less its mean over the bar."""
    if len(bars) < 2:
        return None
    bars = bars - bars.mean(axis=1, keepdims=True)
    found = [_correlation(one, next_one) for one, next_one in zip(bars[:-1], bars[1:], strict=True)]
    found = [value for value in found if value is not None]
    return float(np.mean(found)) if found else None


def _seam_db(clip: _Clip, grid: _Grid) -> float | None:
    """20 log10 of the largest second difference within 3 samples of the wrap over that within 5 ms of other beats.

    The beats are counted from the wrap: a loop that begins off the beat is compared with itself off the beat. A plain
    click detector would flag good loops, which have their downbeat there.
    """
    if grid.beats < 2:
        return None
    curve = np.abs(np.diff(_wrapped(clip.audio, 1), 2)).max(axis=0)
    reach = round(0.005 * clip.rate_hz)
    beats = np.round(np.arange(1, grid.beats) * len(curve) / grid.beats).astype(int)
    around = np.take(curve, beats[:, None] + np.arange(-reach, reach + 1), mode="wrap")
    seam = np.take(curve, np.arange(-3, 4), mode="wrap")
    return _ratio_db(max(float(seam.max()) ** 2, 1e-12), max(float(around.max()) ** 2, 1e-12))
