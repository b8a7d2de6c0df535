"""WaveGAN's discriminator step, here and in PyTorch.

The step is WGAN-GP's: one generator forward; the discriminator on real clips, fakes and mixes of them;
the gradient of the gradient penalty; the update by Adam; phase shuffle on both sides. It is five sixths
of the paper's training step. Ours is `make_train_step` with the discriminator's new state as its only
output, so that XLA removes the generator's update. PyTorch is measured in the forms that a careful user
would try: Conv1d, and Conv2d in the channels-last memory format; on a GPU also under bfloat16 autocast.
`ratio` is the fastest of theirs over ours in the same precision. If other programs run, threads that
wait for each other lose much time, on PyTorch's side more than on ours: use `taskset -c 0` and
`ratio_processor`. (torch.compile cannot help: it has no second derivatives.)

Before that, both sides get the same weights, real clips and latents. Their logits, losses and gradients
of all the discriminator's weights must agree. PyTorch's padding is symmetric, TensorFlow's is not, so
PyTorch's kernels lie one sample later: for the comparison the last tap is zero. Without PyTorch only our
side is measured.
"""

from __future__ import annotations

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import timing
from technogen_jax.common.run_config import AudioConfig
from technogen_jax.models import wavegan
from technogen_jax.training import losses
from technogen_jax.training.optimizers import make_optimizer
from technogen_jax.training.state import Pair, init_state
from technogen_jax.training.step import StepOptions, make_train_step

CLIP_SAMPLES, LATENT, TAPS, STRIDE, LAYERS = 16384, 100, 25, 4, 5


def add_options(add):
    """Adds options: which steps, how many rounds."""
    add(
        "--cases",
        default="32x16,64x64",
        metavar="DxB,...",
        help="width nearest the audio x batch (default: %(default)s)",
    )
    add("--rounds", type=int, default=5, help="timed steps of each side (default: %(default)s)")


def run(options) -> dict:
    """Compares the results, then measures the times."""
    cases = [case(*size, options.rounds) for size in sizes(options.cases)]
    return timing.about("torch") | {"clip_samples": CLIP_SAMPLES, "cases": cases}


def sizes(text: str) -> list[tuple[int, int]]:
    """Returns (channels, batch) pairs of "32x16,64x64"."""
    return [tuple(map(int, size.split("x"))) for size in text.split(",")]


def case(channels: int, batch: int, rounds: int) -> dict:
    """Measures one size."""
    pcm = clips(batch)
    on_gpu = jax.default_backend() == "gpu"
    ours = {"float32": Ours(channels, pcm)} | ({"bfloat16": Ours(channels, pcm, "bfloat16")} if on_gpu else {})
    result = {"channels": channels, "batch": batch, "rounds": rounds}
    sides = {f"jax_{dtype}": side.step for dtype, side in ours.items()}
    try:
        import torch
    except ImportError as error:
        result["torch"] = f"skipped: {error}"
    else:
        torch.set_num_threads(timing.cores())
        device = "cuda" if on_gpu and torch.cuda.is_available() else "cpu"
        theirs = {form: Theirs(channels, pcm, form, device) for form in ("conv1d", "channels_last")}
        result["apart"] = agreement(ours["float32"], theirs, pcm)
        for form, side in theirs.items():
            sides[f"torch_{form}_float32"] = side.step
            if device == "cuda":
                sides[f"torch_{form}_bfloat16"] = Theirs(channels, pcm, form, device, autocast=True).step
    wall, processor = timing.wall_and_processor(sides, rounds)
    for key, seconds in (("ms", wall), ("processor_ms", processor)):
        result[key] = {name: timing.spread(values, 1e3) for name, values in seconds.items()}
    result["compile_s"] = {dtype: round(side.compile_s, 1) for dtype, side in ours.items()}
    for dtype in ours:
        for key, seconds in ((f"ratio_{dtype}", wall), (f"ratio_processor_{dtype}", processor)):
            median = {name: statistics.median(values) for name, values in seconds.items() if dtype in name}
            own = median.pop(f"jax_{dtype}")
            if median:
                result[key] = round(min(median.values()) / own, 2)
    return result


def agreement(ours, theirs, pcm) -> dict:
    """Returns the differences between both sides; exits if they are more than rounding."""
    outputs = max(compare(ours, side, "float32")[0] for side in theirs.values())
    # Gradients in double precision: in single precision, rounding moves some activations across a leaky ReLU's kink.
    # On a narrow network, because PyTorch's convolutions in double precision are slow.
    narrow = Ours(4, pcm[:, :2])
    with jax.enable_x64(True):
        gradients = max(compare(narrow, Theirs(4, pcm[:, :2], form, "cpu"), "float64")[1] for form in theirs)
    if outputs > 1e-4 or gradients > 1e-6:
        raise SystemExit(
            f"the two sides differ, logits or loss by {outputs}, gradients by {gradients}: times would not be comparable"
        )
    return {"logits_and_loss": outputs, "gradients_in_double": gradients}


def clips(batch: int) -> np.ndarray:
    """Returns int16 noise `[1, B, T, 1]`."""
    return np.random.default_rng(0).integers(-20_000, 20_000, (1, batch, CLIP_SAMPLES, 1), dtype=np.int16)


def needed_flops(channels: int, batch: int) -> float:
    """Returns the floating-point operations of this step with convolutions as plain sums.

    Two for each multiply-add. With g and d for a forward pass: g for the fakes; 2 d forward on real clips and fakes, twice that
    backwards, less the gradient of the audio; d forward and d backward for the penalty's slope, 2 d for the gradient of that
    (the derivative of a leaky ReLU is constant, so its second derivative adds nothing).
    """
    widths = [channels * 2**i for i in range(LAYERS)]
    lengths = [CLIP_SAMPLES // STRIDE ** (i + 1) for i in range(LAYERS)]
    layers = [length * TAPS * a * b for length, a, b in zip(lengths, [1, *widths], widths, strict=False)]
    flat = lengths[-1] * widths[-1]
    # A transposed layer does as many multiplications as the strided layer that it transposes.
    g, d = LATENT * flat + sum(layers), sum(layers) + flat
    return 2.0 * batch * (g + 10 * d - 2 * layers[0])


class Ours:
    """Our step: its state and the compiled function."""

    def __init__(self, channels, pcm, dtype="float32"):
        def build(**more):
            config = wavegan.WaveGANConfig(channels=channels, dtype=dtype, **more)
            return wavegan.build(config, AudioConfig(clip_samples=CLIP_SAMPLES))

        optimizers = Pair(*[make_optimizer("adam", 1e-4, 0.5, 0.9)] * 2)
        gan = build()
        train_step = make_train_step(
            gan, optimizers, StepOptions(adversarial=losses.ADVERSARIAL["wgan"], gp_weight=10.0)
        )
        self.gan, self.still = gan, build(phase_shuffle=0)
        self.pcm, self.key = jnp.asarray(pcm), jax.random.key(0)
        self.state = jax.jit(lambda key: init_state(gan, optimizers, key))(self.key)
        self.d_state = jax.tree.map(jnp.copy, (self.state.params.d, self.state.opt.d))

        def d_step(d_state, state, pcm, key):
            state = state._replace(params=Pair(state.params.g, d_state[0]), opt=Pair(state.opt.g, d_state[1]))
            state, metrics = train_step(state, pcm, key)
            return (state.params.d, state.opt.d), metrics["d/adversarial"] + metrics["d/gp"]

        start = time.perf_counter()
        lowered = jax.jit(d_step, donate_argnums=0).lower(self.d_state, self.state, self.pcm, self.key)
        self.compiled = lowered.compile()
        self.compile_s = time.perf_counter() - start

    def step(self):
        """Runs one update and waits for it."""
        self.d_state, loss = self.compiled(self.d_state, self.state, self.pcm, self.key)
        self.state = self.state._replace(step=self.state.step + 1)
        jax.block_until_ready((self.d_state, loss))


class Theirs:
    """WaveGAN in PyTorch. `form` is "conv1d" or "channels_last"; the latter has two-dimensional layers of height 1."""

    def __init__(self, channels, pcm, form, device, autocast=False):
        import torch
        from torch import nn

        self.device, self.autocast = device, autocast
        torch.backends.cudnn.benchmark = True
        flat = form == "conv1d"
        self.torch, self.flat = torch, flat
        pad, more = (11, 1) if flat else ((0, 11), (0, 1))
        taps, stride = (TAPS, STRIDE) if flat else ((1, TAPS), (1, STRIDE))
        down, up = (nn.Conv1d, nn.ConvTranspose1d) if flat else (nn.Conv2d, nn.ConvTranspose2d)
        widths = [channels * 2**i for i in range(LAYERS)]
        inner = widths[-1]

        class Generator(nn.Module):
            def __init__(self):
                super().__init__()
                self.z_project = nn.Linear(LATENT, 16 * inner)
                sizes = [*reversed(widths), 1]
                self.layers = nn.ModuleList(
                    up(a, b, taps, stride, pad, more) for a, b in zip(sizes, sizes[1:], strict=False)
                )

            def forward(self, z):
                x = self.z_project(z).view(len(z), inner, *([] if flat else [1]), 16)
                for layer in self.layers:
                    x = layer(torch.relu(x))
                return torch.tanh(x)

        class Discriminator(nn.Module):
            def __init__(self):
                super().__init__()
                sizes = [1, *widths]
                self.layers = nn.ModuleList(
                    down(a, b, taps, stride, pad) for a, b in zip(sizes, sizes[1:], strict=False)
                )
                self.output = nn.Linear(16 * inner, 1)
                self.radius = 2

            def forward(self, x):
                for i, layer in enumerate(self.layers):
                    x = nn.functional.leaky_relu(layer(x), 0.2)
                    if i < LAYERS - 1 and self.radius:
                        x = self.shuffle(x)
                return self.output(x.flatten(1))

            def shuffle(self, x):
                sides = (self.radius, self.radius) + (() if flat else (0, 0))
                start = int(torch.randint(0, 2 * self.radius + 1, ()))  # on the host, so nothing waits for it
                return nn.functional.pad(x, sides, mode="reflect")[..., start : start + x.shape[-1]]

        memory = torch.contiguous_format if flat else torch.channels_last
        self.g, self.d = (network.to(device, memory_format=memory) for network in (Generator(), Discriminator()))
        real = torch.from_numpy(pcm[0].astype("float32") / 32768).transpose(1, 2).to(device)  # [B, 1, T]
        self.real = real.contiguous() if flat else real[:, :, None].to(memory_format=memory)
        self.optimizer = torch.optim.Adam(self.d.parameters(), lr=1e-4, betas=(0.5, 0.9), fused=True)

    def to(self, dtype):
        """Converts everything to another precision and clears the gradients."""
        for network in (self.g, self.d):
            network.zero_grad(set_to_none=True)
            network.to(dtype)
        self.real = self.real.to(dtype)

    def loss(self, z, mix):
        """Returns the discriminator's loss and the logits of real clips and fakes."""
        torch = self.torch
        with torch.no_grad():
            fake = self.g(z)
        real_logits, fake_logits = self.d(self.real), self.d(fake)
        mixed = torch.lerp(self.real, fake, mix).requires_grad_()
        (slope,) = torch.autograd.grad(self.d(mixed).sum(), mixed, create_graph=True)
        penalty = ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
        return fake_logits.mean() - real_logits.mean() + 10 * penalty, real_logits, fake_logits

    def step(self):
        """Runs one update and waits for it."""
        torch, n = self.torch, len(self.real)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
            z = 2 * torch.rand(n, LATENT, device=self.device) - 1
            loss, _, _ = self.loss(z, torch.rand(n, *[1] * (self.real.ndim - 1), device=self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if self.device == "cuda":
            torch.cuda.synchronize()


def by_channel(w, axis):
    """Reorders a dense layer that flattens [16, C] here and [C, 16] in PyTorch."""
    shape = list(w.shape)
    shape[axis : axis + 1] = [16, -1]
    return np.asarray(w).reshape(shape).swapaxes(axis, axis + 1).reshape(w.shape)


def compare(ours, theirs, dtype):
    """Returns (largest relative difference of logits and loss, that of gradients), each in the Euclidean norm of an array."""
    torch = theirs.torch
    rng = np.random.default_rng(1)
    n = ours.pcm.shape[1]
    z = rng.uniform(-1, 1, (n, LATENT)).astype(dtype)
    key = jax.random.key(3)
    params = jax.tree.map(lambda w: jnp.asarray(w, dtype), ours.state.params)
    g, d = jax.tree.map(lambda w: w.at[-1].set(0) if w.ndim == 3 else w, params)

    gan = ours.still
    real = ours.pcm[0].astype(dtype) / 32768

    def d_loss(d, g, z, real):
        fake = gan.generate(g, z)

        def score(x):
            return gan.discriminate(d, x, key)

        logits = score(real), score(fake)
        loss = losses.ADVERSARIAL["wgan"].d(*logits) + 10 * losses.wgan_gp_penalty(score, real, fake, key)
        return loss, [side[0] for side in logits]

    (loss, logits), gradients = jax.jit(jax.value_and_grad(d_loss, has_aux=True))(d, g, z, real)
    mix = torch.from_numpy(np.array(jax.random.uniform(key, (n, 1, 1))))  # as the penalty draws it

    def kernel(w, transposed):
        """Converts a kernel [K, in, out] to PyTorch's [out, in, K], or [in, out, K] if transposed, one tap later."""
        w = np.roll(np.asarray(w), 1, axis=0).transpose(*((1, 2, 0) if transposed else (2, 1, 0)))
        return torch.from_numpy(np.ascontiguousarray(w if theirs.flat else w[:, :, None]))

    pairs = []  # (PyTorch's parameter, our value, our gradient or None), in PyTorch's layout
    pairs.append((theirs.g.z_project.weight, torch.from_numpy(by_channel(g["z_project"]["kernel"], 1).T.copy()), None))
    pairs.append((theirs.g.z_project.bias, torch.from_numpy(by_channel(g["z_project"]["bias"], 0)), None))
    for i, layer in enumerate(theirs.g.layers):
        pairs.append((layer.weight, kernel(g[f"upconv_{i}"]["kernel"], True), None))
        pairs.append((layer.bias, torch.from_numpy(np.array(g[f"upconv_{i}"]["bias"])), None))
    for i, layer in enumerate(theirs.d.layers):
        values, slopes = d[f"downconv_{i}"], gradients[f"downconv_{i}"]
        pairs.append((layer.weight, kernel(values["kernel"], False), kernel(slopes["kernel"], False)))
        pairs.append((layer.bias, torch.from_numpy(np.array(values["bias"])), np.array(slopes["bias"])))
    values, slopes = d["output"], gradients["output"]
    transposed = [by_channel(side["kernel"], 0).T.copy() for side in (values, slopes)]
    pairs.append((theirs.d.output.weight, torch.from_numpy(transposed[0]), transposed[1]))
    pairs.append((theirs.d.output.bias, torch.from_numpy(np.array(values["bias"])), np.array(slopes["bias"])))

    counted = sum(w.size for w in jax.tree.leaves((g, d)))
    assert counted == sum(p.numel() for net in (theirs.g, theirs.d) for p in net.parameters())
    theirs.to(getattr(torch, dtype))
    with torch.no_grad():
        for parameter, value, _ in pairs:
            assert parameter.shape == value.shape
            parameter.copy_(value)
    theirs.d.radius = 0
    mix = mix if theirs.flat else mix[..., None]
    their_loss, *their_logits = theirs.loss(torch.from_numpy(z).to(theirs.device), mix.to(theirs.device))
    their_loss.backward()
    their_slopes = [None if p.grad is None else p.grad.cpu().numpy().copy() for p, _, _ in pairs]
    theirs.d.radius = 2
    theirs.to(torch.float32)

    def relative(a, b):
        a, b = np.asarray(a), np.asarray(b)
        return float(np.linalg.norm(a - b) / np.linalg.norm(b))

    outputs = [relative(a.detach().cpu(), b) for a, b in zip((their_loss, *their_logits), (loss, *logits), strict=True)]
    slopes = []
    for (parameter, _, gradient), their_slope in zip(pairs, their_slopes, strict=True):
        if (
            gradient is not None and parameter is not theirs.d.output.bias
        ):  # its gradients cancel: zero except for rounding
            a, b = their_slope, np.asarray(gradient)
            if b.ndim > 2:  # each side has one tap that the other lacks; both are first now
                a, b = a[..., 1:], b[..., 1:]
            slopes.append(relative(a, b))
    return max(outputs), max(slopes)
