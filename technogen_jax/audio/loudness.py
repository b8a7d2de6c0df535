"""Loudness after ITU-R BS.1770: the one meter that both the data and the metrics are measured with.

The K-weighted energy of sub-blocks of 100 ms, four of which are one gated block of 400 ms. Here a sub-block is a whole
number of 32 samples: 100.1 ms at 44.1 kHz.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from technogen_jax.common.compiled import compiled

SILENCE_LUFS = -70.0  # BS.1770's absolute gate


def k_weighting(sample_rate_hz: float) -> np.ndarray:
    """BS.1770's two biquads at any rate, `[2, 6]` as `scipy.signal.sosfilt` takes them: high shelf, then high-pass.

    Raises:
        ValueError: a rate whose upper half does not hold the shelf.

    *Source*: ITU-R BS.1770-5, annex 1, gives them at 48 kHz; the analogue filters behind them are Brecht De Man's
    (https://github.com/BrechtDeMan/loudness.py), brought to this rate by the bilinear transform.
    """
    if sample_rate_hz < 4000:
        raise ValueError(f"K-weighting needs at least 4000 Hz, got {sample_rate_hz}")
    tangent, q = math.tan(math.pi * 1681.974450955533 / sample_rate_hz), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    scale = 1 + tangent / q + tangent**2
    shelf = [
        (high + band * tangent / q + tangent**2) / scale,
        2 * (tangent**2 - high) / scale,
        (high - band * tangent / q + tangent**2) / scale,
        1,
        2 * (tangent**2 - 1) / scale,
        (1 - tangent / q + tangent**2) / scale,
    ]
    tangent, q = math.tan(math.pi * 38.13547087602444 / sample_rate_hz), 0.5003270373238773
    scale = 1 + tangent / q + tangent**2
    high_pass = [1, -2, 1, 1, 2 * (tangent**2 - 1) / scale, (1 - tangent / q + tangent**2) / scale]
    return np.array([shelf, high_pass])


def gated_loudness(energies: np.ndarray) -> float:
    """BS.1770 loudness in LUFS from `LoudnessMeter.energies()` or a stretch of them; -inf where all is below the gate.

    Fewer than four sub-blocks make one shorter block.
    """
    energies = np.asarray(energies, np.float64)
    if not len(energies):
        return -math.inf
    width = min(4, len(energies))
    blocks = np.convolve(energies, np.full(width, 1 / width), "valid")
    blocks = blocks[blocks > _energy(SILENCE_LUFS)]
    if not len(blocks):
        return -math.inf
    return _lufs(blocks[blocks > _energy(_lufs(blocks.mean()) - 10)].mean())


def sub_block_samples(sample_rate_hz: int) -> int:
    """Length of the stretches whose energy `LoudnessMeter` measures."""
    return 32 * max(1, round(sample_rate_hz / 10 / 32))


class LoudnessMeter:
    """K-weighted energy of every sub-block of a stream that arrives in blocks of any length.

    A recursive filter needs each output before the next one, and its loop over samples costs a seventh of decoding an mp3. Here
    sixteen sub-blocks are filtered side by side, as if each began at rest. By the filter's linearity what rings on from before is
    `h s` more, h being the responses to its four numbers of state and s these numbers, and the energy

        sum (z + h s)^2 = sum z^2 + 2 s . (sum h z) + s . (sum h h') s

    All is in float64: where the two outputs all but cancel, as with DC, 16 digits leave enough.
    """

    def __init__(self, sample_rate_hz: int, channels: int):
        """Starts at rest."""
        self._sub_block = sub_block_samples(sample_rate_hz)
        self._responses = _responses(sample_rate_hz)
        self._sos = k_weighting(sample_rate_hz)
        self._audio = np.zeros((channels, _SIDE_BY_SIDE * self._sub_block), np.float32)
        self._filled = 0
        self._states = np.zeros((channels, _STATE))
        self._energies: list[np.ndarray] = []

    def add(self, audio: np.ndarray) -> None:
        """Takes the next `[T, C]` of the stream, float32."""
        while len(audio):
            head = audio[: self._audio.shape[1] - self._filled]
            self._audio[:, self._filled : self._filled + len(head)] = head.T
            self._filled += len(head)
            audio = audio[len(head) :]
            if self._filled == self._audio.shape[1]:
                self._flush()

    def energies(self) -> np.ndarray:
        """Ends the stream; the mean square of each whole sub-block, summed over the channels, float64."""
        self._flush()  # of which what is not whole, and what was left there by earlier ones, does not count
        return np.concatenate(self._energies) / self._sub_block

    def _flush(self) -> None:
        total = np.zeros(_SIDE_BY_SIDE)
        for audio, state in zip(self._audio, self._states, strict=True):
            total += _filter(audio.reshape(_SIDE_BY_SIDE, -1), self._sos, self._responses, state)
        self._energies.append(total[: self._filled // self._sub_block])
        self._filled = 0


def clip_loudness(energies: np.ndarray, offset: int, clip_samples: int, sample_rate_hz: int) -> float:
    """Gated loudness in LUFS of the sub-blocks that a clip covers, to the nearest one."""
    sub_block = sub_block_samples(sample_rate_hz)
    first = round(offset / sub_block)
    return gated_loudness(energies[first : first + max(1, round(clip_samples / sub_block))])


def _lufs(energy: float) -> float:
    return -0.691 + 10 * math.log10(energy)


def _energy(lufs: float) -> float:
    return 10 ** ((lufs + 0.691) / 10)


_SIDE_BY_SIDE = 16
_TILE = 16  # samples of each sub-block that are brought together; divides `sub_block_samples`
_STATE = 4


@functools.cache
def _responses(sample_rate_hz: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a state of 1 in each place, and silence: a sub-block's outputs `[T, 4]`, their products `[4, 4]`, in rows the states after it."""
    (*_, a4, a5), (b0, b1, b2, _, b4, b5) = k_weighting(sample_rate_hz)
    samples = sub_block_samples(sample_rate_hz)
    step = np.array([[-a4, 1, 0, 0], [-a5, 0, 0, 0], [b1 - b4 * b0, 0, -b4, 1], [b2 - b5 * b0, 0, -b5, 0]])
    rings = np.array([[b0, 0, 1, 0]])
    while len(rings) < samples:
        rings = np.concatenate([rings, rings @ np.linalg.matrix_power(step, len(rings))])
    rings = rings[:samples]
    return rings, rings.T @ rings, np.linalg.matrix_power(step, samples).T


@compiled
def _filter(audio, sos, responses, before):
    """Sums of squares `[16]` of 16 sub-blocks one after the other, `[16, T]`, filtered; `before`, the state `[4]`, becomes that after them."""
    a0, a1, a2, _, a4, a5 = sos[0]
    b0, b1, b2, _, b4, b5 = sos[1]
    rings, of_rings, after = responses  # h, sum h h', and where a state goes: see LoudnessMeter
    energies = np.zeros(_SIDE_BY_SIDE)
    products, state = np.zeros((_STATE, _SIDE_BY_SIDE)), np.zeros((_STATE, _SIDE_BY_SIDE))
    tile = np.empty((_TILE, _SIDE_BY_SIDE))
    for start in range(0, audio.shape[1], _TILE):
        for lane in range(_SIDE_BY_SIDE):
            for i in range(_TILE):
                tile[i, lane] = audio[lane, start + i]
        for i in range(_TILE):
            r0, r1, r2, r3 = rings[start + i, 0], rings[start + i, 1], rings[start + i, 2], rings[start + i, 3]
            for lane in range(_SIDE_BY_SIDE):
                x = tile[i, lane]
                y = a0 * x + state[0, lane]
                state[0, lane] = a1 * x - a4 * y + state[1, lane]
                state[1, lane] = a2 * x - a5 * y
                z = b0 * y + state[2, lane]
                state[2, lane] = b1 * y - b4 * z + state[3, lane]
                state[3, lane] = b2 * y - b5 * z
                energies[lane] += z * z
                products[0, lane] += z * r0
                products[1, lane] += z * r1
                products[2, lane] += z * r2
                products[3, lane] += z * r3
    for lane in range(_SIDE_BY_SIDE):  # of which each rings on from the one before
        for i in range(_STATE):
            ringing = 0.0
            for j in range(_STATE):
                ringing += before[j] * of_rings[j, i]
                state[i, lane] += before[j] * after[j, i]
            energies[lane] += before[i] * (2 * products[i, lane] + ringing)
        before[:] = state[:, lane]
    return np.maximum(energies, 0)  # of silence after DC rounding leaves less
