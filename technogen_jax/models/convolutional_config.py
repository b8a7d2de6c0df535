"""The fields that WaveGAN and SpecGAN share, both made of convolutional networks."""

from __future__ import annotations

import dataclasses

from technogen_jax.common.config_fields import Section, check_condition, field
from technogen_jax.models.layers import DTYPES, FORMS


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvolutionalConfig(Section):
    """The fields of both networks of WaveGAN and of SpecGAN. The defaults are the paper's."""

    section = "model"
    latent_size: int = field(100, "Components of the latent vector, each uniform in [-1, 1].", least=1, most=2**16)
    channels: int = field(
        64,
        "Channels of the layer next to the audio (or image); they double with each layer inwards.",
        least=1,
        most=4096,
    )
    max_channels: int | None = field(
        None, "Largest number of channels, where the doubling stops. None: no limit.", least=1, most=2**16
    )
    batch_norm: bool = field(
        False,
        "Batch norm in both networks, except next to the audio (or image). It does not work with a gradient penalty.",
    )
    form: str = field(
        "auto",
        "How convolutions are computed; the result is the same. auto: what is faster on the device.",
        choices=FORMS,
        changeable=True,
    )
    dtype: str = field(
        "float32",
        "Arithmetic of the inner layers; bfloat16 is for accelerators. Parameters are float32 in both cases.",
        choices=tuple(DTYPES),
    )
    remat: int = field(
        0,
        "Clips that the networks process at a time. The backward pass computes their activations again (rematerialization), "
        "which takes less memory and more time. 0: the whole batch at once. Needs batch_norm = False.",
        unit="clips",
        least=0,
        most=2**16,
    )

    def __post_init__(self):
        """Checks the fields, and those that depend on each other."""
        super().__post_init__()
        check_condition(
            self.max_channels is None or self.max_channels >= self.channels,
            "model.max_channels",
            f"None or a whole number of at least config.model.channels ({self.channels})",
            self.max_channels,
        )
        check_condition(
            not (self.remat and self.batch_norm), "model.remat", "0 with config.model.batch_norm", self.remat
        )
