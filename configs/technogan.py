"""TechnoGAN: bars of 44.1 kHz stereo that loop, trained on a laptop.

    python -m data_prep.prepare --input TRACKS --output data/bars --channels 2 --grid bars --bars 2
    python -m technogen_jax.train --config configs/technogan.py:xs --workdir runs/technogan --config.data.dir=data/bars
    python -m technogen_jax.sample --workdir runs/technogan --n 16
    python -m technogen_jax.sample --workdir runs/technogan --minutes 10

Sizes: --config configs/technogan.py:SIZE, where SIZE is xs, s, m or l. Tempo, sample rate, channels
and bars of a clip are those of the prepared dataset. Below 32 kHz, set --config.model.shaper=none.
Folders of tracks are labels: a dataset with 2 to 20 of them, each with at least 8 tracks to train
on, gives a model that generates by label. --config.model.classes="('acid','industrial')" names
others, --config.model.classes="()" none.

The idea: a codec turns each sixteenth note into 156 components of its spectra, low waveform, pitch
and sustained partials, and back into audio; a small trained network, the shaper, shapes the
excitations. A GAN learns the sequences of these vectors. Before the first step a run measures and
encodes the dataset, and corrects the codec on a part of it. The shaper is shipped trained.
--config.model.shaping_steps=2400 trains it further on your dataset (half an hour), or from the
start with --config.model.shaper=new.

Cost and expected result, with clips of two bars, on one core. The dataset is 239 tracks of the
built-in corpus (2,175 clips).

| size | generator | discriminator | steps | minutes | fd   | p     | correct |
| ---- | --------- | ------------- | ----- | ------- | ---- | ----- | ------- |
| xs   | 0.76 M    | 0.15 M        | 7,000 | 18      | 1.09 | 0.039 | 16      |
| s    | 1.76 M    | 0.47 M        | 6,000 | 35      | 1.01 | 0.147 | 15      |
| m    | 5.8 M     | 1.3 M         | 6,000 | 44      | 1.02 | 0.114 | 14      |
| l    | 19.1 M    | 5.1 M         | 1,700 | 50      | 1.10 | 0.013 | 19      |

- generator, discriminator: parameters; 6 per cent fewer for clips of one bar.
- fd: fd_tmr-v1 of generated clips, divided by that of real clips.
- p: of mmd_tmr-v1. correct: the answers of the classifier that were correct, of 30.
- l was still learning. xs has coverage 0.99 (real clips 0.97) and recall 0.67 (0.85); m has recall
  0.72. None of 600 clips of xs was flagged as a copy (held-out clips: 0.8 per cent).

More in experiments/README.md and experiments/log/2026-11-30-tone-correction-and-ladder.md.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import wavegan
from technogen_jax import models

# Channels, blocks and learning rate of the generator, and of the discriminator, which is one size
# smaller: a larger one memorizes the bars. Above s the learning rates fall as channels grow: at
# 1e-3 the kicks of m were not alike, and its discriminator soon distinguished all bars.
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
    # None: what the prepared dataset has.
    config.audio = ConfigDict({name: placeholder(int) for name in config.audio})
    config.model = models.default_fields("technogan")
    config.model.bars = placeholder(int)
    config.model.classes = placeholder(tuple)
    config.model.channels, config.model.blocks = channels, blocks
    config.model.critic_channels, config.model.critic_blocks = critic_channels, critic_blocks
    config.model.shaper = "shipped"
    config.data.crop = "start"  # a longer record starts at a bar, and a clip must too
    # Beats, in sixteenths, and other mixes: without them the discriminator memorizes bars and
    # tracks.
    config.data.rotate = 4
    config.model.remix = 0.5
    # A step takes three quarters of the time with these two.
    config.loss.penalty_share = 0.25
    config.train.reuse_fakes = True
    config.loss.r1_weight = config.loss.r2_weight = 2.0
    config.optimizer.learning_rate_g, config.optimizer.learning_rate_d = rate, critic_rate
    config.optimizer.tail = 0.5
    config.optimizer.largest_update = 1.0
    config.train.steps = 12_000
    config.train.batch_size = 32
    config.train.ema_decay = 0.995
    config.train.steps_per_dispatch = 5
    config.eval.every = 2000
    config.eval.clips = 128
    return config.lock()
