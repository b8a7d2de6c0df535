"""SpecGAN as in the paper: 16,384 samples of 16 kHz mono as an image of 128 frames and 128 bins, WGAN-GP, batch 64.

    python -m data_prep.prepare --input TRACKS --output data/16k --sample_rate 16000 --hop_size 1.024
    python -m technogen_jax.train --config configs/specgan.py --workdir runs/specgan --config.data.dir=data/16k

The other losses, each with the optimiser that goes with it: --config configs/specgan.py:LOSS, see configs/wavegan.py.
Before its first step a run measures mean and deviation of each bin over the whole set and keeps them in the workdir.

Source: Donahue, McAuley, Puckette 2019 (arXiv:1802.04208), section 4, and the authors' train_specgan.py.
Cost: 36.5 million parameters; 2.1 TFLOP, as counted by XLA, for one critic update and the generator's. To measure
1,740 records of two seconds took 1.8 seconds on two CPU cores.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import wavegan


def get_config(loss: str = "wgan-gp") -> ConfigDict:
    config = wavegan.get_config(loss).unlock()
    config.model = ConfigDict()
    config.model.name = "specgan"
    config.model.latent_size = 100
    config.model.channels = 64  # width nearest the image, doubling inwards
    config.model.max_channels = placeholder(int)  # where the doubling stops; None: never
    config.model.batch_norm = False  # not together with a gradient penalty
    config.model.n_fft = 256  # samples in a frame; the image has half as many bins, a power of two
    config.model.hop_length = 128  # samples from frame to frame; at most half of n_fft and a divisor of it
    config.model.n_mels = placeholder(int)  # mel bands instead of bins, a power of two; None: bins
    config.model.iterations = 16  # of Griffin and Lim's algorithm, when sound is made
    config.model.momentum = 0.0  # of its fast variant (0.99 in its paper); 0: the plain one
    config.model.form = "polyphase"  # how convolutions are computed; "plain" is slower and the same
    config.model.dtype = "float32"  # or "bfloat16": of the inner layers' arithmetic, for accelerators
    config.model.remat = 0  # clips that the networks treat at a time, for less memory and more time; 0: the whole batch
    return config.lock()
