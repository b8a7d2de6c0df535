"""WaveGAN as in the paper: one second of 16 kHz mono, WGAN-GP, batch 64, n_critic 5.

    python -m data_prep.prepare --input TRACKS --output data/16k --sample_rate 16000 --hop_size 2.048 --stride 1.024
    python -m technogen_jax.train --config configs/wavegan.py --workdir runs/wavegan --config.data.dir=data/16k

Records are twice as long as a clip: training reads a clip at a random offset of a record, as the
authors' code does.

Other losses, each with the optimizer that belongs to it: --config configs/wavegan.py:LOSS, where
LOSS is wgan-gp, wgan, dcgan, lsgan (these four as in the code of WaveGAN's authors), hinge or
relativistic (explained below).

Cost: 36.5 million parameters, 7.5 TFLOP a step. The authors' 200,000 steps took four days on a
P100.
Expected result: the paper's, if trained as long. It was not trained to the end here.
Reference: Donahue, McAuley, Puckette 2019 (arXiv:1802.04208), table 1, and the authors'
train_wavegan.py.
"""

from ml_collections import ConfigDict

from configs import default

LOSSES = {
    "wgan-gp": dict(
        loss=dict(adversarial="wgan", gp_weight=10.0),
        optimizer=dict(name="adam", learning_rate_g=1e-4, learning_rate_d=1e-4, b1=0.5, b2=0.9),
    ),
    "wgan": dict(
        loss=dict(adversarial="wgan", gp_weight=0.0, weight_clip=0.01),
        optimizer=dict(name="rmsprop", learning_rate_g=5e-5, learning_rate_d=5e-5, b2=0.9),
    ),
    "dcgan": dict(
        loss=dict(adversarial="dcgan", gp_weight=0.0),
        optimizer=dict(name="adam", learning_rate_g=2e-4, learning_rate_d=2e-4, b1=0.5, b2=0.999),
    ),
    "lsgan": dict(
        loss=dict(adversarial="lsgan", gp_weight=0.0),
        optimizer=dict(name="rmsprop", learning_rate_g=1e-4, learning_rate_d=1e-4, b2=0.9),
    ),
    # Lim and Ye 2017 name no optimizer for audio. Adam is set as in SAGAN (Zhang et al. 2018,
    # arXiv:1805.08318, section 4), without a first moment; R1 keeps the discriminator from winning
    # on small datasets.
    "hinge": dict(
        loss=dict(adversarial="hinge", gp_weight=0.0, r1_weight=1.0),
        optimizer=dict(name="adam", learning_rate_g=1e-4, learning_rate_d=4e-4, b1=0.0, b2=0.9),
        train=dict(n_critic=1),
    ),
    # Huang et al. 2024 (arXiv:2501.05441): both zero-centered penalties, no first moment. Their
    # code lowers the learning rate (2e-4 to 5e-5), raises b2 (0.9 to 0.99) and lowers gamma, which
    # depends on the dataset (0.05 to 150). Here all three are constant, and gamma is not tuned.
    "relativistic": dict(
        loss=dict(adversarial="relativistic", gp_weight=0.0, r1_weight=1.0, r2_weight=1.0),
        optimizer=dict(name="adam", learning_rate_g=2e-4, learning_rate_d=2e-4, b1=0.0, b2=0.99),
        train=dict(n_critic=1),
    ),
}


def get_config(loss: str = "wgan-gp") -> ConfigDict:
    if loss not in LOSSES:
        raise ValueError(f"configs/wavegan.py:{loss}: expected one of {', '.join(LOSSES)} after the colon")
    config = default.get_config()
    config.update(LOSSES[loss])
    return config
