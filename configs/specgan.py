"""SpecGAN as in the paper: one second of 16 kHz mono as 128 frames of 128 bins, WGAN-GP, batch 64.

    python -m data_prep.prepare --input TRACKS --output data/16k --sample_rate 16000 --hop_size 2.048 --stride 1.024
    python -m technogen_jax.train --config configs/specgan.py --workdir runs/specgan --config.data.dir=data/16k

Other losses, each with the optimizer that belongs to it: --config configs/specgan.py:LOSS, see
configs/wavegan.py. Before its first step a run measures mean and standard deviation of each bin
over the whole dataset and keeps them in the workdir.

Cost: 36.5 million parameters; 2.1 TFLOP, as counted by XLA, for one update of each network. To
measure 1,740 records of two seconds took 1.8 seconds on two CPU cores.
Expected result: the paper's, if trained as long. It was not trained to the end here.
Reference: Donahue, McAuley, Puckette 2019 (arXiv:1802.04208), section 4, and the authors'
train_specgan.py.
"""

from ml_collections import ConfigDict

from configs import wavegan
from technogen_jax import models


def get_config(loss: str = "wgan-gp") -> ConfigDict:
    config = wavegan.get_config(loss).unlock()
    config.model = models.default_fields("specgan")
    return config.lock()
