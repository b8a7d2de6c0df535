"""The codec of TechnoGAN: audio to one code vector for each sixteenth note, and back.

The modules:

    codec        the class `Codec`: encoder and decoder of a dataset
    analysis     audio -> the features of each part: spectra, low waveform, pitch, partials, pan
    pitch        detection of pitch, its features, and back
    partials     detection of sustained partials, their features, and back
    salience     how far bins stand out of their surroundings
    statistics   principal components of the features and all else that is measured; `measure`
    components   features <-> principal components
    encoder      features -> code
    decoder      code -> excitations x gates -> audio
    excitations  noise, distorted low end, pulses, sines
    leveling     brings the levels of synthesized sound to those of the code
    shaper       the network that gives the gates
    correction   how decoded audio differs from the dataset; `correct`
    constants    what was fitted to the built-in corpus or chosen with it
"""
