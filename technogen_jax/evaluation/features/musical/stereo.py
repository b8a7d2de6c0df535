"""Stereo features: width and correlation of the channels, of all frequencies and of the low end."""

from __future__ import annotations

import math

from technogen_jax.evaluation.features.musical.clip import BANDS_HZ, Clip, band_energy, is_empty, ratio_db


def measure_stereo(clip: Clip) -> dict[str, float]:
    """Returns the stereo features; none for a mono clip or an empty band."""
    if len(clip.spectra) == 1:
        return {}
    values = {}
    mid, (left, right) = clip.mono_spectrum, clip.spectra
    spectra = (mid, left - mid, left, right)
    for width, correlation, high_hz in (
        ("width_db", "channel_correlation", math.inf),
        ("sub_width_db", "sub_correlation", BANDS_HZ["low"][1]),
    ):
        mid_energy, side_energy, left_energy, right_energy = (
            band_energy(clip, 0, high_hz, spectrum) for spectrum in spectra
        )
        if is_empty(clip, (mid_energy + side_energy) / clip.audio.shape[1]):
            continue
        values[width] = ratio_db(side_energy, mid_energy)
        if left_energy and right_energy:
            values[correlation] = (mid_energy - side_energy) / math.sqrt(left_energy * right_energy)
    return values
