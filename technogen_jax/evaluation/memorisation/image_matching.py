"""Has it memorised? Generated clips against the training audio, by two detectors and by statistics of whole sets.

Each detector is blind to copies that the other finds: the correlation of log-mel images survives another speed and lost
phases, the fingerprint of spectral peaks finds half a clip, or a copy under other music. Techno tracks resemble one
another, so neither has a threshold of its own: what real clips of *other* tracks reach is what does not count.

Not found, or not surely: copies more than 5 % faster or slower, in another key at the same speed, with their beats in
another order, of less than half the clip, or under other music as loud. A clip that is both a piece of longer training
audio and rotated is found by its larger part. Where records are as long as the window, a copy across the border of two
is two parts: give the training audio in longer stretches.
The same bass drum alone is not a copy: `Flag.band` says whether more than the low end agrees.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

FRAMES, BANDS = 256, 32  # of an image of a clip
_COARSE = 4  # frames of an image to one of its screening image, which has half the bands
_PEAK_BANDS = 2 * BANDS
_PEAKS, _PEAKS_PER_S = 90, 26  # of a window; as dense in one of more than 3.5 s
_PARTNERS, _REACH_S = 6, 0.6
_LEAST_PAIRS = 60  # of a clip with a fingerprint: of fewer a large share agrees by chance
_LOW_HZ = 150.0  # about where the kick ends
_SPEEDS = (0.96, 0.98, 1.0, 1.02, 1.04)  # images within 1 % of speed still agree
_CANDIDATES = 16  # training stretches an image is compared with in full
_STRETCHES, _QUERIES = 512, 32  # compared at a time
_CLIPS = 1024  # whose fingerprints are voted for at a time
_SMOOTH_S = 0.04  # of images: lost phases make the power of single frames random
_PEAK_SIZE = (5, 3)  # frames, bands: a peak is the highest in it
_FLOOR_DB = -40.0  # against the loudest band, so that noise fills no gaps that count
_QUANTILE = 0.999


class Prints(NamedTuple):
    """What is kept of clips to compare them: about 13 kB a window of audio.

    Attributes:
        images: int8 `[sum of frames, BANDS]`, log-mel without each band's mean, clip after clip.
        frames: `[n]` each clip's; FRAMES for a clip as long as the window, which is then taken as a circle.
        hashes: uint32 pairs of peaks, clip after clip.
        times: int32, the frame of each pair's first peak.
        counts: `[n]` pairs of each clip; 0 for a clip without peaks, like silence.
        tracks: `[n]` each clip's track.
        ids: `[n]` each clip's name.
        sample_rate_hz: of the audio.
        seconds: of the window.
    """

    images: np.ndarray
    frames: np.ndarray
    hashes: np.ndarray
    times: np.ndarray
    counts: np.ndarray
    tracks: np.ndarray
    ids: np.ndarray
    sample_rate_hz: int
    seconds: float


class Matches(NamedTuple):
    """The best match of each query, by each detector.

    Attributes:
        correlation: `[n]` up to 1; 0 for a clip without structure.
        correlation_clip: `[n]` index of the training clip.
        correlation_shift_s: `[n]` where in it the query begins.
        fingerprint: `[n]` share of the query's pairs that agree in one alignment, 0 to 1.
        fingerprint_clip: `[n]`.
        fingerprint_shift_s: `[n]`.
        correlation_rest: `[n]` the correlation at its best place, of the bands above the low end alone.
        fingerprint_rest: `[n]` the fingerprint at its best place, of the pairs that are not both in the low end.
    """

    correlation: np.ndarray
    correlation_clip: np.ndarray
    correlation_shift_s: np.ndarray
    fingerprint: np.ndarray
    fingerprint_clip: np.ndarray
    fingerprint_shift_s: np.ndarray
    correlation_rest: np.ndarray
    fingerprint_rest: np.ndarray


class Flag(NamedTuple):
    """A generated clip that is closer to a training clip than real clips of other tracks are.

    Attributes:
        generated: its id.
        train: the training clip's id, by the correlation where that flagged it, else by the fingerprint.
        train_track: that clip's track.
        correlation: its best.
        fingerprint: its best.
        detector: "correlation", "fingerprint" or "both".
        shift_s: where in the training clip it begins; in a training clip as long as the window, around the end.
        band: "low band only" where without the low end neither detector would have flagged it, else "full band".
    """

    generated: str
    train: str
    train_track: str
    correlation: float
    fingerprint: float
    detector: str
    shift_s: float
    band: str


class Panel(NamedTuple):
    """The detectors' verdict on a set of generated clips.

    Attributes:
        threshold_correlation: the held-out clips' 99.9th percentile; with no more than 1,000 of them their maximum.
        threshold_fingerprint: the same.
        threshold_is_maximum: whether it is.
        held_out_clips: how many.
        held_out_tracks: of how many tracks.
        generated_clips: how many.
        generated_without_structure: silent or even ones, which cannot match.
        flagged: the generated clips above either threshold, the closest first.
        flagged_share: their share, 0 to 1.
        held_out_flagged_share: what to expect of clips that are no copies: held-out clips flagged by thresholds from
            the other half of the held-out tracks, both halves together.
        nearest_held_out: (held-out id, training id) of the highest correlation and of the highest fingerprint. If a
            pair is the same music by ear, the split has it on both sides, and what is less alike is not flagged.
    """

    threshold_correlation: float
    threshold_fingerprint: float
    threshold_is_maximum: bool
    held_out_clips: int
    held_out_tracks: int
    generated_clips: int
    generated_without_structure: int
    flagged: list[Flag]
    flagged_share: float
    held_out_flagged_share: float
    nearest_held_out: list[tuple[str, str]]


def prints(
    clips: Iterable[np.ndarray], tracks: Iterable[str], ids: Iterable[str], sample_rate_hz: int, *, seconds: float
) -> Prints:
    """The prints of clips, which are read one at a time.

    Args:
        clips: `[T, C]` in [-1, 1]. Training audio may be longer than the window, up to whole tracks: a copy is then
            found wherever it begins, also across the borders of records.
        tracks: each clip's; for generated clips whatever name groups them.
        ids: each clip's name.
        sample_rate_hz: 8000 to 48000.
        seconds: the window: the length of a generated clip.

    Raises:
        ValueError: no clips, clips shorter than the window, NaN or Inf, or not as many tracks and ids as clips.
    """
    window = round(seconds * sample_rate_hz)
    images, frames, hashes, times, counts, names, groups = [], [], [], [], [], [], []
    for clip, track, name in zip(clips, tracks, ids, strict=True):
        clip = np.asarray(clip, np.float32)
        if clip.ndim != 2 or len(clip) < window:
            raise ValueError(f"prints: {name}: expected [T, C], T at least {window} ({seconds:g} s), got {clip.shape}")
        if not np.isfinite(clip).all():
            raise ValueError(f"prints: {name}: holds NaN or Inf")
        power = _mel_power(clip, sample_rate_hz, window)
        image = _image(power, seconds)
        hashed, time = _hashes(power, seconds)
        images.append(image)
        frames.append(len(image))
        hashes.append(hashed)
        times.append(time)
        counts.append(len(hashed))
        groups.append(str(track))
        names.append(str(name))
    if not names:
        raise ValueError("prints: expected at least one clip, got none")
    return Prints(
        np.concatenate(images),
        np.array(frames),
        np.concatenate(hashes),
        np.concatenate(times),
        np.array(counts),
        np.array(groups),
        np.array(names),
        sample_rate_hz,
        seconds,
    )


def panel(generated: Prints, train: Prints, held_out: Prints) -> Panel:
    """Which generated clips are closer to the training audio than real clips of other tracks are.

    Args:
        generated: clips as long as the window.
        train: what the model was trained on.
        held_out: real clips as long as the window, of tracks that are not in `train`; a thousand or more give the
            99.9th percentile, fewer their maximum, which flags more as they become fewer.

    Raises:
        ValueError: rates or windows differ, a track is on both sides, fewer than two held-out tracks, or generated or
            held-out clips are longer than the window.
    """
    shared = set(held_out.tracks) & set(train.tracks)
    if shared:
        raise ValueError(
            f"panel: expected held-out tracks that are not trained on, got {len(shared)} that are, like {min(shared)!r};"
            " split by track"
        )
    groups = np.unique(held_out.tracks)
    if len(groups) < 2:
        raise ValueError(f"panel: expected at least 2 held-out tracks, got {len(groups)}; hold out more")
    found, real = matches(generated, train), matches(held_out, train)
    limits = _limits(real, slice(None))
    over_correlation, over_fingerprint = found.correlation > limits[0], found.fingerprint > limits[1]
    flagged = np.flatnonzero(over_correlation | over_fingerprint)
    excess = np.maximum(found.correlation - limits[0], found.fingerprint - limits[1])
    half = np.isin(held_out.tracks, groups[::2])
    by_chance = 0
    for own in (half, ~half):
        other = _limits(real, ~own)
        by_chance += ((real.correlation[own] > other[0]) | (real.fingerprint[own] > other[1])).sum()
    words = {(True, True): "both", (True, False): "correlation", (False, True): "fingerprint"}

    def flag(i):
        if over_correlation[i]:
            clip, shift_s = found.correlation_clip[i], found.correlation_shift_s[i]
        else:
            clip, shift_s = found.fingerprint_clip[i], found.fingerprint_shift_s[i]
        more = found.correlation_rest[i] > limits[0] or found.fingerprint_rest[i] > limits[1]
        return Flag(
            generated=str(generated.ids[i]),
            train=str(train.ids[clip]),
            train_track=str(train.tracks[clip]),
            correlation=float(found.correlation[i]),
            fingerprint=float(found.fingerprint[i]),
            detector=words[bool(over_correlation[i]), bool(over_fingerprint[i])],
            shift_s=float(shift_s),
            band="full band" if more else "low band only",
        )

    def nearest(value, clip):
        i = int(np.argmax(value))
        return str(held_out.ids[i]), str(train.ids[clip[i]])

    return Panel(
        threshold_correlation=limits[0],
        threshold_fingerprint=limits[1],
        threshold_is_maximum=len(held_out.ids) <= 1000,
        held_out_clips=len(held_out.ids),
        held_out_tracks=len(groups),
        generated_clips=len(generated.ids),
        generated_without_structure=int((generated.counts == 0).sum()),
        flagged=[flag(i) for i in flagged[np.argsort(-excess[flagged], kind="stable")]],
        flagged_share=len(flagged) / len(generated.ids),
        held_out_flagged_share=float(by_chance) / len(held_out.ids),
        nearest_held_out=[
            nearest(real.correlation, real.correlation_clip),
            nearest(real.fingerprint, real.fingerprint_clip),
        ],
    )


def matches(queries: Prints, train: Prints) -> Matches:
    """The best match of each query in the training audio.

    Measured: 1,000 clips against 1,000 take about 3 s of one core, against 14,000 about 25 s; 0.1 GB beside the prints.

    Raises:
        ValueError: rates or windows differ, or a query is longer than the window.
    """
    for name in ("sample_rate_hz", "seconds"):
        ours, theirs = getattr(queries, name), getattr(train, name)
        if ours != theirs:
            raise ValueError(f"matches: expected one {name}, got {ours} and {theirs}; take the prints of both alike")
    if (queries.frames != FRAMES).any():
        i = int(np.argmax(queries.frames != FRAMES))
        raise ValueError(
            f"matches: {queries.ids[i]}: expected a clip of {queries.seconds:g} s, got a longer one; cut it"
        )
    frame_s = queries.seconds / FRAMES
    correlation, clip, shift, rest = _correlations(queries, train)
    fingerprint, fingerprint_clip, fingerprint_shift, fingerprint_rest = _fingerprints(queries, train)
    peak_frame_s = queries.seconds / _peak_frames(queries.seconds)
    return Matches(
        correlation,
        clip,
        shift * frame_s,
        fingerprint,
        fingerprint_clip,
        fingerprint_shift * peak_frame_s,
        rest,
        fingerprint_rest,
    )


def auth_pct(generated: np.ndarray, train: np.ndarray, train_tracks: Sequence) -> float:
    """Percentage of generated clips that are authentic: 0 of copies; read it beside that of held-out clips.

    A clip is authentic if it is further from the nearest training clip than that is from the nearest clip of *another*
    track: siblings lie so close together that any copy with a little noise would pass.

    Args:
        generated: embeddings `[n, D]`.
        train: `[m, D]`.
        train_tracks: `[m]`, at least two different ones.

    Raises:
        ValueError: a single track, not one for each training clip, other shapes, NaN or Inf.

    *Source*: Alaa et al., "How Faithful is your Synthetic Data?", ICML 2022 (authenticity); excluding the track is ours.
    """
    generated, train = _sets("auth_pct", generated=generated, train=train)
    tracks = np.asarray(train_tracks)
    if len(tracks) != len(train) or len(np.unique(tracks)) < 2:
        raise ValueError(
            f"auth_pct: expected a track for each of {len(train)} training clips and at least 2 tracks, got {len(tracks)}"
            f" and {len(np.unique(tracks))}"
        )
    distance, nearest = _nearest(generated, train)
    used, place = np.unique(nearest, return_inverse=True)
    spacing, _ = _nearest(train[used], train, excluded=lambda rows: tracks[used[rows]][:, None] == tracks[None])
    return float(100 * np.mean(distance > spacing[place]))


def data_copying_test(generated: np.ndarray, held_out: np.ndarray, train: np.ndarray) -> float:
    """Z_U: about 0 for new music like the training set, far below for copies, far above for what is far from it.

    It compares the distances to the nearest training clip of the generated with those of held-out clips. Noise on
    copies hides them. As a standard score it holds for independent clips: take one of each held-out track.

    Args:
        generated: embeddings `[m, D]`.
        held_out: `[n, D]` real clips that were not trained on.
        train: `[l, D]`.

    *Source*: Meehan, Chaudhuri and Dasgupta, "A Non-Parametric Test to Detect Data-Copying in Generative Models",
    AISTATS 2020, section 3.
    """
    generated, held_out, train = _sets("data_copying_test", generated=generated, held_out=held_out, train=train)
    return _z_u(_nearest(generated, train)[0], _nearest(held_out, train)[0])


def data_copying_by_cell(
    generated: np.ndarray, held_out: np.ndarray, train: np.ndarray, *, cells: int, seed: int, least: int = 10
) -> float:
    """C_T: Z_U within each cell of the training set, weighted by the held-out clips in it; finds copying of a few styles.

    Args:
        generated: embeddings `[m, D]`.
        held_out: `[n, D]`.
        train: `[l, D]`.
        cells: of k-means on the training set.
        seed: of its start.
        least: a cell counts with so many generated and held-out clips.

    Raises:
        ValueError: no cell has enough of both.

    *Source*: as for `data_copying_test`, section 4.
    """
    from sklearn.cluster import KMeans

    generated, held_out, train = _sets("data_copying_by_cell", generated=generated, held_out=held_out, train=train)
    if cells > len(train):
        raise ValueError(f"data_copying_by_cell: expected at most {len(train)} cells, one a training clip, got {cells}")
    means = KMeans(cells, n_init=4, random_state=seed).fit(train)
    cell_generated, cell_held_out = means.predict(generated), means.predict(held_out)
    scores, weights = [], []
    for cell in range(cells):
        own, real, known = (
            values[labels == cell]
            for values, labels in ((generated, cell_generated), (held_out, cell_held_out), (train, means.labels_))
        )
        if min(len(own), len(real)) >= least:
            scores.append(_z_u(_nearest(own, known)[0], _nearest(real, known)[0]))
            weights.append(len(real))
    if not scores:
        raise ValueError(
            f"data_copying_by_cell: none of {cells} cells has {least} generated and {least} held-out clips of"
            f" {len(generated)} and {len(held_out)}; take fewer cells or more clips"
        )
    return float(np.average(scores, weights=weights))


def self_distance(values: np.ndarray) -> float:
    """WaveGAN's |D|_self: the mean distance from each clip to the nearest other one; small where clips repeat.

    Says something only beside the same of as many real clips.

    Args:
        values: `[n, D]`, flattened log-mel spectrograms in the paper; n at least 2.

    *Source*: Donahue, McAuley and Puckette, "Adversarial Audio Synthesis", arXiv 1802.04208, section on evaluation.
    """
    (values,) = _sets("self_distance", values=values)
    if len(values) < 2:
        raise ValueError("self_distance: expected at least 2 clips, got 1")
    return float(_nearest(values, values, excluded=lambda rows: rows[:, None] == np.arange(len(values)))[0].mean())


def train_distance(values: np.ndarray, train: np.ndarray) -> float:
    """WaveGAN's |D|_train: the mean distance from each clip to the nearest training clip; 0 for copies.

    A rotated copy is not seen. Says something only beside the same of held-out clips.

    Args:
        values: `[n, D]`.
        train: `[m, D]`.

    *Source*: as for `self_distance`.
    """
    values, train = _sets("train_distance", values=values, train=train)
    return float(_nearest(values, train)[0].mean())


def _peak_frames(seconds: float) -> int:
    """Frames of a fingerprint in a window: a power of two, so that images' frames divide, of 4 to 8 ms."""
    return 1 << int(np.ceil(np.log2(seconds / 0.008)))


@functools.cache
def _filters(sample_rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """(window `[n_fft]`, mel filters `[n_fft // 2 + 1, _PEAK_BANDS]`); frames of about 32 ms."""
    import librosa  # a second to import

    n_fft = 1 << round(np.log2(0.032 * sample_rate_hz))
    window = np.hanning(n_fft + 1)[:-1].astype(np.float32)
    mel = librosa.filters.mel(sr=sample_rate_hz, n_fft=n_fft, n_mels=_PEAK_BANDS, fmin=30.0)
    return window / window.sum(), np.ascontiguousarray(mel.T)


@functools.cache
def _low_bands(sample_rate_hz: int) -> int:
    """How many of the fingerprint's bands have their peak below `_LOW_HZ`; even, so that images' bands divide."""
    import librosa

    centres = librosa.mel_frequencies(_PEAK_BANDS + 2, fmin=30.0, fmax=sample_rate_hz / 2)[1:-1]
    return max(2, int((centres < _LOW_HZ).sum()) // 2 * 2)


def _mel_power(clip: np.ndarray, sample_rate_hz: int, window: int) -> np.ndarray:
    """`[N, _PEAK_BANDS]` at the finer of the two grids, the mean of the channels' power: opposite phases do not cancel."""
    hann, filters = _filters(sample_rate_hz)
    n_fft = len(hann)
    in_window = max(FRAMES, _peak_frames(window / sample_rate_hz))
    coarser = in_window // min(FRAMES, _peak_frames(window / sample_rate_hz))
    count = in_window * len(clip) // window // coarser * coarser
    starts = np.arange(count) * window // in_window
    ends = ((n_fft // 2, n_fft // 2), (0, 0))
    padded = np.pad(clip, ends, mode="wrap" if count == in_window else "constant").T
    power = np.empty((count, _PEAK_BANDS), np.float32)
    for i in range(0, count, 512):
        framed = padded[:, starts[i : i + 512, None] + np.arange(n_fft)] * hann  # [C, N, n_fft]
        spectrum = scipy.fft.rfft(framed)
        power[i : i + 512] = (spectrum.real**2 + spectrum.imag**2).mean(0) @ filters
    return power


def _pooled(power: np.ndarray, frames: int, of: int) -> np.ndarray:
    """The mean of `of // frames` frames at a time."""
    return power.reshape(-1, max(1, of // frames), power.shape[1]).mean(1)


def _logarithm(power: np.ndarray, in_window: int) -> np.ndarray:
    """Natural, with a floor under the loudest of the window around: the level of a clip, or a part, does not matter."""
    mode = "wrap" if len(power) == in_window else "nearest"
    loudest = scipy.ndimage.maximum_filter1d(power.max(1), in_window, mode=mode)[:, None]
    return np.log(np.maximum(power, 10 ** (_FLOOR_DB / 10) * loudest + 1e-20))


def _image(power: np.ndarray, seconds: float) -> np.ndarray:
    """int8 `[N, BANDS]`; its scale does not matter to a correlation."""
    in_window = max(FRAMES, _peak_frames(seconds))
    width = max(1, round(_SMOOTH_S * in_window / seconds))
    smooth = scipy.ndimage.uniform_filter1d(power, width, axis=0, mode="wrap" if len(power) == in_window else "nearest")
    pooled = _pooled(smooth, FRAMES, in_window)
    image = _logarithm(pooled.reshape(len(pooled), BANDS, 2).mean(2), FRAMES)
    image -= image.mean(0)
    peak = np.abs(image).max()
    return np.round(image * (127 / peak) if peak > 1e-3 else 0 * image).astype(np.int8)


def _hashes(power: np.ndarray, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """(hashes, times) of a clip's pairs of peaks.

    *Source*: Wang, "An Industrial-Strength Audio Search Algorithm", ISMIR 2003, for the constellation and the votes.
    """
    frames = _peak_frames(seconds)
    log = _logarithm(_pooled(power, frames, max(FRAMES, frames)), frames)
    count = len(log)
    circle = count == frames
    height = log - scipy.ndimage.uniform_filter1d(log, frames, axis=0, mode="wrap" if circle else "nearest")
    edges = ("wrap" if circle else "constant", "constant")
    highest = scipy.ndimage.maximum_filter(height, _PEAK_SIZE, mode=edges, cval=-np.inf)
    height = np.where((height == highest) & (height > 1e-3), height, 0)
    peaks = max(_PEAKS, round(_PEAKS_PER_S * seconds))
    time, band = [], []
    for start in range(0, count, frames):  # the strongest of each window, so that loud parts do not take them all
        part = height[start : start + frames]
        order = np.argsort(-part, axis=None, kind="stable")[: peaks * len(part) // frames]
        order = np.sort(order[part.ravel()[order] > 0])
        time.append(start + order // _PEAK_BANDS)
        band.append(order % _PEAK_BANDS)
    time, band = np.concatenate(time), np.concatenate(band)
    # In the order of time, so a peak's partners are the next ones; in a circle around its end.
    after = np.arange(len(time))[:, None] + np.arange(1, min(len(time), peaks))
    around, after = after >= len(time), after % max(1, len(time))
    apart = time[after] - time[:, None] + np.where(around, count if circle else count + frames, 0)
    partner = (apart > 0) & (apart <= min(_REACH_S / seconds, 0.5) * frames)
    partner &= np.cumsum(partner, axis=1) <= _PARTNERS
    hashes = ((band[:, None] * _PEAK_BANDS + band[after]) * frames + apart)[partner]
    return hashes.astype(np.uint32), np.broadcast_to(time[:, None], partner.shape)[partner].astype(np.int32)


def _correlations(queries: Prints, train: Prints) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(correlation, training clip, shift in frames, correlation without the low end), each `[n]`.

    Coarse images choose the candidates, whole images at several speeds decide.
    """
    images = queries.images.reshape(-1, FRAMES, BANDS).astype(np.float32)
    owner, start = _stretches(train)
    size = FRAMES if (train.frames == FRAMES).all() else 2 * FRAMES
    candidates = _candidates(images, train, owner, start, size)
    low = _low_bands(queries.sample_rate_hz) // 2
    n = len(images)
    correlation, clip, shift, rest = np.zeros(n), np.zeros(n, np.int64), np.zeros(n), np.zeros(n)
    for i, image in enumerate(images):
        chosen = candidates[i]
        known, valid = _gather(train, owner[chosen], start[chosen], size)
        speeds = _unit(_at_speeds(image))
        found = _correlate(_spectra(speeds, size), _spectra(known, size), _scale(known, valid))
        offset, speed, place = np.unravel_index(np.argmax(found), found.shape)
        correlation[i], clip[i] = found[offset, speed, place], owner[chosen[place]]
        frames = train.frames[clip[i]]
        shift[i] = start[chosen[place]] + offset + FRAMES / 2 * (1 - _SPEEDS[speed])
        if frames == FRAMES:
            shift[i] %= FRAMES
        there = np.take(known[place], np.arange(offset, offset + FRAMES), axis=0, mode="wrap")
        rest[i] = (_unit(speeds[speed][None, :, low:]) * _unit(there[None, :, low:])).sum()
    return correlation, clip, shift, rest


def _candidates(images: np.ndarray, train: Prints, owner: np.ndarray, start: np.ndarray, size: int) -> np.ndarray:
    """`[n, up to _CANDIDATES]` indices of the stretches whose coarse images correlate best."""
    queries = _spectra(_unit(_coarse(images)), size // _COARSE)
    count = min(_CANDIDATES, len(owner))
    best, index = np.full((len(images), count), -2, np.float32), np.zeros((len(images), count), np.int64)
    for first in range(0, len(owner), _STRETCHES):
        part = np.arange(first, min(first + _STRETCHES, len(owner)))
        known, valid = _gather(train, owner[part], start[part], size)
        known = _coarse(known)
        spectra, scale = _spectra(known, size // _COARSE), _scale(known, valid[:, ::_COARSE])
        for i in range(0, len(images), _QUERIES):
            rows = slice(i, i + _QUERIES)
            peaks = _correlate(queries[:, rows], spectra, scale).max(0)
            score = np.concatenate([best[rows], peaks], 1)
            where = np.concatenate([index[rows], np.broadcast_to(part, peaks.shape)], 1)
            kept = np.argpartition(-score, count - 1, axis=1)[:, :count]
            best[rows], index[rows] = np.take_along_axis(score, kept, 1), np.take_along_axis(where, kept, 1)
    return index


def _stretches(train: Prints) -> tuple[np.ndarray, np.ndarray]:
    """(clip, first frame) of the stretches, two windows long, that hold every place where a window may begin."""
    starts = [np.arange(0, frames - FRAMES + 1, FRAMES) for frames in train.frames]
    return np.repeat(np.arange(len(starts)), [len(each) for each in starts]), np.concatenate(starts)


def _gather(train: Prints, owner: np.ndarray, start: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(float32 images `[b, size, BANDS]`, whether a window may begin at each of the first FRAMES frames `[b, FRAMES]`)."""
    frames = train.frames[owner, None]
    circle = frames == FRAMES
    first = np.cumsum(train.frames) - train.frames
    place = start[:, None] + np.arange(size)
    place = np.where(circle, place % FRAMES, np.minimum(place, frames - 1))
    valid = circle | (start[:, None] + np.arange(FRAMES) + FRAMES <= frames)
    return train.images[first[owner, None] + place].astype(np.float32), valid


def _coarse(images: np.ndarray) -> np.ndarray:
    """`[b, N, BANDS]` -> `[b, N // _COARSE, BANDS // 2]`."""
    return images.reshape(len(images), -1, _COARSE, BANDS // 2, 2).mean((2, 4))


def _at_speeds(image: np.ndarray) -> np.ndarray:
    """`[FRAMES, BANDS]` -> `[speeds, FRAMES, BANDS]`, slowed down or sped up about its middle; 0 where it has ended."""
    place = FRAMES / 2 + (np.arange(FRAMES) - FRAMES / 2) / np.array(_SPEEDS)[:, None]
    before = np.clip(np.floor(place).astype(int), 0, FRAMES - 2)
    weight = np.clip(place - before, 0, 1)[..., None].astype(np.float32)
    inside = ((place >= 0) & (place <= FRAMES - 1 + 1e-9))[..., None]
    return inside * ((1 - weight) * image[before] + weight * image[before + 1])


def _unit(images: np.ndarray) -> np.ndarray:
    """Without each band's mean, and of norm 1; an even image stays 0."""
    images = images - images.mean(1, keepdims=True)
    norm = np.sqrt((images**2).sum((1, 2), keepdims=True))
    return np.divide(images, norm, out=np.zeros_like(images), where=norm > 1e-6)


def _spectra(images: np.ndarray, size: int) -> np.ndarray:
    """`[b, N, M]` -> complex64 `[size // 2 + 1, b, M]`."""
    return np.ascontiguousarray(scipy.fft.rfft(images.astype(np.float32, copy=False), size, axis=1).swapaxes(0, 1))


def _scale(known: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """`[N, b]` one over the norm that each window of `[b, size, M]` has without its bands' means; 0 where none begins."""
    frames = valid.shape[1]
    if known.shape[1] == frames:  # circles: one norm for all places
        energy = (known**2).sum((1, 2)) - (known.sum(1) ** 2).sum(1) / frames
        energy = np.broadcast_to(energy[:, None], valid.shape)
    else:
        power, sums = _sliding((known**2).sum(2), frames), _sliding(known, frames)
        energy = power - (sums**2).sum(2) / frames
    usable = valid & (energy > 1e-3)
    return np.divide(1, np.sqrt(np.maximum(energy, 1e-3)), out=np.zeros(energy.shape), where=usable).T.astype(
        np.float32
    )


def _sliding(values: np.ndarray, frames: int) -> np.ndarray:
    """Sums over `frames` along axis 1 from each of the first `frames` places; float64 against cancellation."""
    total = np.cumsum(values, axis=1, dtype=np.float64)
    return total[:, frames - 1 : 2 * frames - 1] - total[:, :frames] + values[:, :frames]


def _correlate(queries: np.ndarray, known: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """`[N, g, b]` correlations at each offset, of spectra `[F, g, M]` and `[F, b, M]`."""
    product = queries.conj() @ known.swapaxes(1, 2)
    found = scipy.fft.irfft(product, 2 * (len(product) - 1), axis=0, workers=-1)[: len(scale)]
    found *= scale[:, None]
    return found


def _fingerprints(queries: Prints, train: Prints) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(share of agreeing pairs, training clip, shift in frames, share without pairs in the low end), each `[n]`."""
    n = len(queries.ids)
    frames = _peak_frames(queries.seconds)
    share, clip, shift, rest = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n)
    hashes = np.split(queries.hashes, np.cumsum(queries.counts)[:-1])
    times = np.split(queries.times, np.cumsum(queries.counts)[:-1])
    ends = np.cumsum(train.counts)
    for first in range(0, len(train.ids), _CLIPS):
        part = np.arange(first, min(first + _CLIPS, len(train.ids)))
        rows = slice(ends[first] - train.counts[first], ends[part[-1]])
        circle = train.frames[part] == FRAMES
        # Each clip's bins: one an alignment, from a window before its start where it is no circle.
        bins = np.where(circle, frames, train.frames[part] * frames // FRAMES + frames + 1)
        base = np.cumsum(bins) - bins
        order = np.argsort(train.hashes[rows], kind="stable")
        known = train.hashes[rows][order]
        owner = np.repeat(part - first, train.counts[part])[order]
        time = train.times[rows][order]
        for i in range(n):
            if len(hashes[i]) < _LEAST_PAIRS:
                continue
            low = np.searchsorted(known, hashes[i], "left")
            counts = np.searchsorted(known, hashes[i], "right") - low
            where = np.repeat(low - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
            offset = time[where] - np.repeat(times[i], counts)
            theirs = owner[where]
            offset = np.where(circle[theirs], offset % frames, offset + frames)
            votes = np.bincount(base[theirs] + offset, minlength=1)
            most = int(np.argmax(votes))
            if votes[most] > share[i] * len(hashes[i]):
                share[i] = votes[most] / len(hashes[i])
                found = int(np.searchsorted(base, most, "right")) - 1
                clip[i] = first + found
                shift[i] = most - base[found] - (0 if circle[found] else frames)
                agreed = np.repeat(np.arange(len(counts)), counts)[base[theirs] + offset == most]
                high = _above(hashes[i], frames, _low_bands(queries.sample_rate_hz))
                rest[i] = high[agreed].sum() / max(1, high.sum())
    return share, clip, shift, rest


def _above(hashes: np.ndarray, frames: int, low: int) -> np.ndarray:
    """Whether a pair is not wholly in the `low` lowest bands."""
    bands = hashes // frames
    return (bands // _PEAK_BANDS >= low) | (bands % _PEAK_BANDS >= low)


def _limits(real: Matches, which) -> tuple[float, float]:
    """The two thresholds; "higher" so that few clips give their maximum rather than less."""
    correlation = np.quantile(real.correlation[which], _QUANTILE, method="higher")
    return float(correlation), float(np.quantile(real.fingerprint[which], _QUANTILE, method="higher"))


def _sets(caller: str, **sets: np.ndarray) -> list[np.ndarray]:
    """The sets as float64 `[n, D]`, each checked."""
    arrays = {name: np.asarray(values, np.float64) for name, values in sets.items()}
    width = next(iter(arrays.values())).shape[-1:]
    for name, values in arrays.items():
        if values.ndim != 2 or not len(values) or values.shape[1:] != width:
            shapes = ", ".join(f"{name} {values.shape}" for name, values in arrays.items())
            raise ValueError(f"{caller}: {name}: expected [n, D], n at least 1 and one D, got {shapes}")
        if not np.isfinite(values).all():
            raise ValueError(f"{caller}: {name}: holds NaN or Inf")
    return list(arrays.values())


def _nearest(queries: np.ndarray, known: np.ndarray, *, excluded=None) -> tuple[np.ndarray, np.ndarray]:
    """(distance, index) of the nearest known row; `excluded(rows)` says which pairs `[rows, m]` do not count."""
    distance, index = np.empty(len(queries)), np.empty(len(queries), np.int64)
    step = max(1, 4_000_000 // len(known))
    for first in range(0, len(queries), step):
        rows = np.arange(first, min(first + step, len(queries)))
        apart = cdist(queries[rows], known)
        if excluded is not None:
            apart[excluded(rows)] = np.inf
        index[rows] = apart.argmin(1)
        distance[rows] = apart[np.arange(len(rows)), index[rows]]
    return distance, index


def _z_u(generated: np.ndarray, held_out: np.ndarray) -> float:
    """The Mann-Whitney statistic of two sets of distances as a standard score, without correction for ties."""
    m, n = len(generated), len(held_out)
    u = rankdata(np.concatenate([generated, held_out]))[:m].sum() - m * (m + 1) / 2
    return float((u - (m * n / 2 - 0.5)) / np.sqrt(m * n * (m + n + 1) / 12))
