"""TechnoGAN: a GAN on codes that lie on the beat grid, one vector for each sixteenth note.

`codec` turns a clip of whole bars into its code and back. Clips are loops: transforms, convolutions
and decoded sound are circular. `build` connects the codec with the two networks. The method, with
figure and equations: docs/technogan.md.

x, in which the networks meet, is `[B, bars * 16, K + labels]`: the code, then the label weights of
the clip, the same for each sixteenth. The generator copies them from its latents, the discriminator
reads them, `decode` drops them.
"""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from technogen_jax.common.config_fields import check_condition
from technogen_jax.common.run_config import AudioConfig
from technogen_jax.models.gan import GAN, Endless, functional
from technogen_jax.models.technogan.augment import Remixer
from technogen_jax.models.technogan.blocks import interpolate_bars
from technogen_jax.models.technogan.code_synthesizer import CodeSynthesizer
from technogen_jax.models.technogan.codec.codec import Codec
from technogen_jax.models.technogan.config import TechnoGANConfig
from technogen_jax.models.technogan.critic_features import CriticFeatures
from technogen_jax.models.technogan.discriminator import Discriminator
from technogen_jax.models.technogan.generator import Generator, LatentLayout, count_reach_bars
from technogen_jax.models.technogan.layout import STEPS_PER_BAR


def build(config: TechnoGANConfig, audio: AudioConfig, statistics: dict[str, np.ndarray] | None = None) -> GAN:
    """Builds TechnoGAN.

    z is `[style | anchor of each bar | label weights]`. `generate` also takes latents of N bars
    `[B, N, style + anchor + labels]`, N a multiple of `config.bars`, and generates them as one
    loop; `decode` takes codes of as many bars.

    Args:
        config: the fields of the model.
        audio: the format of a clip.
        statistics: what `codec.statistics.measure` returned for the dataset; without them `encode`
            and `decode` raise an error.

    Raises:
        FieldError: a clip whose length does not fit its number of bars, or more components than
            features.
        ValueError: statistics of other sizes.
    """
    check_clip_length(config, audio)

    @cache
    def make_codec(clips: int) -> Codec:
        return Codec(config, audio, statistics, clips)

    codec = make_codec(1)
    size, low = codec.layout.size, codec.layout.low.slice
    synthesizer = CodeSynthesizer(codec)
    latent_layout = LatentLayout.plan(config, synthesizer.noise_size)
    generator = functional(
        partial(
            Generator,
            config,
            step_size=sum(synthesizer.step_sizes),
            bar_size=sum(synthesizer.bar_sizes),
            noise_size=synthesizer.noise_size,
        )
    )
    remixer, features = Remixer(codec, config.remix), CriticFeatures(codec)
    discriminator = functional(
        partial(Discriminator, config, code_size=size - codec.layout.low.size, feature_size=features.size)
    )

    def generate(g_params, z):
        latents = latent_layout.split_by_bar(z) if z.ndim == 2 else z
        code = synthesizer.sum_contributions(*generator.apply(g_params, latents))
        if not config.classes:  # labels without columns would abort XLA's compiler for TPUs
            return code
        return jnp.concatenate([code, interpolate_bars(latent_layout.label_weights(latents), code.shape[1])], -1)

    def discriminate(d_params, x, key):
        x = remixer(x, key)
        # Of the low end the discriminator sees spectra alone, among the features: components tell
        # phases, which no listener hears and which it would memorize.
        without_low = jnp.concatenate([x[..., : low.start], x[..., low.stop :]], -1)
        return (discriminator.apply(d_params, without_low, features(x[..., :size])),)

    def encode(audio, weights=None):
        check_labels(config, weights)
        code = codec.encode(audio)
        if weights is None:
            return code
        return jnp.concatenate([code, jnp.broadcast_to(weights[:, None], (*code.shape[:2], len(config.classes)))], -1)

    def codec_of(x):
        return make_codec(x.shape[1] // (STEPS_PER_BAR * config.bars))

    return GAN(
        sample_latents=latent_layout.sample,
        init_g=generator.init,
        init_d=discriminator.init,
        generate=generate,
        discriminate=discriminate,
        encode=encode,
        decode=lambda x, noise=None: codec_of(x).decode(x[..., :size], noise),
        decode_noise=lambda x: codec_of(x).draw_noise(x[..., :size]),
        calibrate=lambda g_params, key: g_params,
        classes=config.classes,
        encode_once=True,
        endless=Endless(config.bars, count_reach_bars(config), config.latent_size, latent_layout.whole_anchor_size),
    )


def check_clip_length(config: TechnoGANConfig, audio: AudioConfig) -> None:
    """Checks that a clip is as long as its number of bars at 60 to 300 BPM.

    Raises:
        FieldError: it is not.
    """
    step_s = audio.clip_samples / audio.sample_rate_hz / (STEPS_PER_BAR * config.bars)
    check_condition(
        0.05 <= step_s <= 0.25,
        "audio.clip_samples",
        f"{config.bars} bars (config.model.bars) of 0.8 to 4 seconds; what data_prep.prepare --grid bars says",
        audio.clip_samples,
    )


def check_labels(config: TechnoGANConfig, weights: jax.Array | None) -> None:
    """Checks that there are label weights exactly if the model has labels.

    Raises:
        ValueError: there are none, or the model has no labels.
    """
    if config.classes and weights is None:
        expected = f"label weights [B, {len(config.classes)}], of config.model.classes"
        raise ValueError(f"technogan: expected {expected}, got none")
    if weights is not None and not config.classes:
        raise ValueError("technogan: got label weights, and this model has no labels (config.model.classes)")
