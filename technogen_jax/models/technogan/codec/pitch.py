"""What has a pitch in a loop, as numbers for each sixteenth note and back: the pitch of one voice, and lines that stand.

A pitch is a place on a circle of five octaves, and what is kept of it are the first cosines and sines of that place,
times how sure it is: numbers without jumps, which a linear code and a generator can blend. Read back, the nearest pitch
counts; between two pitches they cancel, and nothing has a pitch. Twice a sixteenth, so that notes may slide.

Lines are the partials of metal, bells and chords: bins that stand out of their surroundings, on a grid of 20 cents. They
are kept in the same way, all in one sum, and the strongest few are read back, one after the other.

*Source*: pitch by kernels on square roots of magnitudes, harmonics weighted by their roots: Camacho, Harris 2008 (J. Acoust.
Soc. Am. 124(3)), SWIPE; here with bells for cosines, on a spectrum divided by its surroundings.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.audio import spectral

PITCHES_HZ = (55.0, 880.0)
LOWEST_HZ = 220.0, 125.0  # of lines in mid and side, of five octaves each: the side has no waveform below
HARMONICS, LINE_HARMONICS = 8, 16  # cosines, and as many sines, of the circle
PITCH_SIZE, LINE_SIZE = 2 * 2 * HARMONICS, 2 * LINE_HARMONICS  # numbers a sixteenth
LINES_PER_OCTAVE, LINES_AT_ONCE = 60, 3  # steps of 20 cents; lines that are kept
LINES = 5 * LINES_PER_OCTAVE
NOTES, BAR_LINES = 6, 8  # that a generator has for a bar; nine bars of ten of the corpus have no more notes
QUARTER_TONES, LINE_STEPS = 4 * 24 + 1, LINES // 2  # that one may be: of four octaves, both ends; of 40 cents
_SHARP = 4.0  # of logits of notes and lines: a new generator's are then more one than many
_OCTAVES, _LINE_OCTAVES = 5, 6  # of the circle: one more than is used, so that the lowest is not beside the highest
_PER_OCTAVE = 96  # candidates: an eighth of a semitone, with a parabola between
_READ_PER_OCTAVE = 240  # candidates when reading back: five cents
# Strengths of a kernel: white noise reaches the first once in a thousand; above the second no doubt is left.
_SURE = (0.25, 0.5)
_WIDTH_BINS, _WIDTH = 0.9, 0.003  # of a bell: of a Hann window's line, and what a candidate may be off
_HEARD_HZ = (180.0, 5000.0)  # where a pitch's harmonics are looked for: above the kick
_AROUND_HZ = 200.0  # half of the surroundings that a bin is held against
# Times its surroundings: noise hardly reaches the first, Rayleigh's law says once in 15,000 bins.
_STANDS_OUT = (3.5, 8.0)
_SILENT = 1e-5  # of magnitudes, a sine at full scale being about 1
# Half octaves in which the energy of lines is measured; what lies below, bass and kick, is no surroundings of theirs.
SHARE_EDGES_HZ = 200 * 2 ** (np.arange(10) / 2)


def numbers_of(mid: jax.Array, rate_hz: float, steps: int) -> tuple[jax.Array, jax.Array]:
    """Of a loop `[B, T]` its pitch, `[B, steps, PITCH_SIZE]`, and its lines, `[B, steps, LINE_SIZE]`.

    Args:
        mid: T is a whole number of `2 * steps`.
        rate_hz: of its samples.
        steps: sixteenths in it.
    """
    place, sure = find_pitch(mid, rate_hz, steps)
    angles = 2 * np.pi * place[..., None] * np.arange(1, HARMONICS + 1)
    pitch = sure[..., None] * jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)
    line = line_numbers(find_lines(mid, rate_hz, steps, LOWEST_HZ[0], (place, sure)))
    return pitch.reshape(len(mid), steps, PITCH_SIZE), line


def line_numbers(lines: jax.Array) -> jax.Array:
    """The numbers of the strongest lines, `[..., LINE_SIZE]`, of how far each stands out, `[..., LINES]`."""
    heights, tone = jax.lax.top_k(lines, LINES_AT_ONCE)
    return jnp.sum(heights[..., None] * jnp.asarray(_line_waves().T)[tone], -2)


def find_pitch(signal: jax.Array, rate_hz: float, steps: int) -> tuple[jax.Array, jax.Array]:
    """(place on the circle, how sure in [0, 1]), `[B, 2 * steps]` each, of a loop `[B, T]`."""
    n_fft = signal.shape[-1] // steps
    _, ratio, bins_hz = _above_surroundings(signal, n_fft, n_fft // 2, rate_hz, _HEARD_HZ[1])
    heard = (bins_hz >= _HEARD_HZ[0]) & (bins_hz <= _HEARD_HZ[1])
    kernels, spectrum = _kernels(rate_hz / n_fft, tuple(bins_hz[heard])), jnp.sqrt(ratio[..., heard])
    spectrum = spectrum - spectrum.mean(-1, keepdims=True)
    least = 0.25 * spectrum.shape[-1] ** 0.5  # a spectrum as even as silence has no pitch
    length = jnp.linalg.norm(spectrum, axis=-1, keepdims=True)
    strength = jnp.matmul(spectrum / jnp.maximum(length, least), kernels, precision="highest")
    best = jnp.clip(jnp.argmax(strength, -1), 1, strength.shape[-1] - 2)[..., None]
    before, peak, after = (jnp.take_along_axis(strength, best + i, -1)[..., 0] for i in (-1, 0, 1))
    curve = before - 2 * peak + after
    shift = jnp.where(curve < -1e-6, 0.5 * (before - after) / jnp.minimum(curve, -1e-6), 0.0)
    place = (best[..., 0] + jnp.clip(shift, -0.5, 0.5)) / (_PER_OCTAVE * _OCTAVES)
    return place, _share(peak, _SURE)


def speak_pitch(choices: jax.Array, notes: jax.Array) -> jax.Array:
    """The numbers of the pitch that a generator chooses, `[..., steps, PITCH_SIZE]`.

    Args:
        choices: logits `[..., steps, 2, 1 + NOTES]`, for each half of a sixteenth: the first says how sure the pitch is, the others
            which of the bar's notes it is.
        notes: logits `[..., NOTES, QUARTER_TONES]`, which quarter-tone each note is, or what lies between two.
    """
    kept = jnp.matmul(jax.nn.softmax(_SHARP * notes), _waves(np.arange(QUARTER_TONES) / (24 * _OCTAVES), HARMONICS).T)
    numbers = jnp.einsum("...shn,...nk->...shk", note_weights(choices), kept)
    return numbers.reshape(*numbers.shape[:-2], PITCH_SIZE)


def note_weights(choices: jax.Array) -> jax.Array:
    """How much of each of the bar's notes there is in each half of a sixteenth, `[..., NOTES]`; the choices are `speak_pitch`'s."""
    return jax.nn.sigmoid(choices[..., :1]) * jax.nn.softmax(choices[..., 1:])


def speak_lines(heights: jax.Array, lines: jax.Array) -> jax.Array:
    """The numbers of the lines that a generator chooses, `[..., steps, LINE_SIZE]`.

    Args:
        heights: logits `[..., steps, BAR_LINES]`, how far each of the bar's lines stands out.
        lines: logits `[..., BAR_LINES, LINE_STEPS]`, at which step of 40 cents each is.
    """
    kept = jnp.matmul(line_weights(lines), _line_waves()[:, ::2].T)
    return jnp.matmul(jax.nn.sigmoid(heights), kept)


def line_weights(lines: jax.Array) -> jax.Array:
    """How much of each step of 40 cents a line is, `[..., LINE_STEPS]`; the argument is `speak_lines`'s."""
    return jax.nn.softmax(_SHARP * lines)


def pitches(numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the first of `numbers_of` says: (Hz, how sure in [0, 1]), `[B, 2 * steps]` each."""
    octaves = np.log2(PITCHES_HZ[1] / PITCHES_HZ[0])
    places = np.arange(int(octaves * _READ_PER_OCTAVE) + 1) / (_READ_PER_OCTAVE * _OCTAVES)
    waves = _waves(places, HARMONICS) / HARMONICS
    likeness = jnp.matmul(numbers.reshape(len(numbers), -1, 2 * HARMONICS), waves)
    pitch_hz = jnp.asarray(PITCHES_HZ[0] * 2 ** (places * _OCTAVES), jnp.float32)[jnp.argmax(likeness, -1)]
    return pitch_hz, jnp.clip(jnp.max(likeness, -1), 0, 1)


def find_lines(
    signal: jax.Array, rate_hz: float, steps: int, lowest_hz: float, pitch: tuple[jax.Array, jax.Array] | None = None
) -> jax.Array:
    """How far each step of 20 cents stands out of a loop `[B, T]`, `[B, steps, LINES]` in [0, 1].

    Args:
        signal: T is a whole number of `2 * steps`.
        rate_hz: of its samples.
        steps: sixteenths in it.
        lowest_hz: of the steps.
        pitch: what `find_pitch` found, whose harmonics do not count.
    """
    hop_length = signal.shape[-1] // steps
    n_fft = 2 * hop_length
    _, ratio, bins_hz = _above_surroundings(
        signal, n_fft, hop_length, rate_hz, lowest_hz * 2 ** (LINES / LINES_PER_OCTAVE)
    )
    is_peak = (ratio >= jnp.roll(ratio, 1, -1)) & (ratio >= jnp.roll(ratio, -1, -1))
    line = jnp.where(is_peak, _share(ratio, _STANDS_OUT), 0)
    if pitch is not None:
        place, sure = (values.reshape(len(signal), steps, 2, 1) for values in pitch)
        first_hz = PITCHES_HZ[0] * 2 ** (place * _OCTAVES)
        order = bins_hz.astype(np.float32) / first_hz  # [B, steps, 2, bins]
        is_harmonic = jnp.abs(order - jnp.round(order)) * first_hz < 1.5 * rate_hz / hop_length
        line = line * (1 - jnp.max(sure * is_harmonic, 2))
    tones = np.round(LINES_PER_OCTAVE * np.log2(np.maximum(bins_hz, 1) / lowest_hz)).astype(int)
    edges = [np.flatnonzero(tones == tone) for tone in range(LINES)]
    return jnp.stack([line[..., bins].max(-1) if len(bins) else 0 * line[..., 0] for bins in edges], -1)


def line_shares(signal: jax.Array, rate_hz: float, steps: int) -> jax.Array:
    """Energy of lines in each half octave of `SHARE_EDGES_HZ`, of all between the first and the last, `[B, 9]`, of a loop `[B, T]`.

    Args:
        signal: T is a whole number of `2 * steps`.
        rate_hz: of its samples.
        steps: sixteenths in it.
    """
    n_fft, edges_hz = signal.shape[-1] // steps, SHARE_EDGES_HZ
    magnitude, ratio, bins_hz = _above_surroundings(signal, n_fft, n_fft // 2, rate_hz, edges_hz[-1], edges_hz[0])
    is_line = ratio > _STANDS_OUT[0]
    is_line = is_line | jnp.roll(is_line, 1, -1) | jnp.roll(is_line, -1, -1)  # with a window's two neighbours
    power = magnitude**2
    within = np.float32((bins_hz[:, None] >= edges_hz[:-1]) & (bins_hz[:, None] < edges_hz[1:]))
    of_lines, of_all = (
        jnp.sum(jnp.matmul(values, within, precision="highest"), 1) for values in (power * is_line, power)
    )
    return of_lines / jnp.maximum(jnp.sum(of_all, -1, keepdims=True), 1e-15)


def lines_hz(lowest_hz: float) -> np.ndarray:
    """`[LINES]`: the frequencies of the grid."""
    return lowest_hz * 2 ** (np.arange(LINES) / LINES_PER_OCTAVE)


def lines(numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the second of `numbers_of` says: (steps of 20 cents above the lowest, how far they stand out in [0, 1]), `[B, steps, LINES_AT_ONCE]`."""
    waves, found = _line_waves(), []
    for _ in range(LINES_AT_ONCE):
        likeness = jnp.matmul(numbers, waves) / LINE_HARMONICS
        tone, height = jnp.argmax(likeness, -1), jnp.clip(jnp.max(likeness, -1), 0, 1)
        numbers = numbers - height[..., None] * jnp.asarray(waves.T)[tone]
        found.append((tone, height))
    tones, heights = zip(*found, strict=True)
    return jnp.stack(tones, -1), jnp.stack(heights, -1)


def _waves(places: np.ndarray, harmonics: int) -> np.ndarray:
    """`[2 harmonics, places]`: cosines and sines of places on the circle."""
    angles = 2 * np.pi * places * np.arange(1, harmonics + 1)[:, None]
    return np.concatenate([np.cos(angles), np.sin(angles)]).astype(np.float32)


def _line_waves() -> np.ndarray:
    return _waves(np.arange(LINES) / (LINES_PER_OCTAVE * _LINE_OCTAVES), LINE_HARMONICS)


def _above_surroundings(signal, n_fft, hop_length, rate_hz, highest_hz, lowest_hz=0.0):
    """(magnitudes of a loop's frames, `[B, N, bins]`; the same over their means around; the bins' Hz), up to a frequency.

    Bins below the lowest frequency are no surroundings, and their own ratio is 0.
    """
    bins = min(n_fft // 2, int((highest_hz + _AROUND_HZ) * n_fft / rate_hz)) + 1
    magnitude = jnp.abs(spectral.stft_circular(signal, n_fft, hop_length)[..., :bins]) / (n_fft / 4)
    bins_hz = np.arange(bins) * (rate_hz / n_fft)
    heard = np.float32(bins_hz >= lowest_hz)
    distance = np.arange(bins) - np.arange(bins)[:, None]
    window = np.cos(np.pi / 2 * np.minimum(np.abs(distance) * (rate_hz / n_fft / _AROUND_HZ), 1)) ** 2 * heard[:, None]
    mean = jnp.matmul(magnitude, np.float32(window / np.maximum(window.sum(0), 1e-9)))
    return magnitude, heard * magnitude / (mean + _SILENT), bins_hz


@functools.lru_cache(maxsize=8)
def _kernels(bin_hz, bins_hz):
    """`[bins, candidates]` of unit length and mean zero: a bell at each harmonic.

    All as narrow as a line is, however far apart: half of a pitch then has a bell in vain for each that hits.
    """
    octaves = np.log2(PITCHES_HZ[1] / PITCHES_HZ[0])
    candidates_hz = PITCHES_HZ[0] * 2 ** (np.arange(int(octaves * _PER_OCTAVE) + 1) / _PER_OCTAVE)
    bins_hz = np.array(bins_hz)[:, None]
    harmonic = np.maximum(np.round(bins_hz / candidates_hz), 1)
    width_hz = _WIDTH_BINS * bin_hz + _WIDTH * bins_hz
    kernels = np.exp(-(((bins_hz - harmonic * candidates_hz) / width_hz) ** 2) / 2) / harmonic**0.5
    kernels -= kernels.mean(0)
    return (kernels / np.linalg.norm(kernels, axis=0)).astype(np.float32)


def _share(values, edges):
    return jnp.clip((values - edges[0]) / (edges[1] - edges[0]), 0, 1)
