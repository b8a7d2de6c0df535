"""The default of every field, with WaveGAN as the model.

The other configs start from these and state what they change. `docs/configuration.md` lists all
fields with their meaning, unit and range; they are declared in `technogen_jax/common/run_config.py`
and beside each model.

    python -m technogen_jax.train --config configs/default.py --workdir runs/default --config.data.dir=data/16k
"""

from ml_collections import ConfigDict

from technogen_jax import models
from technogen_jax.common import run_config


def get_config() -> ConfigDict:
    config = run_config.default_config()
    config.model = models.default_fields("wavegan")
    return config.lock()
