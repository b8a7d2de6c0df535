"""Fixtures of the tests of the app: a model to play, a training to watch, and their page."""

import json
import math
import pathlib

import numpy as np
import pytest
from helpers.endless_model import model

from technogen_jax.app import sounds
from technogen_jax.audio import audio_files, spectrogram_images
from technogen_jax.runs.metrics_log import METRICS_FILE
from technogen_jax.runs.workdir import CONFIG_FILE, SAMPLES_FOLDER
from technogen_jax.sampling import generator, latent_directions

RATE_HZ = 8000
EFFECTS = (("less kick", "more kick"), ("darker", "brighter"), ("narrower", "wider"), ("sparser", "busier"))


@pytest.fixture(scope="session")
def playable():
    """A TechnoGAN of one bar, two classes, 8 kHz, random networks."""
    trained = model(1)
    directions = latent_directions.find(trained.gan, trained.params, len(EFFECTS))
    return sounds.PlayableModel("tiny", trained, directions, EFFECTS, generator.tempo_bpm(trained))


@pytest.fixture(scope="session")
def pcm_of_7(playable):
    """What `technogen_jax.sample` writes for seed 7, int16 `[T, C]`."""
    latents = generator.draw_latents(playable.trained.gan, 7, [0])
    return audio_files.to_int16(next(generator.render(playable.trained, latents)))


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a training that has previews and metrics and no checkpoint yet; a killed run left half a line."""
    folder = tmp_path_factory.mktemp("run")
    (folder / CONFIG_FILE).write_text("{}")
    lines = [{"step": step, "d/adversarial": 1 / step, "g/adversarial": math.nan} for step in range(1, 1001)]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 2000, "d/adv'
    (folder / METRICS_FILE).write_text(text)
    (folder / SAMPLES_FOLDER).mkdir()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 1)).astype(np.float32)
    for step in (500, 1000):
        path = folder / SAMPLES_FOLDER / f"step{step:08d}.png"
        spectrogram_images.write_contact_sheet(path, [noise], RATE_HZ)
        audio_files.write(path.with_suffix(".wav"), noise, RATE_HZ)
    return folder


@pytest.fixture(scope="session")
def served(playable, run, tmp_path_factory):
    """The page, served on loopback, with a model that is open and a run that has no checkpoint yet."""
    pytest.importorskip("uvicorn", reason="pip install -r requirements-app.txt")
    from technogen_jax.app import library, page

    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
    opened = library.Library([pathlib.Path("tiny"), run])
    opened.entries = [
        library.Entry("tiny", pathlib.Path("tiny"), library.READY, model=playable, measured=True),
        library.Entry("run", run, library.FAILED, why="run: no checkpoint yet"),
    ]
    served = page.serve(opened, port=0)
    yield served
    served.close()
    patch.undo()
