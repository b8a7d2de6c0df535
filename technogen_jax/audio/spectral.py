"""Spectra of audio in pure JAX: short-time Fourier transform and inverse, mel bands, Griffin-Lim, limiter."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# `istft` divides by at least this share of the largest window sum. At both ends only the edge of one
# window covers the audio, and the errors of an inconsistent spectrum would grow without bound; so they
# grow at most 1 / sqrt(0.1) = 3.2 times. Elsewhere the sum of squared Hann windows is at least half of
# its largest value.
_LEAST_WINDOW_SUM = 0.1
CEILING_DBFS = -0.5  # chosen: the usual ceiling of techno masters


def stft(audio: jax.Array, n_fft: int, hop_length: int, pad_end: bool = False) -> jax.Array:
    """Returns the complex spectrum of frames that begin at 0, hop_length, ...

    Args:
        audio: `[..., T]`, T not below `n_fft` unless `pad_end`.
        n_fft: frame length; the window is a periodic Hann window of this length.
        hop_length: samples from frame to frame.
        pad_end: whether zeros behind complete the frames that the audio's end cuts, as in TensorFlow's `tf.signal.stft`.

    Returns:
        complex64 `[..., N, n_fft // 2 + 1]`: N = ceil(T / hop_length) with `pad_end`, otherwise the whole frames,
        1 + (T - n_fft) // hop_length.

    Raises:
        ValueError: the audio is shorter than a frame and is not to be padded.
    """
    samples = audio.shape[-1]
    if pad_end:
        padded = (-(-samples // hop_length) - 1) * hop_length + n_fft
        audio = jnp.pad(audio, [(0, 0)] * (audio.ndim - 1) + [(0, max(padded - samples, 0))])
        samples = padded
    if samples < n_fft:
        raise ValueError(f"stft: expected at least n_fft = {n_fft} samples, got {samples}")
    count = 1 + (samples - n_fft) // hop_length
    if n_fft % hop_length == 0:  # without an index for each sample of each frame, a constant of some megabytes
        blocks = audio[..., : (count - 1) * hop_length + n_fft]
        return _spectrum(blocks.reshape(*audio.shape[:-1], -1, hop_length), n_fft)
    starts = np.arange(count) * hop_length
    frames = audio[..., starts[:, None] + np.arange(n_fft)]  # [..., N, n_fft]
    return jnp.fft.rfft(frames * hann(n_fft))


def istft(spectrum: jax.Array, n_fft: int, hop_length: int) -> jax.Array:
    """Returns the audio whose `stft` is closest to a spectrum, in the least-squares sense.

    It is the sum of the windowed frames divided by the sum of the squared windows. Without that division frames that
    overlap by half leave an amplitude modulation of 6 dB, once a hop.

    Args:
        spectrum: `[..., N, n_fft // 2 + 1]`.
        n_fft: frame length.
        hop_length: samples from frame to frame, at most half of `n_fft` and a divisor of it.

    Returns:
        `[..., (N - 1) * hop_length + n_fft]`; it fades in and out over the few samples where the windows are nearly 0.

    Raises:
        ValueError: hop_length is too long or does not divide n_fft.

    Reference: Griffin, Lim, "Signal estimation from modified short-time Fourier transform", IEEE Transactions on
    Acoustics, Speech, and Signal Processing 32(2), 1984, equation 6.
    """
    if n_fft % hop_length or hop_length > n_fft // 2:
        raise ValueError(
            f"istft: expected a hop_length that divides n_fft = {n_fft} into two or more, got {hop_length}"
        )
    frames = jnp.fft.irfft(spectrum, n_fft) * hann(n_fft)
    window_sum = _overlap_add(jnp.broadcast_to(hann(n_fft) ** 2, frames.shape[-2:]), hop_length)
    return _overlap_add(frames, hop_length) / jnp.maximum(window_sum, _LEAST_WINDOW_SUM * jnp.max(window_sum))


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def griffin_lim(
    magnitude: jax.Array, n_fft: int, hop_length: int, iterations: int = 16, momentum: float = 0.0
) -> jax.Array:
    """Returns audio whose spectrum has approximately the given magnitudes.

    The phases start at zero, so that the result is always the same.

    Args:
        magnitude: `[..., N, n_fft // 2 + 1]`, at least 0.
        n_fft: frame length.
        hop_length: samples from frame to frame, at most half of `n_fft` and a divisor of it.
        iterations: how often the phases are taken from the audio's own spectrum.
        momentum: 0 for Griffin and Lim's algorithm; the fast one adds this share of the last change, 0.99 in its paper.

    Returns:
        `[..., (N - 1) * hop_length + n_fft]`.

    Reference: Griffin, Lim 1984, as for `istft`; Perraudin, Balazs, Sondergaard, "A fast Griffin-Lim algorithm", WASPAA
    2013, with its step written as in librosa.
    """
    forward = functools.partial(stft, n_fft=n_fft, hop_length=hop_length)
    inverse = functools.partial(istft, n_fft=n_fft, hop_length=hop_length)
    tiny = np.finfo(np.float32).tiny  # against 0 / 0 where the spectrum is silent

    def iterate(_, carried):
        spectrum, before = carried
        now = forward(inverse(spectrum))
        ahead = now - momentum / (1 + momentum) * before
        return magnitude * (ahead / (jnp.abs(ahead) + tiny)), now

    start = jnp.asarray(magnitude, jnp.complex64)
    spectrum, _ = jax.lax.fori_loop(0, iterations, iterate, (start, jnp.zeros_like(start)))
    return inverse(spectrum)


def log_mel(
    audio: jax.Array, sample_rate_hz: int, *, n_fft: int, hop_length: int, n_mels: int, fmin_hz: float
) -> jax.Array:
    """Returns the natural logarithm of the mel power spectrogram, `log(mel + 1e-5)`, up to half the rate.

    Args:
        audio: `[..., T]` in [-1, 1].
        sample_rate_hz: its rate.
        n_fft: frame length.
        hop_length: samples from frame to frame.
        n_mels: number of bands, Slaney's scale and area normalisation.
        fmin_hz: lower edge of the lowest band.

    Returns:
        `[..., N, n_mels]`.
    """
    power = jnp.abs(stft(audio, n_fft, hop_length)) ** 2
    filters = mel_filters(sample_rate_hz, n_fft, n_mels, fmin_hz)
    return jnp.log(jnp.matmul(power, filters.T, precision="highest") + 1e-5)


@functools.cache
def mel_filters(sample_rate_hz: int, n_fft: int, n_mels: int, fmin_hz: float) -> np.ndarray:
    """Returns the weights of the bins in each mel band, `[n_mels, n_fft // 2 + 1]`: Slaney's scale, equal areas."""
    import librosa  # takes a second to import

    return librosa.filters.mel(sr=sample_rate_hz, n_fft=n_fft, n_mels=n_mels, fmin=fmin_hz)


def hann(n_fft: int) -> np.ndarray:
    """Returns the periodic Hann window, float32 `[n_fft]`."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


def noise_power(n_fft: int) -> float:
    """Returns the mean power of a spectrum of white noise of unit deviation: 3/8 of the Hann window's length."""
    return 3 / 8 * n_fft


def matmul_banded(x: jax.Array, matrix: np.ndarray) -> jax.Array:
    """Returns `x @ matrix` for a banded matrix, as between bins and mel bands, in blocks that skip most zeros.

    Args:
        x: `[..., D]`.
        matrix: `[D, M]`.

    Returns:
        `[..., M]`.
    """
    blocks = []
    for block in np.array_split(matrix, 4, 1):  # more blocks save little: writing the result then dominates
        rows = np.flatnonzero(block.any(1))
        used = slice(rows[0], rows[-1] + 1) if len(rows) else slice(1)
        blocks.append(jnp.matmul(x[..., used], block[used]))
    return jnp.concatenate(blocks, -1)


def rise(frequencies_hz: np.ndarray, edges_hz: tuple[float, float]) -> np.ndarray:
    """Returns the gain of a high-pass filter: half a cosine from 0 at the lower edge to 1 at the upper."""
    low_hz, high_hz = edges_hz
    return 0.5 - 0.5 * np.cos(np.pi * np.clip((frequencies_hz - low_hz) / (high_hz - low_hz), 0, 1))


def _overlap_add(frames: jax.Array, hop_length: int) -> jax.Array:
    """`[..., N, n_fft]` to `[..., (N - 1) * hop_length + n_fft]`: each frame's blocks of a hop added to its neighbours'."""
    *lead, count, n_fft = frames.shape
    blocks = frames.reshape(*lead, count, n_fft // hop_length, hop_length)
    last = n_fft // hop_length - 1
    keep = [(0, 0)] * len(lead)
    total = sum(jnp.pad(blocks[..., i, :], [*keep, (i, last - i), (0, 0)]) for i in range(last + 1))
    return total.reshape(*lead, -1)


def resample_circular(audio: jax.Array, samples: int) -> jax.Array:
    """Returns a loop resampled to another length; the frequencies that both lengths can hold do not change.

    Args:
        audio: `[..., T]`, periodic.
        samples: length of the result.

    Returns:
        `[..., samples]`.
    """
    before = audio.shape[-1]
    if samples == before:
        return audio
    spectrum = jnp.fft.rfft(audio)[..., : (min(samples, before) + 1) // 2]  # without a bin at half the lower rate
    return jnp.fft.irfft(spectrum, samples) * (samples / before)  # irfft fills up with zeros


def stft_circular(audio: jax.Array, n_fft: int, hop_length: int) -> jax.Array:
    """Returns the complex spectrum of a loop, with frames centred on the middle of each hop.

    Rotating the audio by a hop rotates the frames by one.

    Args:
        audio: `[..., T]`, T a multiple of `hop_length` and at least `n_fft`.
        n_fft: frame length; the window is a periodic Hann window.
        hop_length: samples from frame to frame, a divisor of `n_fft`.

    Returns:
        complex64 `[..., T / hop_length, n_fft // 2 + 1]`.

    Raises:
        ValueError: hop_length does not divide both lengths, or the loop is shorter than a frame.
    """
    count, parts = _frames_of_loop(audio.shape[-1], n_fft, hop_length)
    blocks = jnp.roll(audio, (n_fft - hop_length) // 2, -1).reshape(*audio.shape[:-1], count, hop_length)
    return _spectrum(jnp.concatenate([blocks, blocks[..., : parts - 1, :]], -2), n_fft)


def _frames_of_loop(samples: int, n_fft: int, hop_length: int) -> tuple[int, int]:
    """Returns the number of hops in a loop and in a frame."""
    if samples % hop_length or n_fft % hop_length or samples < n_fft:
        raise ValueError(
            f"spectra of a loop: expected a hop_length that divides n_fft = {n_fft} and at least as many samples, got a hop_length of "
            f"{hop_length} and {samples} samples"
        )
    return samples // hop_length, n_fft // hop_length


def _spectrum(blocks: jax.Array, n_fft: int) -> jax.Array:
    """Returns spectra `[..., N, n_fft // 2 + 1]` from blocks of a hop `[..., N + parts - 1, hop_length]`."""
    parts = n_fft // blocks.shape[-1]
    count = blocks.shape[-2] - parts + 1
    frames = jnp.concatenate([blocks[..., i : i + count, :] for i in range(parts)], -1)
    return jnp.fft.rfft(frames * hann(n_fft))


def resynthesize_circular(
    function: Callable[[jax.Array, Any], Sequence[jax.Array]],
    audio: jax.Array,
    controls: Any,
    n_fft: int,
    hop_length: int,
    *,
    pieces: int = 1,
    before: int = 0,
) -> jax.Array:
    """Applies a function to the spectra of loops and returns the loops that match its result best.

    Best is meant in the least-squares sense. Spectra are computed and used for one piece of the loop at
    a time, so that they stay in the processor's caches. With two bars in pieces of a beat that halves the
    time: measured, see experiments/log/2026-11-29-decoding-by-beats-and-songs.md.

    Args:
        function: spectra `[B, S, before + N / pieces, n_fft // 2 + 1]` of a piece and its controls, as those below but with N / pieces
            frames -> spectra `[B, N / pieces, n_fft // 2 + 1]` of each of C signals. It is traced once.
        audio: `[B, S, N * hop_length]`.
        controls: arrays `[B, N, ...]`, in a tree: the function's controls for each frame.
        n_fft: see `stft_circular`.
        hop_length: at most half of `n_fft` and a divisor of it.
        pieces: their number, a divisor of N that leaves at least `before` and `n_fft / hop_length - 1` frames in each.
        before: spectra ahead of a piece that the function is given too.

    Returns:
        `[B, C, N * hop_length]`.

    Raises:
        ValueError: lengths that do not fit, as in `stft_circular`, or fewer than two hops a frame; pieces that do not divide N, or
            are too short.

    Reference: Griffin and Lim 1984, as for `istft`.
    """
    count, parts = _frames_of_loop(audio.shape[-1], n_fft, hop_length)
    if parts < 2:
        raise ValueError(
            f"resynthesize_circular: expected two hops a frame or more, got {hop_length} of {n_fft} samples"
        )
    size, after = count // pieces, parts - 1
    if count % pieces or size < max(before, after):
        raise ValueError(
            f"resynthesize_circular: expected a number of pieces that divides {count} frames and leaves {max(before, after)} or more in "
            f"each, got {pieces}"
        )
    turn = (n_fft - hop_length) // 2

    def piece(given):
        made = jnp.stack(function(_spectrum(given[0], n_fft), given[1]), 1)
        return _overlap_add(jnp.fft.irfft(made, n_fft) * hann(n_fft), hop_length)  # [B, C, (size + after) * hop_length]

    blocks = jnp.roll(audio, turn, -1).reshape(*audio.shape[:2], pieces, size, hop_length)
    ahead, behind = jnp.roll(blocks, 1, 2)[..., size - before :, :], jnp.roll(blocks, -1, 2)[..., :after, :]
    blocks = jnp.moveaxis(jnp.concatenate([ahead, blocks, behind], 3), 2, 0)
    controls = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(len(x), pieces, size, *x.shape[2:]), 1, 0), controls)
    made = jnp.moveaxis(jax.lax.map(piece, (blocks, controls)), 0, 2)
    made = made.reshape(*made.shape[:3], size + after, hop_length)
    over = jnp.pad(jnp.roll(made[..., size:, :], 1, 2), [(0, 0)] * 3 + [(0, size - after), (0, 0)])
    total = (made[..., :size, :] + over).reshape(*made.shape[:2], -1)
    window_sum = np.tile((hann(n_fft) ** 2).reshape(parts, hop_length).sum(0), count)
    return jnp.roll(total / window_sum, -turn, -1)


def saturate(audio: jax.Array, *, knee_dbfs: float = CEILING_DBFS) -> jax.Array:
    """Returns the audio softly clipped: levels above the knee, in decibels, are divided by four.

    Before a limiter this lowers the short peaks, so that the limiter lowers their surroundings less. Samples
    below the knee do not change at all.

    Args:
        audio: an array of any shape.
        knee_dbfs: the level above which samples change.
    """
    knee = np.float32(10 ** (knee_dbfs / 20))
    above = jnp.maximum(jnp.abs(audio) / knee, 1)
    return jnp.where(above > 1, jnp.sign(audio) * knee * jnp.sqrt(jnp.sqrt(above)), audio)


def limit_circular(
    audio: jax.Array,
    sample_rate_hz: int,
    *,
    ceiling_dbfs: float = CEILING_DBFS,
    attack_s: float = 0.003,
    hold_s: float = 0.01,
    release_s: float = 0.05,
) -> jax.Array:
    """Returns a loop without samples above the ceiling; a loop that has none does not change at all.

    The gain, one for all channels, falls before a peak and is where it must be at the peak. A hold of half a period leaves
    a steady tone its wave: with 10 ms, from 50 Hz up. What a sample becomes depends on `attack_s` after it and on
    `attack_s + hold_s + 8 release_s` before it, no more.

    Args:
        audio: `[B, T, C]`, periodic.
        sample_rate_hz: its rate.
        ceiling_dbfs: the highest sample. Between samples a wave can be higher: for EBU R 128, which allows -1 dB there, -2.
        attack_s: about the time in which the gain falls: twice a power of two samples.
        hold_s: time for which it then stays.
        release_s: time in which the reduction, in decibels, falls to 1 / e.

    Returns:
        `[B, T, C]` within the ceiling.

    Reference: Hämäläinen, "Smoothing of the control signal without clipped output in digital peak limiters", DAFx 2002:
    a mean of the largest reductions around is never less than what is needed here.
    """
    ceiling = np.float32(10 ** (ceiling_dbfs / 20))
    doublings = max(0, round(np.log2(max(attack_s * sample_rate_hz / 2, 1))))
    attack = 2 * (2**doublings - 1)
    hold, release = attack + 1 + round(hold_s * sample_rate_hz), max(1, round(8 * release_s * sample_rate_hz))
    reduction = jnp.log(jnp.maximum(jnp.max(jnp.abs(audio), -1) / ceiling, 1))  # [B, T], nepers
    reduction = jnp.pad(reduction, [(0, 0), (hold - 1 + release - 1, attack)], mode="wrap")
    reduction = _largest_before(reduction, hold)
    reduction = _largest_before(reduction, release, np.exp(-1 / (release_s * sample_rate_hz)))  # [B, T + attack]
    for shift in 2 * [2**n for n in range(doublings)]:  # twice the mean of 2 ** doublings values
        reduction = (reduction[:, shift:] + reduction[:, :-shift]) / 2
    return jnp.clip(audio * jnp.exp(-reduction)[..., None], -ceiling, ceiling)  # above it by rounding only


def _largest_before(values: jax.Array, count: int, decay: float = 1.0) -> jax.Array:
    """`[B, T]` to `[B, T - count + 1]`: the largest of each `count` values, a value k back counting as `decay ** k` of itself."""
    span = 1
    while span < count:
        shift = min(span, count - span)
        values = jnp.maximum(values[:, shift:], values[:, :-shift] * np.float32(decay**shift))
        span += shift
    return values
