"""Loudness after ITU-R BS.1770: the one meter that both the data and the metrics are measured with.

The K-weighted energy of sub-blocks of 100 ms, four of which are one gated block of 400 ms. Here a sub-block is a whole
number of 32 samples: 100.1 ms at 44.1 kHz.
"""

from __future__ import annotations

import functools
import math

import numpy as np

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
    return _ROW * max(1, round(sample_rate_hz / 10 / _ROW))


class LoudnessMeter:
    """K-weighted energy of every sub-block of a stream that arrives in blocks of any length.

    A recursive filter's loop over samples costs a third of decoding an mp3. Here it is matrix products instead, three
    times as fast: the filter has four numbers of state, 32 samples ("a row") together with the state before them give
    32 outputs and the state after them by one matrix. The states before all rows come from the same idea twice more: 32
    rows make a group, 32 groups a batch. The state is expressed in a basis in which white noise makes its parts
    independent and equally large; without it float32 is not enough for the 38 Hz high-pass.
    """

    def __init__(self, sample_rate_hz: int, channels: int):
        """Starts at silence."""
        self._sub_block_rows = sub_block_samples(sample_rate_hz) // _ROW
        self._rows, self._groups, self._batches = _filter_matrices(sample_rate_hz)
        self._audio = np.zeros((channels, _BATCH), np.float32)
        self._filled = 0
        self._state = np.zeros((channels, _STATE), np.float32)
        self._row_energies = np.zeros(0, np.float32)  # of the sub-block that is not over yet
        self._energies: list[np.ndarray] = []

    def add(self, audio: np.ndarray) -> None:
        """Takes the next `[T, C]` of the stream, float32."""
        while len(audio):
            head = audio[: _BATCH - self._filled]
            self._audio[:, self._filled : self._filled + len(head)] = head.T
            self._filled += len(head)
            audio = audio[len(head) :]
            if self._filled == _BATCH:
                self._flush()

    def energies(self) -> np.ndarray:
        """Ends the stream; the mean square of each whole sub-block, summed over the channels, float64."""
        self._audio[:, self._filled :] = 0
        self._flush()
        return np.concatenate(self._energies) / (self._sub_block_rows * _ROW)

    def _flush(self) -> None:
        filtered = self._filter()
        np.multiply(filtered, filtered, out=filtered)
        of_rows = (filtered @ _ONES).reshape(len(self._audio), -1).sum(axis=0)[: self._filled // _ROW]
        of_rows = np.concatenate([self._row_energies, of_rows])
        whole = len(of_rows) // self._sub_block_rows * self._sub_block_rows
        self._energies.append(of_rows[:whole].reshape(-1, self._sub_block_rows).sum(axis=1, dtype=np.float64))
        self._row_energies = of_rows[whole:]
        self._filled = 0

    def _filter(self) -> np.ndarray:
        """The K-weighted batch, `[C * rows, 32]`."""
        channels = len(self._audio)
        rows = self._audio.reshape(-1, _ROW)
        pushes = rows @ self._rows[:_ROW, _ROW:]  # [rows, 4]: what each row adds to the state
        pushes = pushes.reshape(-1, _ROWS * _STATE)  # [groups, 32 * 4]
        group_pushes = (pushes @ self._groups[:-_STATE, -_STATE:]).reshape(channels, -1)
        states = np.concatenate([group_pushes, self._state], axis=1) @ self._batches  # before each group; at the end
        self._state = states[:, -_STATE:]
        states = np.concatenate([pushes, states[:, :-_STATE].reshape(-1, _STATE)], axis=1) @ self._groups[:, :-_STATE]
        filtered = rows @ self._rows[:_ROW, :_ROW]
        filtered += states.reshape(-1, _STATE) @ self._rows[_ROW:, :_ROW]
        return filtered


def clip_loudness(energies: np.ndarray, offset: int, clip_samples: int, sample_rate_hz: int) -> float:
    """Gated loudness in LUFS of the sub-blocks that a clip covers, to the nearest one."""
    sub_block = sub_block_samples(sample_rate_hz)
    first = round(offset / sub_block)
    return gated_loudness(energies[first : first + max(1, round(clip_samples / sub_block))])


def _lufs(energy: float) -> float:
    return -0.691 + 10 * math.log10(energy)


def _energy(lufs: float) -> float:
    return 10 ** ((lufs + 0.691) / 10)


_ROW = _ROWS = _GROUPS = 32
_BATCH = _ROW * _ROWS * _GROUPS
_STATE = 4
_ONES = np.ones(_ROW, np.float32)


@functools.cache
def _filter_matrices(sample_rate_hz: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `LoudnessMeter` multiplies with: for samples to a row, rows to a group, groups to a batch.

    Each maps a row vector [inputs, state before] to [outputs, state after]. The first one's inputs and outputs are
    samples; the others' inputs are pushes, and their outputs the states before each part.
    """
    step = _state_space(k_weighting(sample_rate_hz))
    rows = _unroll(step, 1, _ROW)
    groups = _unroll(_accumulator(rows), _STATE, _ROWS)
    batches = _unroll(_accumulator(groups), _STATE, _GROUPS)
    return rows.astype(np.float32), groups.astype(np.float32), batches.astype(np.float32)


def _state_space(sos: np.ndarray) -> np.ndarray:
    """`[1 + S, 1 + S]`: one step of the cascade, [input, state] -> [output, next state], in the even basis."""
    size = 1 + 2 * len(sos)
    step = np.zeros((size, size))
    for index, unit in enumerate(np.eye(size)):
        value, states = unit[0], []
        for (b0, b1, b2, _, a1, a2), (first, second) in zip(sos, unit[1:].reshape(-1, 2), strict=True):
            out = b0 * value + first
            states += [b1 * value - a1 * out + second, b2 * value - a2 * out]
            value = out
        step[index] = [value, *states]
    # The state's covariance under white noise solves W = A' W A + b' b; its Cholesky factor is the change of basis.
    push, transition = step[:1, 1:], step[1:, 1:]
    count = size - 1
    system = np.eye(count**2) - np.kron(transition.T, transition.T)
    covariance = np.linalg.solve(system, (push.T @ push).ravel()).reshape(count, count)
    basis = np.eye(size)
    basis[1:, 1:] = np.linalg.cholesky(covariance).T
    return basis @ step @ np.linalg.inv(basis)


def _accumulator(parts: np.ndarray) -> np.ndarray:
    """One step of [push, state] -> [state, state over a part + push]."""
    zero, one = np.zeros((_STATE, _STATE)), np.eye(_STATE)
    return np.block([[zero, one], [one, parts[-_STATE:, -_STATE:]]])


def _unroll(step: np.ndarray, width: int, count: int) -> np.ndarray:
    """`count` steps as one: [count inputs of `width`, state] -> [count outputs, state after the last]."""
    size = count * width + _STATE
    matrix, state = np.zeros((size, size)), np.eye(size)[:, -_STATE:]
    for index in range(count):
        columns = slice(index * width, (index + 1) * width)
        out = np.concatenate([np.eye(size)[:, columns], state], axis=1) @ step
        matrix[:, columns], state = out[:, :width], out[:, width:]
    matrix[:, -_STATE:] = state
    return matrix
