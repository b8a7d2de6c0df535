"""TechnoGAN: a GAN on sequences that lie on the beat grid, one vector for each sixteenth note.

`codec` turns a clip of whole bars into such a sequence and back. Clips are loops: transforms, convolutions and decoded sound
are circular.

The networks are residual, of one dimension, over the grid; where a clip has several bars, a plan of one vector a bar
comes first in the generator and last in the discriminator.

A clip has one style, an anchor for each bar and, where there are classes, label weights; the three make a style for the
bar, and between the beginnings of two bars styles are interpolated. All else in the generator is a convolution around the
grid: what it makes depends on a few bars, and the same parameters make any number of bars, which is how tracks without end
are played (`arrange`). Nothing but rings of `bars` bars is judged in training. Anchors are drawn apart for each bar of a
ring, so changes from bar to bar are judged where there are two bars or more, and not where there is one.

A bar has a kick, a few sounds that are struck, a few notes, each with a sound of its own, and a few lines, which its style chooses; a
sixteenth says which of them sound. So claps and notes come back as they were, as they do in music, without the network having to repeat
itself to the quarter-tone. Where a line is, levels have a peak: without one it would be lost in noise.
The low end is spoken as sines whose pitch falls or stays (`lowend`), beside which numbers can be opened for what is neither kick nor
bass. Of all other numbers the style says how much they move at all, how much of that differs from beat to beat, and how much of that
between the halves of the bar: much of techno repeats or stands still exactly, and convolutions never do. What never repeats is noise,
of each number as much as the style says; each sixteenth has its own, as part of the bar's anchor, and the network has it as an input
too. The discriminator hears the power of what can be silent, and of what can stand still or come back, on a logarithmic scale too, the
small numbers by themselves: that a rest is silence, not merely soft, is not seen otherwise. Of the low end it hears logarithmic spectra
alone.

Label weights are channels of x, constant in training, which the generator copies from its latents: the discriminator
reads them, decoding drops them.

*Source*: Karras et al. 2019 (arXiv:1812.04948), learned start, style and noise; Karras et al. 2018 (arXiv:1710.10196), section 3,
minibatch deviation; Huang et al. 2024 (arXiv:2501.05441), no normalisation, last layer of a residual branch starts at
zero; relativistic loss and penalties are in `losses`. Miyato, Koyama 2018 (arXiv:1802.05637), labels by projection. Idea
of a GAN on a compact code of music, with a style and anchors between which latents are interpolated: Pasini, Schlüter
2022 (arXiv:2208.08706).
"""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from technogen_jax.common.config_fields import check_condition
from technogen_jax.common.run_config import AudioConfig
from technogen_jax.models.gan import GAN, Endless, functional
from technogen_jax.models.layers import CircularConv, Dense, leaky_relu, minibatch_deviation
from technogen_jax.models.technogan import low_end
from technogen_jax.models.technogan.augment import Remixer
from technogen_jax.models.technogan.codec import partials, pitch
from technogen_jax.models.technogan.codec.codec import Codec
from technogen_jax.models.technogan.codec.constants import NOTES_PER_BAR, PARTIALS_PER_BAR
from technogen_jax.models.technogan.config import TechnoGANConfig
from technogen_jax.models.technogan.critic_features import CriticFeatures
from technogen_jax.models.technogan.layout import STEPS_PER_BAR

TAPS = 5  # of the convolutions: two sixteenths to either side
PLAN_TAPS = 3  # of those over bars: one bar to either side
_BEATS, _BEAT = 4, STEPS_PER_BAR // 4  # of a bar; sixteenths of one
_GROUP = 4  # of the minibatch deviation, as in its paper
_OPEN = 2.0  # logit of how much of what moves a new generator lets through
_SHUT = -4.0  # logit of how much of the low end's numbers it puts beside what it speaks: two per cent
_NOISELESS = 1.0  # logit of how little noise of its own a number of a new generator has: 0.27 of its deviation
_STRUCK, _RINGS = 4, 3  # sounds of a bar that are struck, and the sixteenths that one is heard
_SHARP = 4.0  # of the logits of what is struck: a new generator's are then more yes or no
_PARTIALS_OF = dict(partials="mid", side_partials="side")  # whose levels have a peak where a line is
_FURTHEST = 12.0  # deviations from the mean: nearly all real bars are closer; experiments/log/2026-11-29-side-weight.md


class Block(nnx.Module):
    """Two convolutions around the grid beside an identity; what goes in is scaled by the style, where there is one.

    With `beats` the first also hears the mean of the bar's beats: what repeats, which is most of techno, is made or seen at once.
    """

    def __init__(self, channels, taps, style, beats=False, *, rngs):
        self.beats = Dense(channels, channels, rngs=rngs) if beats else None
        self.style = Dense(channels, channels, rngs=rngs) if style else None
        self.conv_0 = CircularConv(channels, channels, taps, rngs=rngs)
        self.conv_1 = CircularConv(channels, channels, taps, zero=True, rngs=rngs)

    def __call__(self, x, style=None):
        """`[B, S, channels]` to the same; the style is `[B, N, channels]`, of N bars."""
        y = leaky_relu(x if self.style is None else x * (1 + _between(self.style(style), x.shape[1])))
        hidden = self.conv_0(y) if self.beats is None else self.conv_0(y) + _of_beats(self.beats, y)
        return x + self.conv_1(leaky_relu(hidden))


class Generator(nnx.Module):
    """Latents of bars `[B, N, style + anchor + labels]` to numbers of sixteenths and of bars. The arguments are `build`'s.

    An anchor ends with its noise, `[16, noise_size]` row by row. N is a multiple of `bars`; the parameters do not depend on it.
    """

    def __init__(self, bars, outputs, palette, latent_size, anchor_size, noise_size, labels, channels, blocks, *, rngs):
        self.bars, self.blocks, self.labels, self.noise_size = bars, blocks, labels, noise_size
        self.map_0 = Dense(latent_size + anchor_size + labels, channels, rngs=rngs)
        self.map_1 = Dense(channels, channels, rngs=rngs)
        self.start = nnx.Param(jax.random.normal(rngs.params(), (STEPS_PER_BAR, channels)))
        self.noise = Dense(noise_size, channels, rngs=rngs)
        if bars > 1:
            self.plan_start = nnx.Param(jax.random.normal(rngs.params(), (bars, channels)))
            self.plan = Block(channels, PLAN_TAPS, True, rngs=rngs)
        for i in range(blocks):
            setattr(self, f"block_{i}", Block(channels, TAPS, True, beats=True, rngs=rngs))
        self.output_style = Dense(channels, channels, rngs=rngs)
        self.output = Dense(channels, outputs, rngs=rngs)
        self.palette = Dense(channels, palette, rngs=rngs)

    def __call__(self, latents):
        """(for each sixteenth `[B, N * 16, outputs]`, for each bar `[B, N, palette]`, the noise `[B, N * 16, noise_size]`)."""
        count, end = latents.shape[1], latents.shape[2] - self.labels
        gaussian, noise, labels = jnp.split(latents, [end - STEPS_PER_BAR * self.noise_size, end], -1)
        style = jnp.concatenate([gaussian, _as_loud(labels, gaussian.shape[2])], -1)
        style = leaky_relu(self.map_1(leaky_relu(self.map_0(style))))  # [B, N, W]
        noise = noise.reshape(len(latents), STEPS_PER_BAR * count, self.noise_size)
        x = jnp.tile(self.start[...], (count, 1)) + self.noise(noise)
        if self.bars > 1:
            plan = jnp.broadcast_to(jnp.tile(self.plan_start[...], (count // self.bars, 1)), style.shape)
            x = x + jnp.repeat(self.plan(plan, style), STEPS_PER_BAR, axis=1)  # [B, N, W] -> [B, N * 16, W]
        for i in range(self.blocks):
            x = getattr(self, f"block_{i}")(x, style)
        x = self.output(leaky_relu(x * (1 + _between(self.output_style(style), x.shape[1]))))
        return x, self.palette(style), noise


class Discriminator(nnx.Module):
    """Sequences `[B, bars * 16, K + labels]` to logits `[B, 1]`. The arguments are `build`'s."""

    def __init__(self, bars, components, powers, labels, channels, blocks, *, rngs):
        self.bars, self.blocks, self.labels = bars, blocks, labels
        self.input = Dense(2 * components + powers + labels, channels, rngs=rngs)
        for i in range(blocks):
            setattr(self, f"block_{i}", Block(channels, TAPS, False, beats=True, rngs=rngs))
        self.bar = Dense(STEPS_PER_BAR * (channels + 1), channels, rngs=rngs)
        if bars > 1:
            self.plan = Block(channels, PLAN_TAPS, False, rngs=rngs)
        self.output = Dense(bars * channels, 1, rngs=rngs)
        if labels:
            self.label = Dense(labels, channels, rngs=rngs)

    def __call__(self, x, powers):
        """One logit a sequence, which has so loud parts `[B, bars * 16, powers]`."""
        sequence, labels = jnp.split(x, [x.shape[2] - self.labels], -1)
        labels = jax.lax.stop_gradient(labels)  # gradient penalties are of the sequence
        change = sequence - jnp.roll(sequence, _BEAT, 1)  # since a beat before: what repeats is seen at once
        x = self.input(jnp.concatenate([sequence, change, powers, _as_loud(labels, 2 * sequence.shape[2])], -1))
        for i in range(self.blocks):
            x = getattr(self, f"block_{i}")(x)
        x = minibatch_deviation(leaky_relu(x), _GROUP)
        x = self.bar(x.reshape(len(x), self.bars, -1))  # [B, bars * 16, W + 1] -> [B, bars, W]
        if self.bars > 1:
            x = self.plan(x)
        x = leaky_relu(x)
        logits = self.output(x.reshape(len(x), -1))
        if self.labels:  # how well the features go with the label: by projection, so that it cannot be ignored
            logits = logits + jnp.sum(self.label(labels[:, 0]) * jnp.mean(x, 1), -1, keepdims=True)
        return logits


def _between(values: jax.Array, steps: int) -> jax.Array:
    """Values at the beginnings of N bars, `[B, N, W]`, interpolated linearly around the loop to `[B, steps, W]`."""
    share = np.arange(steps // values.shape[1], dtype=np.float32)[:, None] * (values.shape[1] / steps)
    values, after = values[:, :, None], jnp.roll(values, -1, 1)[:, :, None]
    return (values + share * (after - values)).reshape(len(values), steps, -1)


def _of_beats(layer, x: jax.Array) -> jax.Array:
    """A layer of the mean of each bar's four beats, `[B, bars * 16, W]`, the same for each of them."""
    return jnp.tile(layer(_by_beat(x).mean(2)), (1, 1, _BEATS, 1)).reshape(*x.shape[:2], -1)


def _by_beat(x: jax.Array) -> jax.Array:
    """`[B, N * 16, W]` to `[B, N, beats, sixteenths of a beat, W]`."""
    return x.reshape(len(x), -1, _BEATS, _BEAT, x.shape[2])


def _stilled(x: jax.Array, shares: jax.Array) -> jax.Array:
    """`[B, N * 16, K]` with shares `[B, N, 3, K]` of what moves at all, of what in it differs from beat to beat, and in that from half to half.

    The bar's mean stays. Each is a share of the one before: if a rest that neither beats nor halves repeat could be there without
    them, half of a bar would be the other turned upside down.
    """
    moving, of_beats, of_halves = (shares[:, :, i, None] for i in range(3))
    bars = x.reshape(len(x), -1, STEPS_PER_BAR, x.shape[2])
    parts = jnp.matmul(_LAYERS, bars, precision="highest").reshape(*bars.shape[:2], -1, *bars.shape[2:])
    mean, beat, half, rest = (parts[:, :, i] for i in range(len(_LAYERS) // STEPS_PER_BAR))
    return (mean + moving * (beat + of_beats * (half + of_halves * rest))).reshape(x.shape)


def _struck(logits: jax.Array, sounds: jax.Array) -> jax.Array:
    """What a bar's sounds add to the sixteenths in which they are struck and to those after, `[B, N * 16, K]`.

    Args:
        logits: `[B, N * 16, _STRUCK]`, whether each is struck; 0.5 is as likely as not.
        sounds: `[B, N, _STRUCK * _RINGS * K]`, what each adds to the sixteenth in which it is struck, and to the next ones.
    """
    hits = jax.nn.sigmoid(_SHARP * (logits - 0.5)).reshape(len(logits), -1, STEPS_PER_BAR, _STRUCK)
    heard = jnp.matmul(hits, sounds.reshape(*sounds.shape[:2], _STRUCK, -1))
    heard = heard.reshape(*logits.shape[:2], _RINGS, -1)
    return sum(jnp.roll(heard[:, :, ago], ago, 1) for ago in range(_RINGS))


def _voiced(choices: jax.Array, voices: jax.Array) -> jax.Array:
    """What a bar's notes add to the sixteenths in which they sound, `[B, N * 16, K]`: each its own harmonics and how it rises and dies.

    Args:
        choices: `[B, N * 16, 2 * (1 + NOTES)]`, the logits of `pitch.blend_notes`.
        voices: `[B, N, NOTES * K]`, what each note adds.
    """
    bars = voices.shape[:2]
    weights = pitch.choose_notes(choices.reshape(*bars, STEPS_PER_BAR, 2, -1)).mean(-2)
    return jnp.matmul(weights, voices.reshape(*bars, NOTES_PER_BAR, -1)).reshape(*choices.shape[:2], -1)


def _standing(heights: jax.Array, lines: jax.Array, peaks: jax.Array, levels: np.ndarray) -> jax.Array:
    """What a bar's lines add to the sixteenths in which they stand, `[B, N * 16, K]`: more level where they are, or they would be noise.

    Args:
        heights: `[B, N * 16, BAR_LINES]`, the logits of `partials.blend_partials`, as the next.
        lines: `[B, N, BAR_LINES, LINE_STEPS]`.
        peaks: `[B, N, BAR_LINES]`, by how much: their softplus is in nepers.
        levels: `[LINES, K]`, what a neper at each step of 20 cents is in the numbers.
    """
    bars = peaks.shape[:2]
    loud = jax.nn.sigmoid(heights).reshape(*bars, STEPS_PER_BAR, -1) * jax.nn.softplus(peaks)[:, :, None]
    heard = jnp.matmul(loud, jnp.matmul(partials.choose_positions(lines), levels[::2]))
    return heard.reshape(*heights.shape[:2], -1)


def _layers() -> np.ndarray:
    """`[4 * 16, 16]`, what a bar is the sum of: its mean, its mean beat, its mean half and the rest, each without those before."""
    step = np.arange(STEPS_PER_BAR)
    means = [step % period == step[:, None] % period for period in (1, _BEAT, STEPS_PER_BAR // 2, STEPS_PER_BAR)]
    means = np.float32([mean / mean.sum(1, keepdims=True) for mean in means])
    return np.concatenate([means[0], *(means[1:] - means[:-1])])


_LAYERS = _layers()


def _tame(x: jax.Array) -> jax.Array:
    """`[B, N * 16, K]` in deviations to `[B, N * 16, 1]`: what each bar is multiplied by so that none of its numbers is too far out.

    Scales of the style multiply from block to block, and one bar of some hundred then has numbers a hundred times too large.
    """
    # Not the maximum itself: its gradient is divided by how many entries equal it, and a compiler that computes them anew and rounds them
    # differently finds none: 0 / 0.
    sizes = jnp.abs(x).reshape(len(x), -1, STEPS_PER_BAR * x.shape[2])
    there = jnp.arange(sizes.shape[-1]) == jnp.argmax(sizes, -1, keepdims=True)
    furthest = jnp.sum(jnp.where(there, sizes, 0), -1)
    return jnp.repeat(_FURTHEST / jnp.maximum(furthest, _FURTHEST), STEPS_PER_BAR, 1)[..., None]


def _as_loud(labels: jax.Array, size: int) -> jax.Array:
    """Label weights scaled so that to a new network they count as much as `size` numbers of unit deviation beside them."""
    return labels * size**0.5


def build(config: TechnoGANConfig, audio: AudioConfig, statistics: dict[str, np.ndarray] | None = None) -> GAN:
    """TechnoGAN; `x` is `[B, bars * 16, K + labels]`, the K numbers of the deviation over the training set that `codec.Codec.scale` says.

    z is `[style | an anchor for each bar | label weights]`: Gaussian numbers, and weights that sum to 1. `generate` also
    takes latents of N bars, `[B, N, style + anchor + labels]`; `decode` takes as many as it is given.
    N is a multiple of `bars`; bars before and after those wanted make up for the ring being closed elsewhere.

    Args:
        config: its fields.
        audio: of the clips, which are whole bars.
        statistics: what `measure` says of the training set; without it `encode` and `decode` raise.

    Raises:
        FieldError: a clip that is not of so many bars, or more components than there are features.
        ValueError: statistics of other sizes.
    """
    clip_samples, sample_rate_hz, bars = audio.clip_samples, audio.sample_rate_hz, config.bars
    latent_size, anchor_size, classes = config.latent_size, config.anchor_size, config.classes
    channels, blocks, critic_channels, critic_blocks = (
        config.channels,
        config.blocks,
        config.critic_channels,
        config.critic_blocks,
    )
    low_components = config.low_components
    step_s = clip_samples / sample_rate_hz / (STEPS_PER_BAR * bars)
    check_condition(
        0.05 <= step_s <= 0.25,  # 60 to 300 beats a minute
        "audio.clip_samples",
        f"{bars} bars (config.model.bars) of 0.8 to 4 seconds; what data_prep.prepare --grid bars says",
        clip_samples,
    )

    @cache
    def codec_of(clips):
        """The codec of that many clips in a row."""
        return Codec(config, audio, statistics, clips)

    one, labels = codec_of(1), len(classes)
    grid, layout = one.grid, one.layout
    parts = {name: part.size for name, part in layout.items()}
    # What the generator puts out for a sixteenth: numbers, those of the low end with how open it is and what `lowend` speaks, and which
    # of the bar's notes and lines there are and what is struck. For a bar: how much of what moves is there at all (`_stilled`); its kick,
    # notes and lines, and what there is to strike.
    said = dict(
        low=1 + low_end.SAID + low_components,
        pitch=2 * (1 + NOTES_PER_BAR),
        partials=PARTIALS_PER_BAR,
        side_partials=PARTIALS_PER_BAR,
    )
    outputs = {part: said.get(part, count) for part, count in parts.items()} | dict(struck=_STRUCK)
    toned = [part for part in ("pitch", "partials", "side_partials") if part in parts]  # chosen from what the bar has
    moving = {part: size for part, size in parts.items() if part not in toned}  # that can repeat, or stand still
    noise_size = sum(moving.values())
    whole_anchor = anchor_size + STEPS_PER_BAR * noise_size
    sounds = {part: 0 if part == "low" else size for part, size in moving.items()}  # what is struck has no low end
    palette = dict(shares=3 * noise_size, noise=noise_size, low=low_end.CHOSEN)
    palette["struck"] = _STRUCK * _RINGS * sum(sounds.values())
    palette |= {f"{part}_peaks": PARTIALS_PER_BAR for part in _PARTIALS_OF if part in parts}
    if "pitch" in parts:
        palette["voices"] = NOTES_PER_BAR * sum(sounds.values())
    for part in toned:
        palette[part] = PARTIALS_PER_BAR * partials.GENERATED_POSITIONS
        if part == "pitch":
            palette[part] = NOTES_PER_BAR * pitch.QUARTER_TONES
    shared = dict(bars=bars, labels=labels)
    sizes = dict(
        channels=channels, blocks=blocks, latent_size=latent_size, anchor_size=anchor_size, noise_size=noise_size
    )
    sizes |= dict(outputs=sum(outputs.values()), palette=sum(palette.values()))
    generator = functional(partial(Generator, **sizes, **shared))
    of_moving = np.concatenate([np.arange(layout.size)[getattr(layout, part).slice] for part in moving])
    scales = one.scale[of_moving]
    is_low = np.isin(of_moving, np.arange(layout.size)[layout.low.slice]).astype(np.float32)
    scale_of = low_end.by_part(scales, moving)
    rest = is_low * one.silence[of_moving] / scales  # the low end at rest is silent, not the mean of the set
    remix, critic_features = Remixer(one, config.remix), CriticFeatures(one)
    heard = dict(
        components=layout.size - layout.low.size,
        powers=critic_features.size,
        channels=critic_channels,
        blocks=critic_blocks,
    )
    discriminator = functional(partial(Discriminator, **heard, **shared))

    def sample_latents(key, n):
        gaussian_key, label_key = jax.random.split(key)
        gaussian = jax.random.normal(gaussian_key, (n, latent_size + bars * whole_anchor))
        if not labels:
            return gaussian
        return jnp.concatenate([gaussian, jax.nn.one_hot(jax.random.randint(label_key, (n,), 0, labels), labels)], -1)

    def discriminate(d_params, x, key):
        """Logits of sequences; of the low end the discriminator sees spectra alone."""
        x = remix(x, key)
        low = layout.low.slice
        without_low = jnp.concatenate([x[..., : low.start], x[..., low.stop :]], -1)
        return (discriminator.apply(d_params, without_low, critic_features(x[..., : layout.size])),)

    def of_bars(z):
        """`[B, Z]` to `[B, bars, style + anchor + labels]`."""
        style, anchors, weights = jnp.split(z, [latent_size, z.shape[1] - labels], -1)
        style, weights = (jnp.broadcast_to(part[:, None], (len(z), bars, part.shape[1])) for part in (style, weights))
        return jnp.concatenate([style, anchors.reshape(len(z), bars, whole_anchor), weights], -1)

    def generate(g_params, z):
        latents = of_bars(z) if z.ndim == 2 else z
        x = spoken(*generator.apply(g_params, latents))
        return jnp.concatenate([x, _between(latents[..., latents.shape[2] - labels :], x.shape[1])], -1)

    def spoken(said, chosen, noise):
        """What the generator puts out for sixteenths and for bars, and the noise it had, as a sequence."""
        bars = chosen.shape[:2]
        values = low_end.by_part(said, outputs)
        opened, low, values["low"] = jnp.split(values["low"], [1, 1 + low_end.SAID], -1)
        chosen = low_end.by_part(chosen, palette)
        shares = jax.nn.sigmoid(_OPEN + chosen["shares"]).reshape(*bars, 3, -1)
        noise = jnp.repeat(jax.nn.sigmoid(chosen["noise"] - _NOISELESS), STEPS_PER_BAR, 1) * noise
        heard = _struck(values["struck"], chosen["struck"])
        if "pitch" in parts:
            heard += _voiced(values["pitch"], chosen["voices"])
        heard = low_end.by_part(heard, sounds)
        for part, of in _PARTIALS_OF.items():
            if part in parts:
                lines = chosen[part].reshape(*bars, PARTIALS_PER_BAR, -1)
                heard[of] += _standing(
                    values[part], lines, chosen[f"{part}_peaks"], one.encode_partial_peaks(of) / scale_of[of]
                )
        heard["low"] = jnp.zeros_like(values["low"])
        moved = _stilled(jnp.concatenate([values[part] for part in moving], -1), shares) + noise
        moved = moved + jnp.concatenate([heard[part] for part in moving], -1)
        shut = is_low * jax.nn.sigmoid(-_SHUT - opened)
        moved = moved + shut * (rest - moved)
        tame = _tame(moved)
        sequence = low_end.by_part(
            (tame * moved + (1 - tame) * shut * rest) * scales, moving
        )  # what rests does so still
        low = low_end.speak(low, chosen["low"], grid.low_samples, grid.low_samples / step_s)
        sequence["low"] += one.encode_low_waveform(low)
        for part in toned:
            if part == "pitch":
                choices = values[part].reshape(*bars, STEPS_PER_BAR, 2, -1)
                numbers = pitch.blend_notes(choices, chosen[part].reshape(*bars, NOTES_PER_BAR, -1))
            else:
                heights = values[part].reshape(*bars, STEPS_PER_BAR, -1)
                numbers = partials.blend_partials(heights, chosen[part].reshape(*bars, PARTIALS_PER_BAR, -1))
            sequence[part] = one.encode_part(part, numbers.reshape(*said.shape[:2], -1))
        return jnp.concatenate([sequence[part] for part in parts], -1)

    def encode(audio, weights=None):
        if labels and weights is None:
            raise ValueError(f"technogan: expected label weights [B, {labels}], of config.model.classes, got none")
        if weights is not None and not labels:
            raise ValueError("technogan: got label weights, and this model has no labels (config.model.classes)")
        x = one.encode(audio)
        if not labels:
            return x
        return jnp.concatenate([x, jnp.broadcast_to(weights[:, None], (*x.shape[:2], labels))], -1)

    return GAN(
        sample_latents=sample_latents,
        init_g=generator.init,
        init_d=discriminator.init,
        generate=generate,
        discriminate=discriminate,
        encode=encode,
        decode=lambda x, noise=None: codec_of(x.shape[1] // (STEPS_PER_BAR * bars)).decode(
            x[..., : layout.size], noise
        ),
        calibrate=lambda g_params, key: g_params,
        classes=classes,
        encode_once=True,
        endless=Endless(bars, reach_bars(bars, blocks), latent_size, whole_anchor),
    )


def reach_bars(bars: int, blocks: int) -> int:
    """Bars on either side on which what the generator makes depends; the arguments are `build`'s."""
    # A block's convolutions hear four steps of the bar beside. The mean of beats spreads what was heard at a place of the beat to
    # that place of all beats, so that the next bar but one is two steps further away, not sixteen: two bars in three blocks.
    # A style reaches back one bar, and so do a kick and a struck sound that are still heard.
    return -(-2 * blocks // 3) + max(2 * (PLAN_TAPS // 2) if bars > 1 else 0, 1) + 1
