import hashlib
import json
import os
import pathlib
import sys

import librosa
import numpy as np
import pytest
import soxr
from conftest import ROOT
from scipy import signal

from technogen_jax.audio import audio_files
from technogen_jax.evaluation.features import pretrained

RATE_HZ = 16_000


def noise(*shape, seed=0):
    return (0.3 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def two_sounds(samples, rate_hz):
    """Noise, and a falling tone that fades: `[2, T, 1]`."""
    time_s = np.arange(samples) / rate_hz
    tone = np.sin(2 * np.pi * (2_000 * time_s - 700 * time_s**2)) * np.exp(-3 * time_s)
    return np.stack([noise(samples, 1), tone[:, None].astype(np.float32)])


def network(forward=None, **changes):
    """Mean and mean square of windows of 100 ms."""
    fields = dict(
        name="test",
        sample_rate_hz=8_000,
        channels=1,
        size=2,
        window_samples=800,
        hop_samples=800,
        spread=False,
        forward=forward or (lambda x: np.stack([x.mean((1, 2)), (x**2).mean((1, 2))], 1)),
        sha256={"weights": "0"},
        details="",
    )
    return pretrained.Network(**fields | changes)


class Counting:
    """A network's function that keeps the number of windows of each call."""

    def __init__(self):
        self.calls = []

    def __call__(self, windows):
        self.calls.append(len(windows))
        return np.stack([windows.mean((1, 2)), (windows**2).mean((1, 2))], 1)


# Windows, resampling, batches


@pytest.mark.parametrize(("samples", "count"), [(16_000, 1), (30_959, 1), (30_960, 2), (128_000, 8)])
def test_vggish_windows_are_those_of_its_frames(samples, count):
    clips = noise(1, samples, 1)
    windows = pretrained.cut_windows(clips, 15_600, 15_360, spread=False)
    frames = pretrained.vggish_log_mel(clips[..., 0])[0]
    assert windows.shape == (1, count, 15_600, 1) and count == len(frames) // 96
    got = pretrained.vggish_log_mel(windows[0, ..., 0]).reshape(-1, 64)
    np.testing.assert_allclose(got, frames[: 96 * count], atol=1e-6)


@pytest.mark.parametrize(("samples", "starts"), [(10, [0]), (11, [0, 1]), (19, [0, 4, 9]), (26, [0, 8, 16])])
def test_spread_windows_reach_from_the_first_sample_to_the_last(samples, starts):
    ramp = np.arange(samples)[None, :, None]
    windows = pretrained.cut_windows(ramp, 10, 8, spread=True)
    assert windows[0, :, 0, 0].tolist() == starts and windows[0, -1, -1, 0] == samples - 1


@pytest.mark.parametrize("hop_samples", [0, 8])
def test_a_short_clip_is_repeated(hop_samples):
    windows = pretrained.cut_windows(np.arange(4)[None, :, None], 10, hop_samples, spread=True)
    assert windows[..., 0].tolist() == [[[0, 1, 2, 3, 0, 1, 2, 3, 0, 1]]]


def test_without_a_hop_a_clip_stays_whole():
    assert pretrained.cut_windows(np.zeros((2, 33, 1)), 10, 0, spread=False).shape == (2, 1, 33, 1)


@pytest.mark.parametrize(("from_hz", "to_hz"), [(44_100, 16_000), (16_000, 48_000), (16_000, 16_000)])
def test_resampling_is_soxr_of_each_clip(from_hz, to_hz):
    clips = noise(2, from_hz, 2)
    mono = pretrained.resample(clips, from_hz, to_hz, 1)
    assert mono.shape == (2, to_hz, 1) and mono.dtype == np.float32
    want = np.stack([soxr.resample(clip.mean(1), from_hz, to_hz, "HQ") for clip in clips])
    np.testing.assert_allclose(mono[..., 0], want, atol=2e-6)
    stereo = pretrained.resample(clips[..., :1], from_hz, to_hz, 2)
    np.testing.assert_array_equal(stereo[..., 0], stereo[..., 1])


def test_a_clip_is_the_average_of_its_windows():
    clips = noise(3, 8_000, 1)
    embedding = pretrained.make_embedding(network())
    got = embedding.embed(clips, 8_000, loop=True)
    np.testing.assert_allclose(got, np.stack([clips.mean((1, 2)), (clips**2).mean((1, 2))], 1), rtol=1e-5, atol=1e-8)
    assert got.dtype == np.float64 and embedding.blocks(1) == embedding.blocks(2) == {"E": slice(0, 2)}


def test_batches_bound_the_memory_and_do_not_change_the_vectors():
    counting = Counting()
    embedding = pretrained.make_embedding(network(counting))
    clips = noise(37, 4_000, 1)
    got = embedding.embed(clips, 8_000, loop=False)
    assert max(counting.calls) == 16 and sum(counting.calls) == 37 * 5
    alone = np.concatenate([embedding.embed(clip[None], 8_000, loop=False) for clip in clips])
    np.testing.assert_allclose(got, alone, rtol=1e-6)


@pytest.mark.parametrize(
    ("clips", "reason"),
    [
        (noise(4_000, 1), "C 1 or 2"),
        (noise(0, 4_000, 1), "B at least 1"),
        (noise(1, 4_000, 3), "C 1 or 2"),
        (np.zeros((1, 4_000, 1), np.int16), "floating-point"),
        (noise(1, 1_999, 1), "T at least 2000"),
        (np.full((1, 4_000, 1), np.nan), "NaN"),
    ],
)
def test_audio_that_cannot_be_embedded_is_an_error(clips, reason):
    with pytest.raises(ValueError, match=reason):
        pretrained.make_embedding(network()).embed(clips, 8_000, loop=False)


def test_a_network_that_gives_nan_is_an_error():
    broken = network(lambda windows: np.full((len(windows), 2), np.nan))
    with pytest.raises(ValueError, match="weights may be damaged"):
        pretrained.make_embedding(broken).embed(noise(1, 4_000, 1), 8_000, loop=False)


def test_vggish_log_mel_is_the_published_one():
    clip = noise(1, 4_000)
    frames = np.stack([clip[0, start : start + 400] for start in range(0, 3_601, 160)]) * signal.get_window("hann", 400)
    magnitudes = np.abs(frames @ np.exp(-2j * np.pi * np.outer(np.arange(400), np.arange(257)) / 512))
    bins, low, high = (2595 * np.log10(1 + np.asarray(hz) / 700) for hz in (np.arange(257) * 31.25, 125, 7500))
    edges = low + np.arange(66) * (high - low) / 65
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    want = np.log(magnitudes @ np.maximum(0, np.minimum(rising, falling)) + 0.01)
    np.testing.assert_allclose(pretrained.vggish_log_mel(clip)[0], want, atol=1e-5)


# The cache


def test_only_new_clips_are_computed(tmp_path):
    counting = Counting()
    plain = pretrained.make_embedding(network(counting, hop_samples=0))
    clips = noise(3, 4_000, 1)
    want = plain.embed(clips, 8_000, loop=False)
    counting.calls.clear()
    pretrained.cached(plain, tmp_path).embed(clips[:2], 8_000, loop=False)
    got = pretrained.cached(plain, tmp_path).embed(clips[[2, 0, 1]], 8_000, loop=False)
    np.testing.assert_array_equal(got, want[[2, 0, 1]])
    assert counting.calls == [2, 1]


def test_one_changed_byte_of_a_file_is_another_clip(tmp_path):
    counting = Counting()
    embedding = pretrained.cached(pretrained.make_embedding(network(counting)), tmp_path / "cache")
    path = tmp_path / "clip.wav"
    audio_files.write(path, noise(4_000, 1), 8_000)

    def embed():
        return embedding.embed(audio_files.read(path)[0][None], 8_000, loop=False)

    before, stat = embed(), path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 64
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not np.array_equal(before, embed()) and len(counting.calls) == 2


@pytest.mark.parametrize("changes", [{"sha256": {"weights": "1"}}, {"details": "another layer"}, {"spread": True}])
def test_another_network_has_other_entries(tmp_path, changes):
    clips, counting = noise(1, 4_000, 1), Counting()
    for fields in ({}, changes):
        pretrained.cached(pretrained.make_embedding(network(counting, **fields)), tmp_path).embed(
            clips, 8_000, loop=False
        )
    assert len(counting.calls) == 2


def test_version_rate_and_loop_are_part_of_the_key(tmp_path, monkeypatch):
    clips, counting = noise(1, 4_000, 1), Counting()
    embedding = pretrained.cached(pretrained.make_embedding(network(counting)), tmp_path)
    embedding.embed(clips, 8_000, loop=False)
    embedding.embed(clips, 16_000, loop=False)
    embedding.embed(clips, 8_000, loop=True)
    monkeypatch.setattr(pretrained, "_VERSION", 2)
    embedding.embed(clips, 8_000, loop=False)
    assert len(counting.calls) == 4


def test_a_damaged_entry_is_computed_anew(tmp_path):
    counting, clips = Counting(), noise(1, 4_000, 1)
    embedding = pretrained.cached(pretrained.make_embedding(network(counting)), tmp_path)
    want = embedding.embed(clips, 8_000, loop=False)
    (entry,) = tmp_path.rglob("*.npy")
    for damaged in (b"", entry.read_bytes()[:-3]):
        entry.write_bytes(damaged)
        np.testing.assert_array_equal(embedding.embed(clips, 8_000, loop=False), want)
    assert len(counting.calls) == 3 and not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("clips", [noise(0, 4_000, 1), np.ones((1, 4_000, 1), np.int16)])
def test_what_cannot_be_embedded_is_an_error_with_a_cache_too(tmp_path, clips):
    with pytest.raises(ValueError, match="B at least 1"):
        pretrained.cached(pretrained.make_embedding(network()), tmp_path).embed(clips, 8_000, loop=False)


# Loading


def test_an_unknown_name_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match="mert.*vggish, panns-cnn14, clap, encodec"):
        pretrained.load("mert", "anywhere")


@pytest.mark.parametrize(("name", "module"), [("vggish", "torch"), ("panns-cnn14", "torch"), ("clap", "torch")])
def test_a_missing_dependency_says_how_to_get_it(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"{module}.*pip install -r requirements-embeddings.txt"):
        pretrained.load(name, "anywhere")
    assert (ROOT / "requirements-embeddings.txt").is_file()


@pytest.fixture
def torch():
    module = pytest.importorskip("torch")
    module.manual_seed(0)
    return module


@pytest.fixture
def transformers(torch):
    return pytest.importorskip("transformers")


def random_statistics(torch, module):
    """Batch norms as after training: no identities."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.05, 0.2)
            torch.nn.init.uniform_(part.weight, 0.5, 2)
            torch.nn.init.normal_(part.bias, 0, 0.2)


@pytest.fixture
def vggish(torch, tmp_path):
    """(file, network without its last ReLU) with torchvggish's names, narrow."""
    nn, layers, channels = torch.nn, [], 1
    for width in (2, "pool", 3, "pool", 4, 4, "pool", 5, 5, "pool"):
        if width == "pool":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    dense = [nn.Linear(5 * 24, 7), nn.ReLU(), nn.Linear(7, 7), nn.ReLU(), nn.Linear(7, 6)]
    net = nn.ModuleDict({"features": nn.Sequential(*layers), "embeddings": nn.Sequential(*dense)})
    torch.save(net.state_dict(), tmp_path / "vggish.pth")
    return tmp_path / "vggish.pth", net


def test_vggish_is_its_network_on_each_window(vggish, torch, tmp_path):
    path, net = vggish
    clips = noise(2, 32_000, 1)
    embedding = pretrained.load("vggish", path)
    got = embedding.embed(clips, RATE_HZ, loop=False)
    with torch.no_grad():
        mels = pretrained.vggish_log_mel(clips[..., 0])[:, :192].reshape(4, 1, 96, 64)
        maps = net["features"](torch.from_numpy(mels)).numpy()
        vectors = net["embeddings"](torch.from_numpy(np.moveaxis(maps, 1, 3).reshape(4, -1))).numpy()
    np.testing.assert_allclose(got, vectors.reshape(2, 2, 6).mean(1), atol=1e-6)
    assert (got < 0).any(), "the last ReLU is left out"
    kept = pretrained.load("vggish", path, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(kept.embed(clips, RATE_HZ, loop=False), got)
    assert len(list((tmp_path / "cache" / "vggish").iterdir())) == 2


def test_the_description_says_what_decides_the_values(vggish):
    path, _ = vggish
    described = pretrained.load("vggish", path).describe(44_100)
    assert described["sha256"] == {"weights": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert (described["sample_rate_hz"], described["network_sample_rate_hz"]) == (44_100, 16_000)
    assert json.loads(json.dumps(described)) == described


@pytest.fixture
def cnn14(torch, tmp_path):
    """(file, network from the log-mel image on) with the names of PANNs' CNN14 at 16 kHz, narrow."""
    nn = torch.nn
    parts, channels = {"bn0": nn.BatchNorm2d(64), "fc1": nn.Linear(8, 9), "fc_audioset": nn.Linear(9, 3)}, 1
    for block, width in enumerate((2, 3, 4, 5, 6, 8), 1):
        convs = {f"conv{i}": nn.Conv2d(c, width, 3, padding=1, bias=False) for i, c in ((1, channels), (2, width))}
        parts[f"conv_block{block}"] = nn.ModuleDict(convs | {f"bn{i}": nn.BatchNorm2d(width) for i in (1, 2)})
        channels = width
    net = nn.ModuleDict(parts).eval()
    random_statistics(torch, net)
    window = librosa.filters.get_window("hann", 512)
    kernel = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(512)) / 512) * window
    state = net.state_dict() | {
        "spectrogram_extractor.stft.conv_real.weight": torch.tensor(kernel.real[:, None], dtype=torch.float32),
        "spectrogram_extractor.stft.conv_imag.weight": torch.tensor(kernel.imag[:, None], dtype=torch.float32),
        "logmel_extractor.melW": torch.tensor(
            librosa.filters.mel(sr=16_000, n_fft=512, n_mels=64, fmin=50, fmax=8000).T
        ),
    }
    # Beside the weights: the training data's order, in numpy's own types.
    torch.save({"model": state, "sampler": {"indexes": [np.arange(5)], "pointer": np.int64(3)}}, tmp_path / "cnn14.pth")
    return tmp_path / "cnn14.pth", net


def test_cnn14_is_its_network_on_the_whole_clip(cnn14, torch):
    path, net = cnn14
    clips = two_sounds(20_000, RATE_HZ)
    embedding = pretrained.load("panns-cnn14", path)
    got = embedding.embed(clips, RATE_HZ, loop=False)
    power = np.abs(librosa.stft(clips[..., 0], n_fft=512, hop_length=160, pad_mode="reflect")) ** 2
    mel = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=64, fmin=50, fmax=8000) @ power
    image = librosa.power_to_db(mel, amin=1e-10, top_db=None).swapaxes(1, 2)[:, None].astype(np.float32)
    with torch.no_grad():
        x = net["bn0"](torch.from_numpy(image).transpose(1, 3)).transpose(1, 3)
        for block in range(1, 7):
            part = net[f"conv_block{block}"]
            for i in (1, 2):
                x = torch.relu(part[f"bn{i}"](part[f"conv{i}"](x)))
            x = torch.nn.AvgPool2d(2)(x) if block < 6 else x
        x = x.numpy().mean(3)
        want = torch.relu(net["fc1"](torch.from_numpy(x.max(2) + x.mean(2)))).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert embedding.name == "panns-cnn14-16k" and np.ptp(got, axis=0).max() > 0.01


def test_cnn14_takes_the_shortest_clip(cnn14):
    embedding = pretrained.load("panns-cnn14", cnn14[0])
    assert embedding.embed(noise(1, 4_000, 1), RATE_HZ, loop=False).shape == (1, 9)


def save_old_names(torch, model, folder):
    """As the published folders are: weight norm's old names, and a .bin file."""
    state = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for name, value in model.state_dict().items()
    }
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")


def encodec(transformers, folder, **changes):
    small = dict(num_filters=2, hidden_size=8, codebook_size=16, num_lstm_layers=1)
    model = transformers.EncodecModel(transformers.EncodecConfig(**small | changes)).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("old", [False, True])
def test_encodec_24_khz_is_its_encoder_on_the_whole_clip(transformers, torch, tmp_path, old):
    model = encodec(transformers, tmp_path)
    if old:
        save_old_names(torch, model, tmp_path)
    clips = noise(2, 12_000, 2)
    embedding = pretrained.load("encodec", tmp_path)
    got = embedding.embed(clips, 24_000, loop=False)
    with torch.no_grad():
        want = model.encoder(torch.from_numpy(clips.mean(2))[:, None]).mean(-1).numpy()
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert embedding.name == "encodec24" and set(embedding.describe(24_000)["sha256"]) == {"weights", "config"}


def test_encodec_48_khz_is_its_encoder_on_levelled_seconds(transformers, torch, tmp_path):
    options = dict(sampling_rate=48_000, audio_channels=2, normalize=True, chunk_length_s=1.0, overlap=0.01)
    model = encodec(transformers, tmp_path, norm_type="time_group_norm", use_causal_conv=False, **options)
    clips = noise(1, 95_520, 2)
    embedding = pretrained.load("encodec", tmp_path)
    got = embedding.embed(clips, 48_000, loop=False)
    want = []
    for start in (0, 47_520):
        second = clips[0, start : start + 48_000]
        level = np.sqrt((second.mean(1) ** 2).mean())
        with torch.no_grad():
            want.append(model.encoder(torch.from_numpy((second / level).T[None])).mean(-1)[0].numpy())
    np.testing.assert_allclose(got[0], np.mean(want, axis=0), atol=1e-5)
    quieter = embedding.embed(clips / 4, 48_000, loop=False)
    np.testing.assert_allclose(quieter, got, atol=1e-4)
    assert embedding.name == "encodec48"
    assert np.isfinite(embedding.embed(np.zeros_like(clips), 48_000, loop=False)).all()


@pytest.mark.parametrize("fused", [False, True])
def test_clap_is_its_model_on_the_clip_repeated_for_ten_seconds(transformers, torch, tmp_path, fused):
    folder = tmp_path / "larger_clap_tiny"
    text = dict(vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    sound = dict(patch_embeds_hidden_size=8, hidden_size=16, depths=[1, 1], num_attention_heads=[1, 2])
    fusion = dict(enable_fusion=True, fusion_type="aff_2d") if fused else {}
    config = transformers.ClapConfig(
        text_config=text, audio_config=sound | fusion | {"num_hidden_layers": 2}, projection_dim=6
    )
    model = transformers.ClapModel(config).eval()
    random_statistics(torch, model)
    model.save_pretrained(folder)
    extractor = transformers.ClapFeatureExtractor(truncation="fusion" if fused else "rand_trunc", frequency_min=50)
    extractor.save_pretrained(folder)
    clips = two_sounds(36_000, 48_000)
    embedding = pretrained.load("clap", folder)
    got = embedding.embed(clips, 48_000, loop=False)
    repeated = np.tile(clips[..., 0], (1, 14))[:, :480_000]
    mel = librosa.feature.melspectrogram(
        y=repeated, sr=48_000, n_fft=1024, hop_length=480, n_mels=64, fmin=50, fmax=14_000, pad_mode="reflect",
        **(dict(htk=True, norm=None) if fused else {}),
    )  # fmt: skip
    image = librosa.power_to_db(mel, amin=1e-10, top_db=None).swapaxes(1, 2)[:, None].astype(np.float32)
    with torch.no_grad():
        pooled = model.audio_model(
            torch.from_numpy(image.repeat(4 if fused else 1, axis=1)), is_longer=torch.zeros(2, 1)
        )
        want = model.audio_projection(pooled.pooler_output).numpy()
    np.testing.assert_allclose(got, want / np.linalg.norm(want, axis=1, keepdims=True), atol=1e-4)
    np.testing.assert_array_equal(embedding.embed(clips, 48_000, loop=False), got)
    assert embedding.name == "clap-larger_clap_tiny" and np.ptp(got, axis=0).max() > 0.01


# Files that are not what they should be


def test_the_first_missing_weight_is_named(vggish, torch):
    path, net = vggish
    state = net.state_dict()
    del state["features.6.bias"], state["embeddings.0.weight"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"vggish\.pth: no 'features\.6\.bias' among its 16 entries"):
        pretrained.load("vggish", path)


def test_a_folder_without_a_weight_is_an_error(transformers, torch, tmp_path):
    model = encodec(transformers, tmp_path)
    state = model.state_dict()
    del state["encoder.layers.0.conv.bias"], state["decoder.layers.0.conv.bias"]
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"no 'encoder\.layers\.0\.conv\.bias' \(and 0 more\)"):
        pretrained.load("encodec", tmp_path)


def test_another_networks_file_is_an_error(vggish, cnn14):
    with pytest.raises(ValueError, match="no 'features.0.weight'"):
        pretrained.load("vggish", cnn14[0])
    with pytest.raises(ValueError, match="no 'spectrogram_extractor"):
        pretrained.load("panns-cnn14", vggish[0])


class Code:
    """Runs on unpickling."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self.path),)


def test_code_in_a_weight_file_does_not_run(torch, tmp_path):
    torch.save({"features.0.weight": Code(tmp_path / "ran")}, tmp_path / "vggish.pth")
    with pytest.raises(ValueError, match="nothing else in it"):
        pretrained.load("vggish", tmp_path / "vggish.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x00" * 400])
def test_what_torch_cannot_read_is_an_error(torch, tmp_path, content):
    (tmp_path / "vggish.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"vggish\.pth: expected weights saved by torch"):
        pretrained.load("vggish", tmp_path / "vggish.pth")


def test_a_missing_file_is_an_error(transformers, tmp_path):
    for name in ("vggish", "panns-cnn14"):
        with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
            pretrained.load(name, tmp_path / "absent.pth")
    for name in ("clap", "encodec"):
        with pytest.raises(FileNotFoundError, match=r"config\.json and model\.safetensors or pytorch_model\.bin"):
            pretrained.load(name, tmp_path)
