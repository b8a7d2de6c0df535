"""TechnoGAN: bars of 44.1 kHz stereo that loop, learnt on a laptop, as sixteen vectors of 156 numbers.

    python -m data_prep.prepare --input TRACKS --output data/bars --channels 2 --grid bars --bars 2
    python -m technogen_jax.train --config configs/technogan.py:xs --workdir runs/technogan --config.data.dir=data/bars
    python -m technogen_jax.sample --workdir runs/technogan --n 16
    python -m technogen_jax.sample --workdir runs/technogan --minutes 10

Sizes: --config configs/technogan.py:SIZE, SIZE one of xs, s, m, l. Tempo, rate, channels and bars of a clip are those of the
prepared set; below 32 kHz set config.model.shaper=none. For sound by label, --config.model.classes="('acid','industrial')", the
names of the folders.

Idea: a linear codec, principal components of the log-mel frames of each sixteenth, of its waveform below 180 Hz, of its pitch and
of the lines that stand in mid and side, whose sound is made of noise, distorted bass, pulses and sines that a small network of 0.58 M
parameters shapes; and a GAN on the code, whose generator chooses for a bar a kick, four sounds that are struck, a bass of four notes,
six other notes, twice eight lines and how much beats and sixteenths differ at all, and for a sixteenth which of these it has: the
relativistic loss with R1 and R2, one critic update a step.
The set is measured and encoded once, before the first step, and by a part of it, decoded, the codec is corrected. The shaping
network comes trained; --config.model.shaping_steps=2400 trains it on your set first (half an hour), from what it is or, with
--config.model.shaper=new, anew.

| size | generator | discriminator |
| ---- | --------- | ------------- |
| xs   | 0.76 M    | 0.15 M |
| s    | 1.76 M    | 0.47 M |
| m    | 5.8 M     | 1.3 M  |
| l    | 19.1 M    | 5.1 M  |

(of two bars; of one by 6 per cent fewer)

Result: xs of two bars on 239 tracks of the built-in corpus (2,175 clips), 7,000 steps in 18 minutes on one core: fd_tmr-v1 1.09 times
the floor, mmd_tmr-v1 p = 0.039, coverage 0.99 (floor 0.97), recall 0.67 (floor 0.85), the classifier right 16 times of 30 (p = 0.9), none of
600 clips flagged as a copy (held-out clips 0.8 per cent); s, 6,000 steps in 35 minutes: 1.01, p = 0.147, 15 times of 30;
m, 6,000 in 44: 1.02, p = 0.114, 14 times, recall 0.72; l, 1,700 in 50, still learning: 1.10, p = 0.013, 19 times. See
experiments/README.md.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import wavegan

# Channels, blocks and learning rate of the generator, and of the critic, which is a size smaller: a larger one learns the bars by heart.
# Above s rates fall as channels grow: at 1e-3 the kicks of m were not alike, and its critic soon told all bars apart.
SIZES = {
    "xs": ((80, 4, 1e-3), (48, 3, 1e-3)),
    "s": ((128, 5, 1e-3), (80, 4, 1e-3)),
    "m": ((224, 7, 4e-4), (128, 5, 6e-4)),
    "l": ((384, 9, 2.3e-4), (224, 7, 3.4e-4)),
}


def get_config(size: str = "s") -> ConfigDict:
    if size not in SIZES:
        raise ValueError(f"configs/technogan.py:{size}: expected {', '.join(SIZES)} after the colon")
    (channels, blocks, rate), (critic_channels, critic_blocks, critic_rate) = SIZES[size]
    config = wavegan.get_config("relativistic").unlock()
    config.audio = ConfigDict({name: placeholder(int) for name in config.audio})  # None: what the prepared set has
    config.data.crop = "start"  # of a longer record: from its first bar on
    config.data.rotate = 4  # sixteenths: by beats, without which the critic learns the bars by heart
    config.model = ConfigDict()
    config.model.name = "technogan"
    config.model.bars = placeholder(int)  # in a clip, 1 to 8; None: what the prepared set has
    config.model.latent_size = 96  # numbers of the style, which a track keeps,
    config.model.anchor_size = 32  # and of each bar's anchor, which changes as a track goes on
    config.model.classes = ()  # labels of the set that can be asked for, as ("acid", "industrial"); none: one kind of music
    config.model.channels, config.model.blocks = channels, blocks  # width and residual blocks of the generator
    config.model.critic_channels, config.model.critic_blocks = critic_channels, critic_blocks
    config.model.frames_per_step = 8  # spectra a sixteenth note
    config.model.n_mels = 96  # bands above the crossover
    config.model.mid_components = 40  # numbers a sixteenth: of the mid signal's spectra,
    config.model.side_components = 16  # of the side signal's (stereo),
    config.model.low_components = 36  # of the waveform below the crossover,
    config.model.pitch_components = 20  # of the pitch (with a shaper),
    config.model.partial_components = 20  # of the lines that stand (with a shaper),
    config.model.side_partial_components = 20  # and in the side (with a shaper, stereo),
    config.model.pan_components = 4  # of how mid and side go together (stereo)
    # Of the excitations that sound is made of. "none": noise alone; "new", with shaping_steps: trained on this set first;
    # or the statistics.npz of a run that has done so.
    config.model.shaper = "shipped"
    config.model.shaping_steps = 0  # of the shaper on this set, before all others; 0: it is used as it comes
    config.model.remix = 0.5  # share of clips that the critic hears mixed otherwise: so it learns fewer tracks by heart
    config.loss.r1_weight = config.loss.r2_weight = 2.0
    config.loss.penalty_share = 0.25  # and below, train.reuse_fakes: a step takes three quarters of the time
    config.optimizer.learning_rate_g, config.optimizer.learning_rate_d = rate, critic_rate
    config.optimizer.tail = 0.5
    config.optimizer.largest_update = 1.0
    config.train.steps = 12_000
    config.train.batch_size = 32
    config.train.reuse_fakes = True
    config.train.ema_decay = 0.995
    config.train.steps_per_dispatch = 5
    config.eval.every = 2000
    config.eval.clips = 128
    return config.lock()
