"""All features of a clip: the table of features, and the functions that compute them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from technogen_jax.evaluation.features.musical.analysis import ClipAnalysis, analyse
from technogen_jax.evaluation.features.musical.level import measure_level
from technogen_jax.evaluation.features.musical.rhythm import measure_rhythm
from technogen_jax.evaluation.features.musical.spectrum import ltas_db, measure_spectrum
from technogen_jax.evaluation.features.musical.stereo import measure_stereo


class Feature(NamedTuple):
    """A number that is measured for each clip.

    Attributes:
        unit: its unit; "" for a plain ratio.
        says: one sentence on its meaning for a musician, for the report.
    """

    unit: str
    says: str


class FeatureGroup(NamedTuple):
    """Features that one function computes.

    Attributes:
        features: name -> feature.
        measure: a clip's analysis -> {name: value}; a name that is missing is not defined.
        of_silence: whether the features are defined for a silent clip.
    """

    features: dict[str, Feature]
    measure: Callable[[ClipAnalysis], dict[str, float | None]]
    of_silence: bool = False


class Description(NamedTuple):
    """The result of `describe` for one clip.

    Attributes:
        features: name -> value; None where a feature is not defined.
        ltas_db: `[bands]`.
        onset_pattern: `[16, 3]`, or None.
    """

    features: dict[str, float | None]
    ltas_db: np.ndarray
    onset_pattern: np.ndarray | None


_LEVEL = {
    "loudness_lufs": Feature("LUFS", "Integrated loudness; higher is louder."),
    "true_peak_dbtp": Feature(
        "dBTP", "Highest point of the curve through the samples; above 0 a converter may clip it."
    ),
    "crest_db": Feature("dB", "Peak over RMS; low is squashed or distorted, high is spiky or thin."),
    "dc": Feature("", "Mean of the samples; away from 0 the waveform is off-centre and loses headroom."),
    "clipped_share": Feature("", "Samples in flat tops at the peak; near 0 is clean, more is audible clipping."),
}
_SPECTRUM = {
    "sub_ratio_db": Feature("dB", "Energy from 30 to 120 Hz over all energy; near 0 is nearly all kick and bass."),
    "low_spread_hz": Feature("Hz", "Bandwidth used at one time from 30 to 230 Hz; a kick is narrow, rumble is wide."),
    "low_change_db": Feature("dB", "Change of the levels from 30 to 230 Hz in 12 ms; rumble and noise fluctuate."),
    "line_share": Feature(
        "", "Energy from 200 Hz to 5 kHz in sustained partials; 0 is noise, near 1 is notes or metal."
    ),
}
_RHYTHM = {
    "tempo_bpm": Feature("BPM", "Estimated tempo between 100 and 180; a rough one where tempo_bars is below 2."),
    "tempo_bars": Feature("bars", "Length of the clip at that tempo; below 2 the tempo is a rough one."),
    "beat_regularity_low": Feature("", "Similarity of all beats in the kick's band; 1 is four to the floor, 0 none."),
    "beat_regularity_mid": Feature("", "The same from 300 Hz to 2 kHz; low where notes are played between the beats."),
    "beat_regularity_high": Feature("", "The same above 5 kHz; high where every beat has the same hi-hats."),
    "sixteenth_regularity_low": Feature("", "Similarity of all 16ths in the kick's band; high is a rolling bass."),
    "sixteenth_regularity_mid": Feature("", "The same from 300 Hz to 2 kHz; high is an even pattern of 16ths."),
    "sixteenth_regularity_high": Feature("", "The same above 5 kHz; high is an even hi-hat on 16ths."),
    "kick_similarity": Feature("", "Similarity of the waveform below 150 Hz from beat to beat; 1 is one kick."),
    "pulse_clarity": Feature("", "How strongly the onsets repeat after a beat; noise raises it too."),
    "bar_repetition": Feature("", "Similarity of consecutive bars' onsets; 1 is a loop, 0 is unrelated bars."),
    "seam_db": Feature("dB", "Jump at the loop point compared with the other beats; above 0 is a click."),
}
_STEREO = {
    "width_db": Feature("dB", "Side over mid energy; -120 is mono, 0 is very wide, above 0 is out of phase."),
    "channel_correlation": Feature(
        "", "Correlation of left and right; 1 is mono, 0 unrelated, below 0 cancels in mono."
    ),
    "sub_width_db": Feature("dB", "Side over mid below 120 Hz; club systems and vinyl need it low."),
    "sub_correlation": Feature("", "Correlation of left and right below 120 Hz; below 1 mono loses low end."),
}
# The recipe for a feature: add it here, with its function. Everything else follows from this list.
GROUPS = [
    FeatureGroup(_LEVEL, lambda analysis: measure_level(analysis.clip, analysis.loudness_lufs), of_silence=True),
    FeatureGroup(_SPECTRUM, lambda analysis: measure_spectrum(analysis.clip)),
    FeatureGroup(_RHYTHM, measure_rhythm),
    FeatureGroup(_STEREO, lambda analysis: measure_stereo(analysis.clip)),
]


def features() -> dict[str, Feature]:
    """Returns all features by name, in the order of the report."""
    return {name: feature for group in GROUPS for name, feature in group.features.items()}


def measure(
    audio: np.ndarray, sample_rate_hz: int, *, beats: int | None = None, loop: bool = False
) -> dict[str, float | None]:
    """Returns every feature of one clip; None where it is not defined.

    Not defined are: features that need a longer clip; stereo features of one channel; features of a
    band that is empty or above the Nyquist frequency; `seam_db` of a clip that is no loop; and of a
    silent clip (below the gate of BS.1770) all but true peak, DC offset and clipped share.

    Args:
        audio: float `[T, C]` in [-1, 1], one or two channels.
        sample_rate_hz: sample rate, 4000 or more.
        beats: number of beats in the clip, if known; the clip then begins on a downbeat.
        loop: whether the clip will be repeated without a gap.

    Raises:
        ValueError: audio of another shape or type, empty, or with NaN or Inf; a rate that is too
            low; beats below 1.
    """
    return _measure(analyse(audio, sample_rate_hz, beats, loop))


def describe(audio: np.ndarray, sample_rate_hz: int, *, beats: int | None = None, loop: bool = False) -> Description:
    """Returns the features, the long-term spectrum and the onset pattern of one clip.

    The pattern is the rise of level in dB at each sixteenth, averaged over the whole bars. Without
    `beats` it begins on a beat, but not always on the first one of a bar. It has one column for
    each of `BANDS_HZ`, and zeros for a band above the Nyquist frequency. A clip without a whole bar
    or a tempo, and a silent one, has none.

    Args:
        audio: as for `measure`.
        sample_rate_hz: as for `measure`.
        beats: as for `measure`.
        loop: as for `measure`.

    Raises:
        ValueError: audio that `measure` refuses.
    """
    analysis = analyse(audio, sample_rate_hz, beats, loop)
    pattern = None if analysis.bars is None else analysis.bars.mean(axis=0)
    return Description(_measure(analysis), ltas_db(audio, sample_rate_hz, loop=loop), pattern)


def _measure(analysis: ClipAnalysis) -> dict[str, float | None]:
    values = dict.fromkeys(features())
    silent = analysis.loudness_lufs is None
    for group in GROUPS:
        if group.of_silence or not silent:
            values |= group.measure(analysis)
    return values
