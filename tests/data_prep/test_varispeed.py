"""Sections at another speed, against sines of the wanted pitch."""

import numpy as np
import pytest

from data_prep.tracks.tempo import Section
from data_prep.tracks.varispeed import resample_sections
from technogen_jax.audio import audio_files


def stream(samples, rate_hz, block):
    blocks = (samples[start : start + block] for start in range(0, len(samples), block))
    return audio_files.Stream(rate_hz, samples.shape[1], blocks)


@pytest.mark.parametrize("block", [500, 4096, 10**6])
def test_resample_sections_plays_a_sine_faster(block):
    rate_hz, tone_hz, bar_samples = 44_100, 441.0, 30_000.25
    samples = np.sin(2 * np.pi * tone_hz * np.arange(20 * rate_hz) / rate_hz)[:, None].astype(np.float32)
    sections = [Section(1.7301, 3, 127.3, 1, 1), Section(9.0007, 4, 119.9, 1, 1)]
    source = stream(samples, rate_hz, block)
    resampled = np.concatenate(list(resample_sections(source, sections, bar_samples, 2)))
    assert resampled.shape == (90_001 + 120_001, 2)
    assert next(source.blocks, None) is None
    begin = 0
    for section in sections:
        count = section.samples(bar_samples)
        bars = np.arange(count) / bar_samples
        want = np.sin(2 * np.pi * tone_hz * section.time_s(bars))
        # A section begins on the nearest sample: half of one, at this frequency.
        atol = 0.5 / bar_samples * 2 * np.pi * tone_hz * 240 / section.bpm + 1e-3
        np.testing.assert_allclose(resampled[begin : begin + count, 1], want, atol=atol)
        begin += count


def test_resample_sections_fills_the_edges_with_silence():
    samples = np.ones((44_100, 1), np.float32)
    section = Section(-0.004, 1, 240 / 1.008, 1, 1)  # four milliseconds more on both sides
    resampled = np.concatenate(list(resample_sections(stream(samples, 44_100, 999), [section], 44_100 * 1.008, 1)))
    assert len(resampled) == round(44_100 * 1.008)
    assert not resampled[:170].any() and not resampled[-170:].any()
    np.testing.assert_allclose(resampled[2000:-2000], 1, atol=1e-4)
    unchanged = Section(0.5, 1, 480, 1, 1)
    out = np.concatenate(list(resample_sections(stream(samples, 44_100, 999), [unchanged], 22_050, 1)))
    np.testing.assert_array_equal(out, samples[:22_050])
