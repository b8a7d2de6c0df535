"""Fine-tuning: the shipped model, trained on with 1 to 20 tracks of yours.

    python -m data_prep.prepare --input TRACKS --output data/mine --channels 2 --grid bars --bars 2 --split 1,0,0
    python -m technogen_jax.train --config configs/fine_tune.py --workdir runs/mine --config.data.dir=data/mine
    python -m technogen_jax.sample --workdir runs/mine --n 16

The model, its codec and its weights are those of the shipped TechnoGAN: the fields of config.model
below are replaced by its own. --config.train.init_from=RUN names another run or an exported file.
`--split 1,0,0` keeps all tracks for training. Then nothing can be measured on music that the model
has not heard, and you are the judge: prepare without it, if you have more than ten tracks.

How it compares with training from random weights: experiments/log/2026-12-01-fine-tuning.md.
"""

from ml_collections import ConfigDict

from configs import technogan


def get_config() -> ConfigDict:
    config = technogan.get_config("xs").unlock()
    config.train.init_from = "shipped"
    # Half the rates of a new model: the weights are near where they should be.
    config.optimizer.learning_rate_g = config.optimizer.learning_rate_d = 5e-4
    config.train.steps = 2000
    config.train.save_every = config.train.sample_every = config.eval.every = 500
    config.data.dir = "data/mine"
    return config.lock()
