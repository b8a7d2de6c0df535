"""A small WaveGAN: one second of 16 kHz techno, in minutes on a CPU.

    python -m data_prep.prepare --input TRACKS --output data/mono --sample_rate 16000 --hop_size 2.048 --stride 1.024
    python -m technogen_jax.train --config configs/wavegan_small.py --workdir runs/small --config.data.dir=data/mono
    python -m technogen_jax.sample --workdir runs/small --n 16

Cost: four minutes. Each start trains for four minutes and ends; the same command resumes the run.
Expected result: a first impression. Among trials of three and four minutes on two cores, the
relativistic loss with R1 and R2, one discriminator update a step and a quarter of the paper's width
was ahead of dcgan at half the width (figures in experiments/log/2026-11-24-demo-loss.md).
"""

from ml_collections import ConfigDict

from configs import wavegan


def get_config() -> ConfigDict:
    config = wavegan.get_config("relativistic").unlock()
    config.model.channels = 16
    config.optimizer.learning_rate_g = 4e-4
    config.optimizer.learning_rate_d = 4e-4
    config.train.minutes = 4.0
    config.train.batch_size = 8
    config.train.log_every = 20
    config.train.save_every = 200
    config.eval.every = 200
    config.train.sample_every = 400
    return config.lock()
