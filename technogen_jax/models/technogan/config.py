"""The fields of TechnoGAN: the only place where they are declared."""

from __future__ import annotations

import dataclasses

from technogen_jax.common.config_fields import FieldError, Section, check_condition, field

_MOST = 2**16  # of a size; larger networks or codes would not fit into any memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class TechnoGANConfig(Section):
    """The fields of TechnoGAN.

    A default is what a config without the field means; `configs/technogan.py` has what a new run
    should use.
    """

    section = "model"
    bars: int = field(1, "Bars in a clip, each of four beats.", unit="bars", least=1, most=8)
    latent_size: int = field(
        96, "Components of the style, which is the same for all bars of a clip.", least=1, most=_MOST
    )
    anchor_size: int = field(32, "Size of each bar's anchor vector, without its noise.", least=1, most=_MOST)
    classes: tuple[str, ...] = field((), "Labels that the model can generate on request, such as ('acid', 'dub').")
    channels: int = field(128, "Channels of the generator.", least=1, most=4096)
    blocks: int = field(5, "Residual blocks of the generator.", least=1, most=64)
    critic_channels: int = field(80, "Channels of the discriminator.", least=1, most=4096)
    critic_blocks: int = field(4, "Residual blocks of the discriminator.", least=1, most=64)
    frames_per_step: int = field(
        8, "Spectra in a sixteenth note; an even number if there is a shaper.", unit="frames", least=2, most=_MOST
    )
    n_mels: int = field(
        96, "Mel bands of a spectrum, from the crossover to half the sample rate.", unit="bands", least=1, most=_MOST
    )
    mid_components: int = field(
        40, "Principal components of the spectra of the mid signal (mono: of the signal).", least=1, most=_MOST
    )
    side_components: int = field(
        16, "Principal components of the spectra of the side signal (stereo).", least=1, most=_MOST
    )
    low_components: int = field(
        36, "Principal components of the waveform of the mid signal below the crossover.", least=1, most=_MOST
    )
    pitch_components: int = field(
        20, "Principal components of the pitch of the mid signal (with a shaper).", least=1, most=_MOST
    )
    partial_components: int = field(
        20, "Principal components of the sustained partials in the mid signal (with a shaper).", least=1, most=_MOST
    )
    side_partial_components: int = field(
        20,
        "Principal components of the sustained partials in the side signal (stereo, with a shaper).",
        least=1,
        most=_MOST,
    )
    pan_components: int = field(
        4, "Principal components of the correlation between mid and side (stereo).", least=1, most=_MOST
    )
    shaper: str = field(
        "none",
        "The network that shapes the excitations which sound is made of. shipped: the trained one of this package; new: it is "
        "trained on the dataset first (see shaping_steps); none: noise alone, without pitch and partials; or the file "
        "statistics.npz of a run that trained one.",
    )
    shaping_steps: int = field(
        0,
        "Steps that train the shaper on the dataset before the GAN, 2400 for example. 0: the shaper is used as it is.",
        unit="steps",
        least=0,
    )
    level_passes: int = field(
        0,
        "How often decoding compares the levels of the sound with those of the code and corrects them. 1 makes decoded "
        "music clearer where the code has enough components, such as 120 of mid and 48 of side; with 40 and 16 it "
        "becomes too steady.",
        least=0,
        most=4,
    )
    remix: float = field(
        0.0,
        "Share of the clips, real and generated, that the discriminator sees in another mix: equalizer, bass and width "
        "changed, left and right swapped. It then memorizes fewer tracks.",
        least=0,
        most=1,
    )

    def __post_init__(self):
        """Checks the fields, and those that depend on each other."""
        super().__post_init__()
        known = self.shaper in ("shipped", "none", "new") or self.shaper.endswith(".npz")
        check_condition(known, "model.shaper", "shipped, none, new or a .npz file", self.shaper)
        even = self.shaper == "none" or self.frames_per_step % 2 == 0
        check_condition(even, "model.frames_per_step", "an even number, where there is a shaper", self.frames_per_step)
        if self.shaping_steps and self.shaper == "none":
            raise FieldError(
                f"config.model.shaping_steps is {self.shaping_steps}, and there is no shaper to train: set it to 0, or "
                "config.model.shaper to shipped or new"
            )
        if self.shaper == "new" and not self.shaping_steps:
            raise FieldError("config.model.shaper is new: set config.model.shaping_steps, 2400 for example")
