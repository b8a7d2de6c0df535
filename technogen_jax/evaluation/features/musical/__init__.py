"""Musical features: properties of one clip that a musician can act on, computed with numpy.

    description   the table of features; `measure` and `describe`
    clip          a clip with its spectrum; filters and energies
    level         loudness, true peak, crest factor, DC offset, clipping
    spectrum      low end, sustained partials; the long-term spectrum `ltas_db` and its distance
    stereo        width and correlation of the channels
    beats         onsets, tempo, beat grid and bars
    analysis      these, computed once a clip
    rhythm        tempo, regularity, kick, bars, the seam of a loop; correlation of onset patterns

Most features are one number a clip, and two sets of clips are compared by its distributions. The
long-term spectrum and the onset pattern are arrays and have distances of their own. Rhythm is
measured on the mean of the channels.
"""

from technogen_jax.evaluation.features.musical.beats import STEPS
from technogen_jax.evaluation.features.musical.clip import BANDS_HZ, FLOOR_DB
from technogen_jax.evaluation.features.musical.description import (
    Description,
    Feature,
    FeatureGroup,
    describe,
    features,
    measure,
)
from technogen_jax.evaluation.features.musical.rhythm import beat_periodic_energy_ratio, pattern_correlation
from technogen_jax.evaluation.features.musical.spectrum import ltas_centres_hz, ltas_db, ltas_distance

__all__ = [
    "BANDS_HZ",
    "FLOOR_DB",
    "STEPS",
    "Description",
    "Feature",
    "FeatureGroup",
    "beat_periodic_energy_ratio",
    "describe",
    "features",
    "ltas_centres_hz",
    "ltas_db",
    "ltas_distance",
    "measure",
    "pattern_correlation",
]
