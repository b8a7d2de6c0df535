import numpy as np
import pytest
from helpers import loops

from technogen_jax.audio import corruptions
from technogen_jax.common import array_files
from technogen_jax.evaluation import classifier


@pytest.fixture(scope="module")
def bars():
    """Images of noise with a bright row that tells the class: 10 tracks of 8 clips."""
    random = np.random.default_rng(0)
    tracks, targets = np.repeat(np.arange(10), 8), np.tile([0, 1, 2, 0], 20)
    images = random.standard_normal((80, 20, 16)).astype(np.float32)
    images[np.arange(80), :, 3 + 4 * targets] += 3
    return images, targets, tracks


@pytest.fixture(scope="module")
def net(bars):
    return classifier.train(*bars, classes=("low", "mid", "high"), steps=60, seed=1)


def test_separable_classes_are_learned(bars, net):
    images, targets, _ = bars
    assert net.validation_accuracy == 1
    assert np.mean(classifier.logits(net, images).argmax(axis=1) == targets) == 1


def test_validation_accuracy_is_of_held_out_tracks():
    """Each track has a pattern of its own and a class that nothing tells: a split by clips would find accuracies near 1."""
    random = np.random.default_rng(0)
    tracks = np.repeat(np.arange(60), 4)
    patterns = random.standard_normal((60, 1, 16))
    images = patterns[tracks] + 0.1 * random.standard_normal((240, 16, 16))
    targets = random.permutation(np.repeat([0, 1], 30))[tracks]
    net = classifier.train(images, targets, tracks, classes=("a", "b"), steps=120, seed=0)
    assert np.mean(classifier.logits(net, images).argmax(axis=1) == targets) > 0.8
    assert 0.1 < net.validation_accuracy < 0.9


def test_logits_are_the_last_layer_of_the_features_in_any_batch(bars, net):
    images = bars[0]
    features, logits = classifier.features(net, images), classifier.logits(net, images)
    assert features.shape == (80, classifier.FEATURES) and features.min() == 0
    expected = features @ net.params["out/kernel"] + net.params["out/bias"]
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    np.testing.assert_allclose(classifier.features(net, images[70:]), features[70:], atol=1e-6)
    assert classifier.logits(net, np.tile(images, (1, 3, 1))).shape == (80, 3)


def test_training_is_reproducible_and_a_file_restores_the_net(bars, net, tmp_path):
    first, again, other = (
        classifier.train(*bars, classes=("low", "mid", "high"), steps=5, seed=seed).sha256 for seed in (1, 1, 2)
    )
    assert again == first != other
    net.save(tmp_path / "net.npz")
    loaded = classifier.load_net(tmp_path / "net.npz")
    assert loaded.sha256 == net.sha256 and loaded.classes == net.classes and loaded.sample_rate_hz is None
    np.testing.assert_array_equal(classifier.logits(loaded, bars[0]), classifier.logits(net, bars[0]))
    array_files.write(tmp_path / "other.npz", {"a": np.zeros(2)})
    with pytest.raises(ValueError, match="no net"):
        classifier.load_net(tmp_path / "other.npz")


def test_invalid_training_data_raises(bars):
    images, targets, tracks = bars
    names = ("low", "mid", "high")
    with pytest.raises(ValueError, match=r"one target and one track each, got \(80, 20, 16\), \(79,\)"):
        classifier.train(images, targets[1:], tracks, classes=names)
    with pytest.raises(ValueError, match="'wide' has 0"):
        classifier.train(images, targets, tracks, classes=(*names, "wide"))
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        classifier.train(images, 0 * targets, tracks, classes=("all",))
    with pytest.raises(ValueError, match="NaN or Inf"):
        classifier.train(np.where(images > 5, np.nan, images), targets, tracks, classes=names)
    with pytest.raises(ValueError, match="no clip of .* is left to train on"):
        classifier.train(images[:6], [0, 0, 1, 1, 2, 2], list("xyyzzx"), classes=("a", "b", "c"))


def test_the_artefact_net_classifies_faults_and_is_an_embedding(monkeypatch):
    monkeypatch.setattr(classifier, "_EXAMPLES", 480)
    rate_hz = loops.RATE_HZ
    clips, tracks = loops.corpus(0, 16)
    clips = np.stack([clip[:rate_hz] for clip in clips])  # [n, T, 1]
    net = classifier.train_artefact(clips, tracks, rate_hz, steps=80, seed=0)
    assert net.classes == ("clean", *corruptions.CORRUPTIONS) and net.sample_rate_hz == rate_hz
    assert net.validation_accuracy > 3 / len(net.classes)  # three times what guessing finds

    embedding = classifier.artefact_embedding(net)
    assert embedding.name == f"artefact-{net.sha256[:8]}" == embedding.describe(rate_hz)["name"]
    assert embedding.blocks(2) == {"A": slice(0, 64)}
    others = np.stack([clip[:rate_hz] for clip in loops.corpus(1000, 16)[0]])
    dull = np.stack([corruptions.low_pass(clip, rate_hz, 4000) for clip in others])
    real, fresh, faulty = (embedding.embed(audio, rate_hz, loop=True).mean(axis=0) for audio in (clips, others, dull))
    assert np.linalg.norm(faulty - real) > 3 * np.linalg.norm(fresh - real)
    with pytest.raises(ValueError, match="expected audio at 16000 Hz, got 8000 Hz"):
        embedding.embed(others, 8000, loop=True)


def test_silent_clips_raise():
    audio = np.zeros((3, 8000, 1))
    audio[1:, 5] = 1
    with pytest.raises(ValueError, match="1 of 3 are silent"):
        classifier.train_artefact(audio, np.arange(3), 16000)
