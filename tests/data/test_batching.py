import collections
import contextlib
import dataclasses
import itertools

import grain
import jax
import numpy as np
import pytest
from conftest import RATE_HZ
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from technogen_jax.data import batching, tfrecords

# Clip i is the samples 1000 i, 1000 i + 1, ...: each sample tells its clip and its place.
WHOLE = batching.Rows(4, 0, 4)
CLIPS = [(1000 * i + np.arange(100)[:, None]).astype(np.int16) for i in range(10)]


def take(count, first_step=0, rows=WHOLE, **changes):
    """Batches of `count` steps, one after the other: `[count, n_critic, rows.count, T, 1]`."""
    options = dict(n_critic=2, length=20, crop="random", seed=0, read_threads=2) | changes
    with contextlib.closing(batching.batches(CLIPS, rows=rows, first_step=first_step, **options)) as batches:
        return np.concatenate(list(itertools.islice(batches, count // options.get("steps", 1))))


def test_each_epoch_is_every_clip_once_in_another_order():
    clips = take(25)[..., 0, 0].ravel() // 1000  # 25 steps of 8 rows: 20 epochs
    epochs = clips.reshape(20, 10)
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert len({tuple(epoch) for epoch in epochs}) > 15


def test_crops_are_windows_at_random_places():
    batches = take(50)
    assert (np.diff(batches[..., 0], axis=-1) == 1).all()
    starts = batches[..., 0, 0] % 1000
    assert starts.min() < 5 and starts.max() > 75 and starts.max() <= 80


def test_a_crop_from_the_start():
    assert (take(5, crop="start")[..., 0, 0] % 1000 == 0).all()


def test_a_batch_depends_on_the_seed_and_the_step_alone():
    batches = take(6)
    np.testing.assert_array_equal(take(2, first_step=4), batches[4:])
    np.testing.assert_array_equal(take(6, read_threads=0), batches)
    assert (take(6, seed=1) != batches).any()
    take(1, first_step=10**9)  # and no step is far away


@pytest.mark.parametrize(
    "length, crop, rotate", [(20, "random", 0), (20, "random", 10), (None, "start", 20), (20, "start", 5)]
)
def test_the_order_is_grains(length, crop, rotate):
    """To the bit that of a pipeline of its own parts, crops and rolls too: runs of before go on as they were."""
    dataset = grain.MapDataset.source(CLIPS).seed(7).shuffle().repeat()

    def window(clip, rng):
        start = rng.integers(len(clip) - length + 1) if crop == "random" else 0
        return clip[start : start + length]

    if length:
        dataset = dataset.random_map(window)
    if rotate:
        dataset = dataset.random_map(lambda clip, rng: np.roll(clip, rotate * rng.integers(len(clip) // rotate), 0))
    options = dict(length=length, crop=crop, rotate=rotate, seed=7)
    for first_step in (0, 10**9):
        expected = np.stack([dataset[8 * first_step + row] for row in range(80)]).reshape(10, 2, 4, length or 100, 1)
        np.testing.assert_array_equal(take(10, first_step, **options), expected)
        # And so are those gathered on the device from the whole set.
        picks = take(10, first_step, read=False, **options)
        np.testing.assert_array_equal(batching.gather(batching.stacked(CLIPS), picks, length or 100), expected)


def test_only_the_rows_of_a_process_are_read():
    class Counted(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    read = []
    options = dict(rows=batching.Rows(8, 6, 2), n_critic=3, length=20, crop="random", seed=0, read_threads=0)
    with contextlib.closing(batching.batches(Counted(CLIPS), **options)) as batches:
        found = np.concatenate(list(itertools.islice(batches, 5)))
    assert read[0] == 0  # for the length
    assert read[1:] == (found[..., 0, 0] // 1000).ravel().tolist()


def test_several_steps_at_a_time_are_the_same_steps():
    np.testing.assert_array_equal(take(6, steps=3), take(6))
    np.testing.assert_array_equal(take(4, steps=2, first_step=2), take(6)[2:])


def test_clips_can_be_rolled_around_their_loop():
    batches = take(100, length=None, rotate=20)[..., 0]
    starts = batches[..., 0] % 1000
    assert sorted(np.unique(starts)) == [0, 20, 40, 60, 80]
    clips, starts = batches.reshape(-1, 100), starts.ravel()
    whole = clips[:, :1] // 1000 * 1000 + (starts[:, None] + np.arange(100)) % 100
    np.testing.assert_array_equal(clips, whole)
    np.testing.assert_array_equal(take(2, first_step=4, length=None, rotate=20)[..., 0], batches[4:6])


def test_two_processes_share_what_one_would_have_read():
    halves = [take(3, rows=batching.Rows(4, first, 2)) for first in (0, 2)]
    np.testing.assert_array_equal(np.concatenate(halves, axis=2), take(3))


def test_batches_reach_the_device_in_order():
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec(None, None, "data"))
    rows = batching.process_rows(4 * jax.device_count())
    local = batching.batches(CLIPS, rows=rows, n_critic=1, length=20, crop="random", seed=0)
    with contextlib.closing(local):
        arrays = list(itertools.islice(batching.to_device(local, sharding, rows), 3))
    np.testing.assert_array_equal(np.concatenate(arrays), take(3, rows=rows, n_critic=1))


def test_bad_arguments_are_errors():
    with pytest.raises(ValueError, match="config.data.crop: expected one of random, start, got 'end'"):
        take(1, crop="end")
    with pytest.raises(ValueError, match="no clips"):
        next(batching.batches([], rows=batching.Rows(1, 0, 1), n_critic=1, seed=0))
    with pytest.raises(ValueError, match="config.data.rotate: expected a divisor of a clip's 20 rows, got 3"):
        take(1, rotate=3)
    with pytest.raises(ValueError, match=r"config.train.batch_size: expected a multiple of .* got 0"):
        batching.process_rows(0)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(sample_rate_hz=16000), "config.audio.sample_rate_hz is 16000, but the set has 8000.*--sample_rate 16000"),
        (dict(channels=2), "config.audio.channels is 2, but the set has 1.*--channels 2"),
        (dict(clip_samples=4096), "config.audio.clip_samples is 4096, but the set has clips of 2250.*--hop_size 0.512"),
        (dict(split="best"), "config.data.split is 'best', but the set has train, valid, test"),
        (
            dict(classes=("acid", "dub")),
            r"config.model.classes is .*no train clip with the label 'dub'; it has .*industrial",
        ),
        (
            dict(encode_once=True, clip_samples=2048),
            "config.data.crop is 'random', but the set has clips of 2250 samples for a window of 2048.*set it to 'start'",
        ),
    ],
)
def test_a_config_that_does_not_fit_the_set_is_an_error_with_both_sides(prepared_set, change, message):
    manifest = tfrecords.read_manifest(prepared_set)
    fields = dict(split="train", crop="random", sample_rate_hz=RATE_HZ, channels=1, clip_samples=2250)
    batching.check(manifest, **fields, classes=("industrial", "acid"), encode_once=True)
    batching.check(manifest, **fields | dict(crop="start", clip_samples=2048), encode_once=True)
    with pytest.raises(ValueError, match=message):
        batching.check(manifest, **(fields | change))


def asked(samples=None, bars=None, rate_hz=None):
    """A config that leaves to the set what is None."""
    audio = dict(sample_rate_hz=rate_hz, channels=None, clip_samples=samples)
    return ConfigDict(dict(audio=audio, model=dict(bars=bars))).lock()


@pytest.fixture
def two_bars(prepared_set):
    """The manifest of a set of two bars a record, of 1125 samples each."""
    return dataclasses.replace(tfrecords.read_manifest(prepared_set), options=dict(grid="bars", bars=2))


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
def test_what_a_config_leaves_to_a_set_of_bars_is_the_sets(two_bars, samples, bars, found):
    config = asked(samples, bars)
    followed = batching.follow(config, two_bars)
    assert followed.audio.to_dict() == dict(sample_rate_hz=RATE_HZ, channels=1, clip_samples=found[0])
    assert followed.model.bars == found[1]
    assert config == asked(samples, bars)


def test_bars_that_clips_do_not_have_are_an_error(two_bars):
    said = "config.audio.clip_samples is 2000 and config.model.bars 2, but so many bars of the set are 2250 samples"
    with pytest.raises(ValueError, match=said):
        batching.follow(asked(2000, 2), two_bars)
    with pytest.raises(ValueError, match="is 1500 and config.model.bars 1, but so many bars of the set are 1125"):
        batching.follow(asked(1500), two_bars)
    for strange in (True, -1, "2", 0.5):  # the field's own check says so
        assert batching.follow(asked(2250, strange), two_bars).model.bars == strange


def test_a_set_that_is_not_cut_at_bars_says_all_but_the_bars(prepared_set):
    manifest = tfrecords.read_manifest(prepared_set)
    with pytest.raises(ValueError, match="config.model.bars: .* was not cut at them; prepare it with --grid bars"):
        batching.follow(asked(), manifest)
    assert batching.follow(asked(bars=1), manifest).audio.clip_samples == 2250
    config = asked(1000, rate_hz=16000).unlock()
    del config.model.bars  # of a model that has none
    assert batching.follow(config, manifest).audio.to_dict() == dict(
        sample_rate_hz=16000, channels=1, clip_samples=1000
    )


def test_records_arrive_as_prepared(prepared_set):
    source = tfrecords.ClipSource(prepared_set, "train")
    rows = batching.Rows(len(source), 0, len(source))
    with contextlib.closing(batching.batches(batching.Audio(source), rows=rows, n_critic=1, seed=0)) as local:
        ((epoch,),) = next(local)
    expected = sorted(clip["audio"].tobytes() for clip in source)
    assert sorted(clip.tobytes() for clip in epoch) == expected


def test_clips_of_each_label_are_those_of_the_records(prepared_set):
    source = tfrecords.ClipSource(prepared_set, "test")
    names = [source.manifest.labels[clip["label"]] for clip in source]
    assert batching.clips_of_labels(source.manifest, "test") == collections.Counter(names)
