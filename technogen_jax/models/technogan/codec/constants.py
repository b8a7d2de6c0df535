"""Constants that were fitted to the built-in corpus or chosen with it.

The corpus is that of `data_prep.synthesize`: 300 tracks of acid and industrial techno at 136 BPM,
44.1 kHz. Another corpus may need other values; `correction.correct` measures on each dataset what
differs most. Log entries are files in `experiments/log/`.
"""

from __future__ import annotations

# --- The code -------------------------------------------------------------------------------------
# The power of its standard deviation that a component keeps in the code: 0 makes all components
# alike, 1 leaves them as they are. Measured: 2026-11-25-technogan-first.md.
DEVIATION_POWER = 0.75
# Weights of the parts in the code; the mid has 1. The discriminator mainly sees large values: with
# a weight of 0.7 the side's rhythm was wrong. Measured: 2026-11-29-side-weight.md; the other weights
# are chosen, so that kicks count more: 2026-11-25-technogan-first.md.
SIDE_WEIGHT, LOW_WEIGHT, PITCH_WEIGHT = 2.0, 0.5, 0.7
PARTIALS_WEIGHT, SIDE_PARTIALS_WEIGHT, PAN_WEIGHT = 0.5, 0.5, 0.5
# How many times as large changes within a sixteenth count in the side's principal components. By
# variance alone they leave out when the side sounds. The mid has 1: it would lose its partials.
# Measured: 2026-11-29-side-coding-and-percussion.md.
SIDE_WITHIN = 3.0

# --- The generator --------------------------------------------------------------------------------
# Nine bars of ten of the corpus have no more notes. Measured: 2026-11-28-notes-and-rests.md.
NOTES_PER_BAR = 6
PARTIALS_PER_BAR = 8  # chosen: up to three sound at once
# Factor of the logits of notes and partials: a new generator chooses one, not many. Chosen.
CHOICE_SHARPNESS = 4.0

# --- Synthesis ------------------------------------------------------------------------------------
# The shaper's loss, a distance of spectra, hardly depends on periodicity, so that the shaper gives
# too much noise. These constants compensate: gains of pulses and partials; a gain of the confidence
# in a pitch that the shaper sees; and by how much noise is softer where pulses have nearly all of
# the power. Decoded bars then have as much energy in partials as real ones and are
# about as periodic. Measured: 2026-11-29-notes-and-two-bars.md.
PULSE_GAIN, PARTIALS_GAIN = 1.3, 1.8
CONFIDENCE_GAIN, NOISE_REDUCTION_NEPERS = 2.0, 1.0
LEAST_PROMINENCE = 0.15  # a truncated code has spurious partials below it. Chosen

# --- Correction -----------------------------------------------------------------------------------
# How far a correction may go: beyond that a band is silent, or the dataset has too little of it.
# Chosen: 2026-11-29-codec-correction.md, 2026-11-30-tone-correction-and-ladder.md.
MOST_LEVEL_NEPERS = 0.35
MOST_SWING = 1.25  # factor
MOST_TONE = 2.0  # factor
LEAST_SHARE = 0.002  # of energy that partials have in half an octave: less is chance

# --- Augmentation ---------------------------------------------------------------------------------
# Standard deviations in dB of each curve of the equalizer, of the bass and of the width. Chosen:
# what an engineer could as well have done. Their effect: 2026-11-28-technogan-s-and-songs.md.
CURVE_DB, BASS_DB, WIDTH_DB = 2.0, 2.0, 3.0
