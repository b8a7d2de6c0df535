import functools
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from conftest import ROOT, load_config
from helpers.endless_model import model

from technogen_jax import export, models
from technogen_jax.exporting import standalone
from technogen_jax.sampling import generator

pytest.importorskip("flatbuffers", reason="pip install -r requirements-export.txt")
pytest.importorskip("onnx", reason="pip install -r requirements-export.txt")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")

SHIPPED = ROOT / "technogen_jax" / "pretrained" / "technogan.npz"
WORDS = dict(licence="CC0-1.0", data="noise", fingerprint="f00")


def small(name, **options):
    """A WaveGAN or SpecGAN of 8 kHz, untrained."""
    config = load_config(name)
    config.audio.update(sample_rate_hz=8000, clip_samples=2048)
    config.model.update(channels=2, latent_size=8, **options)
    statistics = {"mean": np.full((129, 1), -4.0), "std": np.ones((129, 1))} if name == "specgan" else None
    gan = models.build(config, statistics)
    params = generator.calibrated(gan, gan.init_g(jax.random.key(0)))
    return generator.Trained(gan, params, config, "", 3, "abc")


@functools.cache
def technogan():
    trained = model(1)
    trained.config.model.name = "technogan"
    return trained


def play(path, latents, noise=None):
    """What onnxruntime makes of a file: `[B, T, C]`, clip by clip."""
    session = onnxruntime.InferenceSession(str(path))
    rows = [
        {"latents": z[None]} | ({} if noise is None else {"noise": noise[i : i + 1]}) for i, z in enumerate(latents)
    ]
    return np.concatenate([session.run(["audio"], row)[0] for row in rows])


def ours(trained, latents):
    """(audio, its noise), clip by clip; both from one program, since noise depends on the last bits."""

    def both(z):
        x = trained.gan.generate(trained.params, z)
        noise = trained.gan.decode_noise(x)
        return trained.gan.decode(x, noise), noise

    audio, noise = zip(*map(jax.jit(both), latents[:, None]), strict=True)
    return np.concatenate(audio), np.concatenate(noise)


@pytest.mark.parametrize("name", ["wavegan", "specgan"])  # TechnoGAN's sound is compared below, in each format
def test_a_model_sounds_the_same_in_both_formats(name, tmp_path):
    trained = small(name)
    latents = generator.draw_latents(trained.gan, 7, range(2))
    wanted = np.stack(list(generator.render(trained, latents)))
    card = standalone.write(tmp_path / "a.stablehlo", trained, WORDS)
    assert json.loads((tmp_path / "a.stablehlo.json").read_text()) == card
    assert WORDS.items() <= card.items() and sum(part["size"] for part in card["latents"]) == latents.shape[1]
    sound = jax.export.deserialize(bytearray((tmp_path / "a.stablehlo").read_bytes()))
    assert sound.platforms == ("cpu", "cuda", "tpu")
    np.testing.assert_allclose(sound.call(latents), wanted, atol=1e-6)

    card = standalone.write(tmp_path / "a.onnx", trained, WORDS)
    assert card["noise"] is None
    np.testing.assert_allclose(play(tmp_path / "a.onnx", latents), wanted, atol=1e-4)


def test_the_card_describes_the_latents():
    card = standalone.describe(technogan())
    assert [(part["name"], part["draw"]) for part in card["latents"]] == [
        ("style", "normal"),
        ("anchor of a bar", "normal"),
        ("labels", "weights that sum to 1"),
    ]
    assert card["bpm"] == pytest.approx(240 * 8000 / 14336) and card["labels"]
    assert [part["draw"] for part in standalone.describe(small("wavegan"))["latents"]] == ["uniform from -1 to 1"]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The model that comes with the package, as ONNX: (file, card)."""
    path = tmp_path_factory.mktemp("shipped") / "techno.onnx"
    assert export.main(["--workdir", str(SHIPPED), "--format", "onnx", "--output", str(path)]) == 0
    return path, json.loads(standalone.card_path(path).read_text())


def test_the_shipped_model_is_small_and_names_its_licence(shipped):
    path, card = shipped
    assert path.stat().st_size < 12e6
    assert card["licence"] == "Apache-2.0" and card["weights"] == generator.load(SHIPPED).weights


def test_the_shipped_model_sounds_the_same_in_onnx(shipped):
    trained = generator.load(SHIPPED)
    latents = generator.draw_latents(trained.gan, 3, range(2))
    wanted, noise = ours(trained, latents)
    np.testing.assert_allclose(play(shipped[0], latents, noise), wanted, atol=1e-4)


def test_the_example_in_the_help_works_without_technogen(tmp_path):
    trained = technogan()
    standalone.write(tmp_path / "techno.stablehlo", trained, WORDS)
    lines = export.RELOAD.replace('"acid"', repr(trained.gan.classes[0]))
    assert len(lines.splitlines()) <= 10
    code = (
        f"import sys; sys.modules['technogen_jax'] = None\n{lines}\nnp.savez('made.npz', latents=latents, audio=audio)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=os.environ | {"PYTHONPATH": ""})
    made = np.load(tmp_path / "made.npz")
    np.testing.assert_allclose(made["audio"][0], next(generator.render(trained, made["latents"])), atol=1e-6)
    assert (tmp_path / "techno.wav").exists()


@pytest.fixture(scope="module")
def page(request, shipped, tmp_path_factory):
    """A browser at the page, with the shipped model and the files of onnxruntime-web that ORT_WEB names."""
    if "ORT_WEB" not in os.environ:
        pytest.skip("needs ORT_WEB=DIR, the dist folder of `npm pack onnxruntime-web`")
    browser = request.getfixturevalue("browser")
    folder = tmp_path_factory.mktemp("page")
    for path in (ROOT / "experiments/browser/index.html", shipped[0], standalone.card_path(shipped[0])):
        shutil.copy(path, folder)
    (folder / "ort").symlink_to(pathlib.Path(os.environ["ORT_WEB"]).resolve())
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.server_address[1]}/index.html")
    yield page
    server.shutdown()


def test_the_browser_plays_what_onnxruntime_computes(page, shipped):
    page.wait_for_function("document.getElementById('status').textContent !== 'Loading.'", timeout=60000)
    assert page.text_content("#status") == "Ready."
    page.fill("#seed", "5")
    page.select_option("#label", "industrial")
    page.wait_for_function("technogen.source && technogen.seed === 5", timeout=60000)
    made = {k: np.float32(page.evaluate(f"Array.from(technogen.{k})")) for k in ("latents", "noise", "audio")}
    card = shipped[1]
    assert made["latents"][-2:].tolist() == [0, 1] and abs(made["latents"][:-2].mean()) < 0.4
    assert abs(made["noise"].std() - 1) < 0.01
    wanted = play(shipped[0], made["latents"][None], made["noise"].reshape(card["noise"]["shape"]))
    np.testing.assert_allclose(made["audio"], wanted.ravel(), atol=1e-4)
    loop = page.evaluate("[technogen.source.loop, technogen.source.buffer.length, technogen.source.buffer.sampleRate]")
    assert loop == [True, card["clip_samples"], card["sample_rate_hz"]]


def test_an_npz_file_is_not_exported_as_npz_again(capsys):
    with pytest.raises(SystemExit):
        export.main(["--workdir", "a.npz"])
    assert "is such a file already" in capsys.readouterr().err
