import importlib.metadata
import importlib.util
import os
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import pytest

from data_prep import prepare
from technogen_jax.audio import audio_files

# Many tests compile the same step, some in processes of their own.
_CACHE = tempfile.TemporaryDirectory(prefix="technogen-test-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _CACHE.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Nearly all programs of the tests run once, so they are compiled in a hurry. In an environment with
# JAX_DISABLE_MOST_OPTIMIZATIONS=0 and an empty XLA_FLAGS all are compiled as users' are.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# What must hold of users' programs to the bit, two programs' results being compared, asks for their compilation.
AS_USERS = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
if importlib.metadata.version("jaxlib").startswith("0.10."):  # XLA ends a process at a flag that it does not know
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
    AS_USERS["xla_cpu_use_fusion_emitters"] = True

pytest_plugins = ["helpers.playing"]
ROOT = pathlib.Path(__file__).parent.parent
LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::", "", None)
reached = []  # beyond this machine, since the last test


class NetworkError(AssertionError):
    """Something went out of the machine."""


def _watch(event, args):
    host = None
    if event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
        host = args[1][0]
    elif event == "socket.getaddrinfo":
        host = args[0].decode() if isinstance(args[0], bytes) else args[0]
    if host not in LOOPBACK:
        reached.append(host)
        raise NetworkError(f"{event} {host}")


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def stays_here():
    """Fails a test that tries to reach another machine, also where the one who tried made nothing of the error."""
    yield
    assert not reached, f"it tried to reach {reached}"


RATE_HZ = 8000


A_BAR = dict(sample_rate_hz=44100, channels=2, clip_samples=77824)  # at 136 BPM


def of_a_bar(config):
    """The config; what it leaves to the set is a bar of 136 BPM."""
    if config.audio.clip_samples is None:
        config.audio.update(A_BAR)
        config.model.bars, config.model.classes = 1, ()
    return config


def load_config(name, *args):
    """The config of a file in configs/, unlocked, `of_a_bar`."""
    spec = importlib.util.spec_from_file_location(f"configs_{name}", ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return of_a_bar(module.get_config(*args).unlock())


@pytest.fixture(scope="session")
def prepared_set(tmp_path_factory):
    """A set of 24 tracks, 8 kHz, mono, records of 2250 samples: 48 of 12 tracks to train on, 8 valid, 40 of 10 to test."""
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    for track in range(24):
        time_s = np.arange(9000) / RATE_HZ
        pulse = np.sin(2 * np.pi * (60 + 4 * track) * time_s) * np.exp(-10 * (time_s % 0.4))
        noise = 0.1 * rng.standard_normal(len(time_s))
        label = ("acid", "industrial")[track % 2]
        (folder / "tracks" / label).mkdir(parents=True, exist_ok=True)
        audio_files.write(folder / "tracks" / label / f"{track}.wav", 0.5 * (pulse + noise), RATE_HZ)
    options = dict(
        input=str(folder / "tracks"), output=str(folder / "set"), sample_rate=RATE_HZ, hop_size=2250 / RATE_HZ
    )
    prepare.prepare(prepare.Options(**options, split=(0.5, 0.1, 0.4), workers=1), say=lambda line: None)
    return folder / "set"


@pytest.fixture
def tiny_config(prepared_set):
    """A WaveGAN that compiles in seconds, on `prepared_set`; unlocked."""
    config = load_config("wavegan", "relativistic")
    config.audio.sample_rate_hz = RATE_HZ
    config.audio.clip_samples = 2048
    config.data.dir = str(prepared_set)
    config.model.channels = 2
    config.model.latent_size = 8
    config.train.update(steps=6, batch_size=4, log_every=2, save_every=2, sample_every=4, sample_clips=2)
    config.eval.update(every=2, clips=10)
    return config


@pytest.fixture(scope="session")
def trained_workdir(prepared_set, tmp_path_factory):
    """A run of `tiny_config`, six steps."""
    from technogen_jax.training import loop

    workdir = tmp_path_factory.mktemp("trained") / "run"
    loop.train(tiny_config.__wrapped__(prepared_set), workdir, say=lambda line: None)
    return workdir


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright, for the tests in a browser")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("no chromium: install it, or name it with CHROMIUM=")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield browser
        browser.close()
