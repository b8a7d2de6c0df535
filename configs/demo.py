"""The demo: the smallest TechnoGAN on two-bar loops of the built-in corpus, three minutes at a time.

    python -m data_prep.synthesize --output demo/tracks --tracks 24 --minutes 1,2
    python -m data_prep.prepare --input demo/tracks --output demo/records --channels 2 --grid bars --bars 2
    python -m technogen_jax.train --config configs/demo.py --workdir demo/run
    python -m technogen_jax.sample --workdir demo/run --n 16

`make demo` runs it, and so do the tests, at a smaller size. Each start trains for three minutes; the
same command resumes. `configs/technogan.py` explains the model.
"""

from ml_collections import ConfigDict

from configs import technogan


def get_config() -> ConfigDict:
    config = technogan.get_config("xs").unlock()
    config.data.dir = "demo/records"
    config.train.minutes = 3.0
    config.train.log_every = 50
    # Rarer than in other configs: with three minutes each evaluation counts.
    config.train.save_every = config.train.sample_every = config.eval.every = 1000
    return config.lock()
