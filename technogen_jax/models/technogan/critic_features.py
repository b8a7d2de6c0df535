"""What the discriminator sees besides the code: logarithmic powers, and spectra of the low end.

On a linear scale a network with gradient penalties hardly sees what is small: how quiet a rest is,
how still a pad is, how exactly a beat returns, how components of small deviation move. On a
logarithmic scale it sees them as well as what is large. Measured in
experiments/log: 2026-11-28-notes-and-rests.md, 2026-11-28-beat-shares.md,
2026-11-29-smaller-critic.md, 2026-11-29-low-end-synthesis.md.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from technogen_jax.models.convolution import convolve_circular
from technogen_jax.models.technogan.codec.analysis import unfold
from technogen_jax.models.technogan.codec.codec import Codec
from technogen_jax.models.technogan.codec.components import make_step_kernel
from technogen_jax.models.technogan.layout import BAND_GROUPS, STEPS_PER_BEAT, group_members

_LAGS = (1, STEPS_PER_BEAT, 2 * STEPS_PER_BEAT)  # steps: a sixteenth, a beat, half a bar ago
_TIMES = 4  # times within a sixteenth at which spectra are seen
_GROUP_SIZE = 8  # components of a part, of about the same deviation, that share one mean power
_QUIETEST = 1e-3  # added to mean squares, which are about 1: 30 dB below the usual. Chosen
_LOW_FLOOR = 0.003  # of magnitudes below the crossover: 50 dB below a sine at full scale. Chosen
_RESTING = ("low", "pitch", "partials", "side_partials")  # parts that can be silent
_MOVING = ("mid", "side", "low", "pan")  # parts whose components have powers of their own


class CriticFeatures:
    """The features: rests, changes of spectra, powers of components, spectra of the low end.

    Args:
        codec: the codec of the code.

    Attributes:
        size: their number.
    """

    def __init__(self, codec: Codec):
        self._codec, layout = codec, codec.layout
        resting = [part for name, part in layout.items() if name in _RESTING]
        moving = [part for name, part in layout.items() if name in _MOVING]
        self._rest_means = np.zeros((layout.size, len(resting)), np.float32)
        for column, part in enumerate(resting):
            self._rest_means[part.slice, column] = 1 / part.size
        self._moving_scale = np.concatenate([part.take(codec.scale) for part in moving])
        means = (_average_groups(part.size) for part in moving)
        self._group_means = np.float32(scipy.linalg.block_diag(*means))
        self._low_windows = _make_low_windows(codec.grid.low_samples)
        self._times = min(_TIMES, codec.grid.frames_per_step)
        self.band_groups = len(layout.spectra) * BAND_GROUPS
        self.low_bins = self._low_windows.shape[1]
        changes, powers = 2 + len(_LAGS), 1 + len(_LAGS)
        groups = self._group_means.shape[1]
        self.size = len(resting) + changes * self.band_groups + powers * groups + self.low_bins

    def __call__(self, code: jax.Array) -> jax.Array:
        """Code `[B, S, K]` to features `[B, S, size]`."""
        picture = self.picture_spectra(code)  # [B, S, times, groups]
        components = self._measure_components(code)
        powers = [
            self._measure_rests(code),
            self._measure_motion(picture),
            self._measure_seams(picture),
            self._measure_spectral_changes(picture),
            components,
        ]
        return jnp.concatenate([jnp.log(jnp.concatenate(powers, -1) + _QUIETEST), self.picture_low_end(code)], -1)

    def _measure_rests(self, code):
        """Mean squares of the distance from silence: a rest is silence, not merely soft."""
        return (code - self._codec.silence) ** 2 @ self._rest_means

    def _measure_motion(self, picture):
        """How far spectra change within a sixteenth: a hit decays, a pad is steady."""
        return jnp.mean((picture - jnp.mean(picture, 2, keepdims=True)) ** 2, 2)

    def _measure_seams(self, picture):
        """How far spectra jump from one sixteenth to the next: attacks, or none."""
        return (picture[:, :, 0] - jnp.roll(picture[:, :, -1], 1, 1)) ** 2

    def _measure_spectral_changes(self, picture):
        """Changes since a sixteenth, a beat and half a bar ago: how exactly music repeats."""
        batch, steps, *shape = picture.shape
        changes = _subtract_earlier(picture.reshape(batch, steps, -1)).reshape(batch, steps, len(_LAGS), *shape)
        return jnp.mean(changes**2, 3).reshape(batch, steps, -1)

    def _measure_components(self, code):
        """Powers of components and of their changes: small ones move and repeat like large ones."""
        parts = self._codec.layout.split(code)
        values = [getattr(parts, name) for name in _MOVING if getattr(parts, name) is not None]
        values = jnp.concatenate(values, -1) / self._moving_scale
        values = jnp.concatenate([values[:, :, None], _subtract_earlier(values)], 2) ** 2 @ self._group_means
        return values.reshape(*code.shape[:2], -1)

    def picture_spectra(self, code: jax.Array) -> jax.Array:
        """Levels of mid and side in groups of bands, nepers `[B, S, times, groups]`."""
        rows, offset = self._picture_map
        shape = *code.shape[:2], self._times, self.band_groups
        return (jnp.matmul(code[..., : len(rows)], rows, precision="highest") + offset).reshape(shape)

    @functools.cached_property
    def _picture_map(self) -> tuple[np.ndarray, np.ndarray]:
        """The map `[K, times * groups]` of the components, and the picture of the mean."""
        # One small product, not the large ones of decoding and averaging: the discriminator needs
        # it in every step.
        layout, frames = self._codec.layout, self._codec.grid.frames_per_step
        names = layout.spectra
        rows = np.zeros((layout.low.start, self._times, len(names), BAND_GROUPS))
        offsets = []
        for i, name in enumerate(names):
            part, components = getattr(layout, name), getattr(self._codec.components, name)
            means = _average_picture(frames, part.features // frames)
            rows[part.slice, :, i] = (components.decode_matrix @ means).reshape(-1, self._times, BAND_GROUPS)
            offsets.append((components.mean @ means).reshape(self._times, BAND_GROUPS))
        return np.float32(rows.reshape(len(rows), -1)), np.float32(np.stack(offsets, 1).reshape(-1))

    def picture_low_end(self, code: jax.Array) -> jax.Array:
        """Logarithmic spectra of the low waveform, `[B, S, low_bins]` of about unit deviation.

        The discriminator sees these and powers in place of the components of `low`: it would
        memorize phases, which are inaudible.
        """
        kernel, mean = self._low_map
        waves = convolve_circular(self._codec.layout.split(code).low, kernel, "highest") + mean
        real, imag = jnp.split(waves, 2, -1)
        return (0.5 * jnp.log(real**2 + imag**2 + _LOW_FLOOR**2) + 3) / 2  # to about unit deviation

    @functools.cached_property
    def _low_map(self) -> tuple[np.ndarray, np.ndarray]:
        """The convolution from components of `low` to spectra, and the spectra of the mean."""
        windows, components = self._low_windows, self._codec.components.low

        def transform(features):
            low = unfold(features)
            around = np.concatenate([np.roll(low, 1, 1), low, np.roll(low, -1, 1)], -1)
            return around @ np.concatenate([windows.real, windows.imag], 1)

        mean = transform(np.broadcast_to(components.mean, (1, 1, len(components.mean))))[0, 0]
        size = self._codec.layout.low.size
        return make_step_kernel(lambda x: transform(x @ components.decode_matrix), size, 2), np.float32(mean)


def _subtract_earlier(x: jax.Array) -> jax.Array:
    """The change of `[B, S, W]` since each of `_LAGS`, around the loop, `[B, S, lags, W]`."""
    return jnp.stack([x - jnp.roll(x, lag, 1) for lag in _LAGS], 2)


def _average_groups(size: int) -> np.ndarray:
    """`[size, groups]`: the means of groups of about eight components in a row."""
    members = group_members(size, max(size // _GROUP_SIZE, 1)).T
    return members / members.sum(0)


def _average_picture(frames: int, bands: int) -> np.ndarray:
    """`[frames * bands, times * groups]`: the matrix that averages levels into a picture.

    Bands are averaged in groups. Frames are averaged into four times: the first frame, each half of
    the inner ones, the last frame.
    """
    times = min(_TIMES, frames)
    inner = np.arange(frames - 2) * 2 // max(frames - 2, 2)
    when = np.r_[0, 1 + inner, times - 1] == np.arange(times)[:, None]
    when, where = (choice / np.maximum(choice.sum(1, keepdims=True), 1) for choice in (when, group_members(bands)))
    return np.kron(when, where).T.astype(np.float32)


def list_low_windows(samples: int) -> list[tuple[float, int, int]]:
    """(length, count, bins of each) of the windows of a sixteenth of that many samples, in order."""
    return [(size, round(2 * samples / size), int(size / 2)) for size in (2 * samples, samples, samples / 2)]


def _make_low_windows(samples: int) -> np.ndarray:
    """`[3 * samples, bins]`, complex: windowed waves over a sixteenth and both neighbours.

    Hann windows of two sixteenths, of one and of a half, each half over the one before: a sustained
    tone is clear in the first, a kick that falls in the last. A sine of amplitude 1 gives 1.
    """
    places, windows = np.arange(3 * samples) + 0.5, []
    for size, count, bins in list_low_windows(samples):
        centres = samples + size / 2 * (np.arange(count) + 0.5)
        place = (places[:, None] - centres) / size
        window = np.where(np.abs(place) < 0.5, np.cos(np.pi * place) ** 2, 0)
        waves = np.exp(2j * np.pi * place[..., None] * np.arange(1, bins + 1))
        windows.append((2 * window / window.sum(0))[..., None] * waves)
    return np.concatenate([window.reshape(3 * samples, -1) for window in windows], 1)
