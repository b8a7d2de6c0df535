"""The networks of musicnn against float64 numpy, and, with the wheel and TensorFlow, against the original graphs.

pip download --no-deps musicnn
TECHNOGEN_MUSICNN_WHEEL=musicnn-0.1.0-py3-none-any.whl pytest tests/evaluation/features/test_musicnn.py
"""

import os
import pathlib
import zipfile

import jax
import numpy as np
import pytest
from helpers import taggers, techno_clips, tf_checkpoints

from technogen_jax.evaluation.features import musicnn

WHEEL = os.environ.get("TECHNOGEN_MUSICNN_WHEEL")
MODELS = {"musicnn": musicnn.MUSICNN, "vgg": musicnn.VGG}
needs_wheel = pytest.mark.skipif(not WHEEL, reason="TECHNOGEN_MUSICNN_WHEEL is not set")


@pytest.fixture(scope="module")
def weights():
    return {"MTT_musicnn": taggers.random_musicnn(0), "MTT_vgg": taggers.random_vgg(1)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, weights):
    path = tmp_path_factory.mktemp("wheel") / "musicnn.whl"
    tf_checkpoints.write_wheel(path, weights)
    return path


@pytest.fixture(scope="module")
def clips():
    """Stereo noise bursts at 44.1 kHz, 3.43 s: two bars at 140 BPM."""
    random = np.random.default_rng(3)
    audio = 0.3 * random.standard_normal((2, 151_200, 2)) * (np.arange(151_200) % 18_900 < 4_000)[:, None]
    return audio.astype(np.float32)


def librosa_frames(clip, rate_hz):
    """Log-mel spectra as musicnn's extractor computes them, with the logarithm in single precision."""
    import librosa

    mono = librosa.resample(librosa.to_mono(clip.T), orig_sr=rate_hz, target_sr=16_000)
    mel = librosa.feature.melspectrogram(y=mono, sr=16_000, hop_length=256, n_fft=512, n_mels=96).T
    return np.log10(10_000 * mel.astype(np.float16).astype(np.float32) + 1)


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 44_100])
def test_frames_are_those_of_librosa(clips, rate_hz):
    frames = musicnn.log_mel_frames(clips, rate_hz)
    expected = np.stack([librosa_frames(clip, rate_hz) for clip in clips])
    assert frames.shape == expected.shape and frames.dtype == np.float32
    # Rounding to half precision makes a last bit of single precision 0.1 % of a value.
    np.testing.assert_allclose(frames, expected, atol=5e-4)
    assert np.mean(np.abs(frames - expected) < 1e-5) > 0.99


def test_windows_cover_a_clip():
    frames = np.arange(2 * 500, dtype=np.float32).reshape(2, 500)[..., None].repeat(96, axis=-1)
    windows = musicnn.cut_windows(frames)
    assert windows.shape == (2, 3, 187, 96)
    np.testing.assert_array_equal(windows[0, :, 0, 0], [0, 156, 313])
    assert set(np.unique(windows)) == set(range(1000))
    assert musicnn.cut_windows(frames[:, :187]).shape == (2, 1, 187, 96)
    short = musicnn.cut_windows(frames[:, :50])
    np.testing.assert_array_equal(short[0, 0, :, 5], np.tile(np.arange(50), 4)[:187])


@pytest.mark.parametrize("kind", MODELS)
def test_a_network_agrees_with_numpy_in_float64(kind, weights, clips):
    model = MODELS[kind]
    frames = musicnn.log_mel_frames(clips, 44_100)[:, :187]
    found = jax.jit(model.layer)(weights[model.name], frames)
    assert found.shape == (2, model.size)
    reference = getattr(taggers, kind)
    expected = np.stack([reference(weights[model.name], clip) for clip in frames])
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("kind", MODELS)
def test_an_embedding_is_the_mean_over_windows(kind, wheel, weights, clips):
    model = MODELS[kind]
    embedding = musicnn.load_embedding(wheel, model)
    found = embedding.embed(clips, 44_100, loop=True)
    assert found.shape == (2, model.size) and found.dtype == np.float64
    windows = musicnn.cut_windows(musicnn.log_mel_frames(clips, 44_100))
    expected = np.mean([model.layer(weights[model.name], windows[:, which]) for which in range(2)], axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert embedding.name == model.name == embedding.describe(44_100)["name"]
    assert embedding.blocks(2) == {"tags": slice(0, model.size)} and not embedding.whiten

    many = np.concatenate([clips] * 5)  # more windows than a batch
    np.testing.assert_allclose(embedding.embed(many, 44_100, loop=True)[8:], found, rtol=1e-5, atol=1e-6)
    tags = embedding.tagger.probabilities(found)
    kernel, bias = (weights[model.name][f"{model.output}/{part}"] for part in ("kernel", "bias"))
    np.testing.assert_allclose(tags, 1 / (1 + np.exp(-(found @ kernel + bias))), rtol=1e-6)
    assert tags.shape == (2, len(embedding.tagger.names)) == (2, 50) and embedding.tagger.names[3] == "techno"


def test_another_file_is_one_line(tmp_path, wheel):
    path = tmp_path / "other.whl"
    path.write_bytes(b"no zip")
    with pytest.raises(ValueError, match="other.whl: expected the wheel that pip download --no-deps musicnn writes"):
        musicnn.load_embedding(path, musicnn.MUSICNN)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(ValueError, match="MTT_vgg cannot be read from it"):
        musicnn.load_embedding(path, musicnn.VGG)
    with pytest.raises(FileNotFoundError):
        musicnn.load_embedding(tmp_path / "none.whl", musicnn.VGG)


@needs_wheel
@pytest.mark.parametrize("kind", MODELS)
def test_the_original_graph_agrees(kind, tmp_path):
    """TensorFlow runs the graph that the authors saved, on the windows of techno clips."""
    tf = pytest.importorskip("tensorflow")
    model = MODELS[kind]
    with zipfile.ZipFile(WHEEL) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "musicnn" / model.name
    last = "model/batch_normalization_10/batchnorm/add_1" if kind == "musicnn" else "model/dropout_4/cond/Merge"
    saved = tf.compat.v1.MetaGraphDef.FromString((folder / ".meta").read_bytes())
    # Without the nodes of the training, which today's TensorFlow refuses.
    wanted = ["model/Sigmoid", last, "save/restore_all"]
    definition = tf.compat.v1.graph_util.extract_sub_graph(saved.graph_def, wanted)
    audio = real_clips()
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.import_graph_def(definition, name="")
        session.run("save/restore_all", {"save/Const:0": f"{folder}/"})
        frames = np.stack([librosa_frames(clip, 44_100) for clip in audio])
        windows = musicnn.cut_windows(frames)
        feed = {"model/Placeholder:0": windows.reshape(-1, 187, 96), "model/Placeholder_2:0": False}
        tags, layer = session.run(["model/Sigmoid:0", f"{last}:0"], feed)
    embedding = musicnn.load_embedding(WHEEL, model)
    own = np.concatenate([model.layer(musicnn.read_wheel(WHEEL, model.name), clip) for clip in windows])
    np.testing.assert_allclose(own, layer, atol=1e-4)
    np.testing.assert_allclose(embedding.tagger.probabilities(own), tags, atol=1e-4)
    found = embedding.embed(audio, 44_100, loop=True)  # with our own spectra
    np.testing.assert_allclose(found, layer.reshape(len(audio), -1, model.size).mean(axis=1), atol=1e-4)


def real_clips():
    """Music of the wheel's user, if TECHNOGEN_MUSIC names a folder of it; otherwise of the built-in corpus."""
    import soundfile

    if folder := os.environ.get("TECHNOGEN_MUSIC"):
        paths = sorted(pathlib.Path(folder).rglob("*.ogg"))[::20]
        audio = [
            soundfile.read(path, 151_200, 44_100 * 20, dtype="float32", always_2d=True)[0][:, :2] for path in paths
        ]
        return np.stack([clip for clip in audio if clip.shape == (151_200, 2)])
    return np.stack(
        [np.repeat(techno_clips.four_to_the_floor(140, 8, 44_100, seed), 2, axis=1) for seed in range(3)]
    ).astype(np.float32)
