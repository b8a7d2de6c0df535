"""Fits a trained model to another dataset, for a run that starts from it.

Tempo. Of all parts of the code only the waveform below the crossover depends on it: a sixteenth has
more samples of it where the tempo is lower. Its components are resampled. Its spectra, which the
discriminator sees, then have more bins: the first ones keep their rows of the kernel, further ones
start at zero.

Labels. A label enters a network by a row of the kernel of a dense layer. A label that both models
have keeps its row; a new one gets the mean of the rows. A model without labels gets the mean in the
bias. So both networks start as if they did not know the label of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from technogen_jax.common.run_config import AudioConfig
from technogen_jax.models.gan import Params
from technogen_jax.models.technogan.config import TechnoGANConfig
from technogen_jax.models.technogan.critic_features import list_low_windows
from technogen_jax.models.technogan.layout import CodeLayout


def adapt_statistics(
    statistics: dict[str, np.ndarray], config: TechnoGANConfig, audio: AudioConfig
) -> dict[str, np.ndarray]:
    """The statistics for clips of another tempo.

    Args:
        statistics: the arrays of statistics.npz.
        config: the fields of the model.
        audio: the format of the new clips.
    """
    new, old = CodeLayout.plan(config, audio).low.features, len(statistics["low_mean"])
    if new == old:
        return statistics
    times = (np.arange(new) + 0.5) * old / new - 0.5  # of the new samples, in old samples

    def resample(values: np.ndarray) -> np.ndarray:
        return np.interp(times, np.arange(old), np.asarray(values, np.float64))

    columns = np.stack([resample(column) for column in statistics["low_basis"].T], 1)
    left, _, right = np.linalg.svd(columns, full_matrices=False)
    return statistics | {
        "low_mean": resample(statistics["low_mean"]),
        "low_lost": resample(statistics["low_lost"]),
        "low_basis": left @ right,  # the nearest orthonormal columns
        # The same sound has projections on the columns that grow as its number of samples does.
        "low_deviation": statistics["low_deviation"] * (new / old) ** 0.5,
    }


def adapt_generator(params: Params, old: TechnoGANConfig, new: TechnoGANConfig) -> Params:
    """The parameters of the generator for the labels of another config."""
    scale = (old.latent_size + old.anchor_size) ** 0.5
    return params | {"map_0": _change_inputs(params["map_0"], old.classes, new.classes, scale)}


def adapt_discriminator(
    params: Params, old: TechnoGANConfig, new: TechnoGANConfig, old_audio: AudioConfig, new_audio: AudioConfig
) -> Params:
    """The parameters of the discriminator for the labels and the tempo of another config."""
    layout = CodeLayout.plan(old, old_audio)
    scale = (2 * (layout.size - layout.low.size)) ** 0.5
    inputs = _change_inputs(params["input"], old.classes, new.classes, scale)
    samples = layout.low.features, CodeLayout.plan(new, new_audio).low.features
    inputs["kernel"] = _change_low_bins(inputs["kernel"], *samples, len(new.classes))
    params = params | {"input": inputs}
    channels = len(params["bar"]["bias"])
    # Without labels before: a projection to zero, so that the logit does not depend on them yet.
    known = params.pop("label", {"kernel": np.zeros((0, channels)), "bias": np.zeros(channels)})
    if new.classes:
        rows = _choose_rows(np.asarray(known["kernel"]), old.classes, new.classes)
        params["label"] = {"kernel": np.float32(rows), "bias": np.float32(known["bias"])}
    return params


def _change_low_bins(kernel: np.ndarray, old: int, new: int, labels: int) -> np.ndarray:
    """A kernel for spectra of the low waveform with `new` for `old` samples; they come before the labels."""
    count = sum(windows * bins for _, windows, bins in list_low_windows(old))
    others, rows, last = np.split(kernel, [len(kernel) - labels - count, len(kernel) - labels])
    changed = []
    for (_, windows, old_bins), (_, _, new_bins) in zip(list_low_windows(old), list_low_windows(new), strict=True):
        part, rows = np.split(rows, [windows * old_bins])
        part = part.reshape(windows, old_bins, -1)[:, :new_bins]
        part = np.pad(part, ((0, 0), (0, new_bins - part.shape[1]), (0, 0)))
        changed.append(part.reshape(windows * new_bins, -1))
    return np.concatenate([others, *changed, last])


def _change_inputs(layer: Params, old: Sequence[str], new: Sequence[str], scale: float) -> Params:
    """A dense layer whose last inputs are the label weights times `scale`."""
    kernel, bias = np.asarray(layer["kernel"]), np.asarray(layer["bias"])
    others, rows = np.split(kernel, [len(kernel) - len(old)])
    if old and not new:
        bias = bias + np.float32(scale * rows.mean(0))
    return {"kernel": np.concatenate([others, _choose_rows(rows, old, new)]), "bias": bias}


def _choose_rows(rows: np.ndarray, old: Sequence[str], new: Sequence[str]) -> np.ndarray:
    """The row of each new label, `[L, W]`: the mean of all rows for one that is not among the old ones."""
    mean = rows.mean(0) if len(rows) else np.zeros(rows.shape[1], rows.dtype)
    chosen = [rows[list(old).index(name)] if name in old else mean for name in new]
    return np.stack(chosen) if chosen else rows[:0]
