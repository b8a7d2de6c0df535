import contextlib

import jax
import soundfile
from conftest import RATE_HZ

from technogen_jax import models
from technogen_jax.runs.metrics_log import MetricsLog
from technogen_jax.runs.workdir import SAMPLES_FOLDER
from technogen_jax.training import previews


def test_preview_renders_the_same_latents_at_each_step(tiny_config, tmp_path):
    gan = models.build(tiny_config)
    params = gan.init_g(jax.random.key(0))
    with contextlib.closing(MetricsLog(tmp_path, 0)) as log:
        for step in (1, 2):
            previews.write_preview(tiny_config, gan, params, step, tmp_path, log)
    first, second = (tmp_path / SAMPLES_FOLDER / f"step0000000{step}.wav" for step in (1, 2))
    assert first.read_bytes() == second.read_bytes()
    assert len(soundfile.read(first)[0]) == 2 * (2048 + round(0.2 * RATE_HZ))


def test_unfinished_previews_are_deleted_and_other_files_stay(tmp_path):
    previews.delete_unfinished(tmp_path)  # of a new run there is no folder yet
    (tmp_path / SAMPLES_FOLDER).mkdir()
    for name in (".step00000002.wav.77.tmp", ".step00000002.png.tmp", "step00000001.wav", ".mine.tmp"):
        (tmp_path / SAMPLES_FOLDER / name).touch()
    previews.delete_unfinished(tmp_path)
    assert {path.name for path in (tmp_path / SAMPLES_FOLDER).iterdir()} == {"step00000001.wav", ".mine.tmp"}
