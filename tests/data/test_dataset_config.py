"""Configs completed from a dataset and compared with it."""

import dataclasses
import re

import pytest
from conftest import RATE_HZ
from ml_collections import ConfigDict

from technogen_jax import train
from technogen_jax.data import dataset_config
from technogen_jax.data.manifest import read_manifest


@pytest.mark.parametrize(
    "change, message",
    [
        (
            dict(sample_rate_hz=16000),
            "config.audio.sample_rate_hz is 16000, but the dataset has 8000.*--sample_rate 16000",
        ),
        (dict(channels=2), "config.audio.channels is 2, but the dataset has 1.*--channels 2"),
        (
            dict(clip_samples=4096),
            "config.audio.clip_samples is 4096, but the dataset has clips of 2250.*--hop_size 0.512",
        ),
        (dict(split="best"), "config.data.split is 'best', but the dataset has train, valid, test"),
        (
            dict(classes=("acid", "dub")),
            r"config.model.classes is .*no train clip with the label 'dub'; it has .*industrial",
        ),
        (
            dict(encode_once=True, clip_samples=2048),
            "config.data.crop is 'random', but the dataset has clips of 2250 samples for a window of 2048.*set it to 'start'",
        ),
    ],
)
def test_check_config_names_both_values_that_differ(prepared_set, change, message):
    manifest = read_manifest(prepared_set)
    fields = dict(split="train", crop="random", sample_rate_hz=RATE_HZ, channels=1, clip_samples=2250)
    dataset_config.check_config(manifest, **fields, classes=("industrial", "acid"), encode_once=True)
    dataset_config.check_config(manifest, **fields | dict(crop="start", clip_samples=2048), encode_once=True)
    with pytest.raises(ValueError, match=message):
        dataset_config.check_config(manifest, **(fields | change))


def make_config(samples=None, bars=None, rate_hz=None):
    """Returns a config that with None in the fields that the dataset completes."""
    audio = dict(sample_rate_hz=rate_hz, channels=None, clip_samples=samples)
    return ConfigDict(dict(audio=audio, model=dict(bars=bars))).lock()


@pytest.fixture
def two_bars(prepared_set):
    """The manifest of a dataset of two bars a record, of 1125 samples each."""
    return dataclasses.replace(read_manifest(prepared_set), options=dict(grid="bars", bars=2))


@pytest.mark.parametrize(
    "samples, bars, found",
    [
        (None, None, (2250, 2)),
        (None, 1, (1125, 1)),
        (1125, None, (1125, 1)),
        (1124, 1, (1124, 1)),
        (2251, 2, (2251, 2)),
    ],
)
def test_complete_config_takes_samples_and_bars_from_the_dataset(two_bars, samples, bars, found):
    config = make_config(samples, bars)
    completed = dataset_config.complete_config(config, two_bars)
    assert completed.audio.to_dict() == dict(sample_rate_hz=RATE_HZ, channels=1, clip_samples=found[0])
    assert completed.model.bars == found[1]
    assert config == make_config(samples, bars)


def test_complete_config_raises_if_samples_and_bars_differ(two_bars):
    message = "config.audio.clip_samples is 2000 and config.model.bars 2, but that number of bars of the dataset has 2250 samples"
    with pytest.raises(ValueError, match=message):
        dataset_config.complete_config(make_config(2000, 2), two_bars)
    with pytest.raises(
        ValueError, match="is 1500 and config.model.bars 1, but that number of bars of the dataset has 1125"
    ):
        dataset_config.complete_config(make_config(1500), two_bars)
    for invalid in (True, -1, "2", 0.5):  # the check of the config reports it
        assert dataset_config.complete_config(make_config(2250, invalid), two_bars).model.bars == invalid


def test_complete_config_of_a_dataset_not_cut_at_bars_needs_the_bars(prepared_set):
    manifest = read_manifest(prepared_set)
    with pytest.raises(ValueError, match="config.model.bars: .* was not cut at them; prepare it with --grid bars"):
        dataset_config.complete_config(make_config(), manifest)
    assert dataset_config.complete_config(make_config(bars=1), manifest).audio.clip_samples == 2250
    config = make_config(1000, rate_hz=16000).unlock()
    del config.model.bars  # of a model that has none
    assert dataset_config.complete_config(config, manifest).audio.to_dict() == dict(
        sample_rate_hz=16000, channels=1, clip_samples=1000
    )


def label_tracks(manifest, **counts):
    """Returns the manifest with so many training tracks of each label."""
    tracks = [
        dict(id=f"{label}/{index}", label=label, split="train", clips=2)
        for label, count in counts.items()
        for index in range(count)
    ]
    return dataclasses.replace(manifest, tracks=tracks, labels=sorted(counts))


@pytest.mark.parametrize(
    "counts, chosen, line",
    [
        (dict(dub=8, acid=30), ("acid", "dub"), "learns the labels acid, dub; without: "),
        (dict(dub=8, acid=30, unlabelled=3), ("acid", "dub"), "acid, dub; 6 clips with other labels count as all"),
        (dict(dub=7, acid=30), (), r"without the dataset's 2 labels \(fewer than 8 tracks in one of them\)"),
        (dict(acid=30, unlabelled=30), (), "^$"),
        ({f"label{number:02d}": 8 for number in range(21)}, (), r"21 labels \(more than 20\)"),
    ],
)
def test_folder_labels_are_learned_by_default_if_each_has_enough_tracks(two_bars, counts, chosen, line):
    manifest = label_tracks(two_bars, **counts)
    config = make_config().unlock()
    config.data, config.model.classes = ConfigDict(dict(split="train")), None
    assert dataset_config.complete_config(config, manifest).model.classes == chosen
    assert re.search(line, dataset_config.describe_labels(manifest, "train", chosen))
    config.model.classes = ()
    assert dataset_config.complete_config(config, manifest).model.classes == ()


def test_labels_that_were_switched_off_are_mentioned(two_bars):
    manifest = label_tracks(two_bars, dub=8, acid=30)
    assert dataset_config.describe_labels(manifest, "train", ()).startswith("without the dataset's 2 labels: ")


@pytest.mark.parametrize(
    "word, value", [([], None), (["--config.model.classes=()"], ()), (["--config.model.classes=('a','b')"], ("a", "b"))]
)
def test_the_config_of_technogan_takes_labels_from_the_dataset_unless_it_names_them(word, value):
    assert train.read_config("configs/technogan.py:xs", word).model.classes == value
