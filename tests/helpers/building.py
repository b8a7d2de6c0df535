"""Models and statistics from flat keyword arguments, for tests."""

import jax

from technogen_jax.common.run_config import AudioConfig
from technogen_jax.models import MODELS

_AUDIO = dict(clip_samples="clip_samples", audio_channels="channels", sample_rate_hz="sample_rate_hz")


def configs(model, **fields):
    """The config of a model and the audio's: `audio_channels` is of the audio, `channels` of the model."""
    audio = {name: fields.pop(field) for field, name in _AUDIO.items() if field in fields}
    if fields.get("shaper") == "new":
        fields = dict(shaping_steps=1) | fields
    return MODELS[model].config_class(**fields), AudioConfig(**audio)


def build(model, statistics=None, compiled=True, **fields):
    """The GAN of a model, with compiled functions: operations that are compiled one by one take many times as long."""
    gan = MODELS[model].build(*configs(model, **fields), statistics)
    if not compiled:
        return gan
    names = ("generate", "discriminate", "encode", "decode", "calibrate", "decode_noise")
    functions = {name: jax.jit(getattr(gan, name)) for name in names if getattr(gan, name)}
    return gan._replace(**functions, sample_latents=jax.jit(gan.sample_latents, static_argnums=1))


def measure(model, batches, **fields):
    """The statistics of audio."""
    return MODELS[model].measure(batches, *configs(model, **fields))
