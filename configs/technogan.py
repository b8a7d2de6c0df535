"""TechnoGAN, first form: bars of 44.1 kHz stereo, as sixteen vectors of 72 numbers; mono or other rates by config.audio.

    python -m data_prep.prepare --input TRACKS --output data/bars --channels 2 --grid bars --bars 1 --bpm 136
    python -m technogen_jax.train --config configs/technogan.py --workdir runs/technogan --config.data.dir=data/bars
    python -m technogen_jax.sample --workdir runs/technogan

Sizes: --config configs/technogan.py:SIZE, SIZE one of xs, s, m, l. At another tempo, rate or number of bars, set
config.audio.clip_samples (and config.model.bars) to what prepare says.

Idea: a codec without training, principal components of the log-mel frames of each sixteenth and of its waveform below
180 Hz, and a GAN on what they give: the relativistic loss with R1 and R2, one critic update a step.
Before its first step a run measures the components over the whole set: 39 s of one core of an AMD EPYC for 2.2 hours of stereo.

| size | generator | discriminator | a step of 64 bars, seconds of one core, without encoding |
| ---- | --------- | ------------- | -------------------------------------------------------- |
| xs   | 0.31 M    | 0.37 M        | 0.30 |
| s    | 0.96 M    | 1.09 M        | 0.71 |
| m    | 4.0 M     | 4.3 M         | 2.4  |
| l    | 15.0 M    | 15.7 M        |      |

Encoding a batch adds 0.14 to 0.2 seconds. Sound of one bar (1.76 s) takes 0.033 seconds of one core, 0.008 with no iteration
of Griffin and Lim's algorithm, 0.098 with sixteen.
Result: xs on 240 tracks of the built-in corpus (4,499 bars), the set encoded once beforehand, ten minutes on two shared
cores, 2,400 steps: fd_tmr-v1 2.0 times the floor, coverage 0.42 (real 0.98), told apart by the classifier every time, none flagged
as a copy; kicks on the beat, less varied than the real ones. Real bars through the codec: 1.2 times the floor, kick_similarity
0.94 (real 0.93). The rest is to be gained by longer training, a larger size, a better codec.
"""

from ml_collections import ConfigDict

from configs import wavegan

SIZES = {  # channels, blocks
    "xs": (80, 4),
    "s": (128, 5),
    "m": (224, 7),
    "l": (384, 9),
}


def get_config(size: str = "s") -> ConfigDict:
    if size not in SIZES:
        raise ValueError(f"configs/technogan.py:{size}: expected {', '.join(SIZES)} after the colon")
    config = wavegan.get_config("relativistic").unlock()
    config.audio.sample_rate_hz = 44100
    config.audio.channels = 2
    config.audio.clip_samples = (
        77824  # what data_prep.prepare --grid bars says; this is a bar at 136 BPM, within half a sample
    )
    config.data.crop = "start"  # of a longer record: from its first bar on
    config.model = ConfigDict()
    config.model.name = "technogan"
    config.model.bars = 1  # in a clip; 1 to 8
    config.model.latent_size = 128
    config.model.channels, config.model.blocks = SIZES[size]  # width of both networks, residual blocks of each
    config.model.frames_per_step = 8  # spectra a sixteenth note
    config.model.n_mels = 96  # bands above the crossover
    config.model.mid_components = 40  # numbers a sixteenth: of the mid signal's spectra,
    config.model.side_components = 8  # of the side signal's (stereo),
    config.model.low_components = 24  # of the waveform below the crossover
    config.model.iterations = 4  # of the Griffin-Lim algorithm, when sound is made
    # In trials with xs a gamma of 10 was as far after 1,400 steps as a gamma of 1 after more than 3,000. Only this rate was tried.
    config.loss.r1_weight = config.loss.r2_weight = 10.0
    config.optimizer.learning_rate_g = config.optimizer.learning_rate_d = 4e-4
    config.train.ema_decay = 0.998
    return config.lock()
