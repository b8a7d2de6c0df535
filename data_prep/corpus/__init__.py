"""The built-in corpus: techno tracks composed and rendered from a seed.

compose       draws tempo, form, layers, patterns and sounds of a track
render        plays the patterns into buses, mixes and masters them
drums         kick, hats, cymbals, clap, snare, tom, metal
synthesizer   oscillator, resonant filters, distortion
effects       reverb, echo, limiter; rumble and texture
filters       fixed filters and helpers
"""

from technogen_jax.common import cache_folders

cache_folders.use_temporary_folders()  # before filters.py imports numba
