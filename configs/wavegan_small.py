"""A small WaveGAN: one second of 16 kHz techno, in minutes on a CPU.

    python -m technogen_jax.train --config configs/demo.py --workdir demo/run

`make demo`, the README and the tests run it.

Cost: four minutes. Each start trains for four minutes and ends; the same command resumes the run.
Expected result: a first impression. Among trials of three and four minutes on two cores, the
relativistic loss with R1 and R2, one discriminator update a step and a quarter of the paper's width
was ahead of dcgan at half the width (figures in experiments/log/2026-11-24-demo-loss.md).
"""

from ml_collections import ConfigDict

from configs import wavegan


def get_config() -> ConfigDict:
    config = wavegan.get_config("relativistic").unlock()
    config.data.dir = "demo/records"
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
