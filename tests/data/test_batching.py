import collections
import contextlib
import itertools
import re

import grain
import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from technogen_jax.data import batching, dataset_config
from technogen_jax.data.clip_source import ClipSource

# Clip i has the samples 1000 i, 1000 i + 1, ...: each sample names its clip and its position.
CROPPED = batching.Window(length=20, crop="random")
ALL_ROWS = batching.ProcessRows(4, 0, 4)
CLIPS = [(1000 * i + np.arange(100)[:, None]).astype(np.int16) for i in range(10)]


def take(count, first_step=0, rows=ALL_ROWS, **changes):
    """Batches of `count` steps, one after the other: `[count, n_critic, rows.count, T, 1]`."""
    options = dict(n_critic=2, window=CROPPED, seed=0, read_threads=2) | changes
    with contextlib.closing(batching.iterate_batches(CLIPS, rows=rows, first_step=first_step, **options)) as batches:
        return np.concatenate(list(itertools.islice(batches, count // options.get("steps", 1))))


def test_each_epoch_has_every_clip_once_in_another_order():
    clips = take(25)[..., 0, 0].ravel() // 1000  # 25 steps of 8 rows: 20 epochs
    epochs = clips.reshape(20, 10)
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert len({tuple(epoch) for epoch in epochs}) > 15


def test_random_crops_are_windows_from_the_whole_clip():
    batches = take(50)
    assert (np.diff(batches[..., 0], axis=-1) == 1).all()
    starts = batches[..., 0, 0] % 1000
    assert starts.min() < 5 and starts.max() > 75 and starts.max() <= 80


def test_start_crops_begin_at_the_first_sample():
    assert (take(5, window=batching.Window(length=20))[..., 0, 0] % 1000 == 0).all()


def test_a_batch_depends_only_on_seed_and_step():
    batches = take(6)
    np.testing.assert_array_equal(take(2, first_step=4), batches[4:])
    np.testing.assert_array_equal(take(6, read_threads=0), batches)
    assert (take(6, seed=1) != batches).any()
    take(1, first_step=10**9)  # and no step is far away


@pytest.mark.parametrize(
    "length, crop, rotate", [(20, "random", 0), (20, "random", 10), (None, "start", 20), (20, "start", 5)]
)
def test_order_crops_and_rotations_match_a_grain_pipeline(length, crop, rotate):
    """They are equal to the bit, so that old runs are resumed with the same batches."""
    dataset = grain.MapDataset.source(CLIPS).seed(7).shuffle().repeat()

    def window(clip, rng):
        start = rng.integers(len(clip) - length + 1) if crop == "random" else 0
        return clip[start : start + length]

    if length:
        dataset = dataset.random_map(window)
    if rotate:
        dataset = dataset.random_map(lambda clip, rng: np.roll(clip, rotate * rng.integers(len(clip) // rotate), 0))
    options = dict(window=batching.Window(length, crop, rotate), seed=7)
    for first_step in (0, 10**9):
        expected = np.stack([dataset[8 * first_step + row] for row in range(80)]).reshape(10, 2, 4, length or 100, 1)
        np.testing.assert_array_equal(take(10, first_step, **options), expected)
        # Batches that the device gathers from the whole dataset are the same.
        picks = take(10, first_step, read=False, **options)
        held = batching.stack_clips(CLIPS)
        np.testing.assert_array_equal(batching.gather(held, picks, length or 100), expected)
        if not picks[..., 2].any():
            np.testing.assert_array_equal(batching.gather(held, picks, length or 100, rotate=False), expected)


def test_a_gather_has_one_slice_for_each_clip_and_no_index_for_each_sample():
    picks = jax.ShapeDtypeStruct((2, 8, 3), np.int32)
    text = jax.jit(lambda *given: batching.gather(*given, 100)).lower(batching.stack_clips(CLIPS), picks).as_text()
    sizes = re.findall(r"slice_sizes = array<i64: ([\d, ]+)>", text)
    assert sizes and all("100" in size for size in sizes), sizes


def test_only_the_rows_of_a_process_are_read():
    class Counted(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    read = []
    options = dict(rows=batching.ProcessRows(8, 6, 2), n_critic=3, window=CROPPED, seed=0, read_threads=0)
    with contextlib.closing(batching.iterate_batches(Counted(CLIPS), **options)) as batches:
        found = np.concatenate(list(itertools.islice(batches, 5)))
    assert read[0] == 0  # for the length
    assert read[1:] == (found[..., 0, 0] // 1000).ravel().tolist()


def test_batches_of_several_steps_have_the_same_rows():
    np.testing.assert_array_equal(take(6, steps=3), take(6))
    np.testing.assert_array_equal(take(4, steps=2, first_step=2), take(6)[2:])


def test_rotate_shifts_clips_by_multiples():
    rotated = batching.Window(rotate=20)
    batches = take(100, window=rotated)[..., 0]
    starts = batches[..., 0] % 1000
    assert sorted(np.unique(starts)) == [0, 20, 40, 60, 80]
    clips, starts = batches.reshape(-1, 100), starts.ravel()
    whole = clips[:, :1] // 1000 * 1000 + (starts[:, None] + np.arange(100)) % 100
    np.testing.assert_array_equal(clips, whole)
    np.testing.assert_array_equal(take(2, first_step=4, window=rotated)[..., 0], batches[4:6])


def test_two_processes_read_the_halves_of_one_batch():
    halves = [take(3, rows=batching.ProcessRows(4, first, 2)) for first in (0, 2)]
    np.testing.assert_array_equal(np.concatenate(halves, axis=2), take(3))


def test_batches_reach_the_device_in_order():
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec(None, None, "data"))
    rows = batching.assign_rows(4 * jax.device_count())
    local = batching.iterate_batches(CLIPS, rows=rows, n_critic=1, window=CROPPED, seed=0)
    with contextlib.closing(local):
        arrays = list(itertools.islice(batching.to_device(local, sharding, rows), 3))
    np.testing.assert_array_equal(np.concatenate(arrays), take(3, rows=rows, n_critic=1))


def test_invalid_arguments_are_errors():
    with pytest.raises(ValueError, match="config.data.crop: expected one of random, start, got 'end'"):
        take(1, window=batching.Window(length=20, crop="end"))
    with pytest.raises(ValueError, match="no clips"):
        next(batching.iterate_batches([], rows=batching.ProcessRows(1, 0, 1), n_critic=1, window=CROPPED, seed=0))
    with pytest.raises(ValueError, match="config.data.rotate: expected a divisor of a clip's 20 rows, got 3"):
        take(1, window=batching.Window(length=20, crop="random", rotate=3))
    with pytest.raises(ValueError, match=r"config.train.batch_size: expected a multiple of .* got 0"):
        batching.assign_rows(0)


def test_one_epoch_has_all_clips_of_a_dataset(prepared_set):
    source = ClipSource(prepared_set, "train")
    rows = batching.ProcessRows(len(source), 0, len(source))
    clips = batching.ClipAudio(source)
    local = batching.iterate_batches(clips, rows=rows, n_critic=1, window=batching.Window(), seed=0)
    with contextlib.closing(local):
        ((epoch,),) = next(local)
    expected = sorted(clip["audio"].tobytes() for clip in source)
    assert sorted(clip.tobytes() for clip in epoch) == expected


def test_count_clips_by_label_matches_the_records(prepared_set):
    source = ClipSource(prepared_set, "test")
    names = [source.manifest.labels[clip["label"]] for clip in source]
    assert dataset_config.count_clips_by_label(source.manifest, "test") == collections.Counter(names)
