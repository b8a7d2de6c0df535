import tracemalloc

import jax
import numpy as np
import pytest
from helpers.endless_model import ANCHOR, model

from technogen_jax.evaluation.features import musical
from technogen_jax.sampling import arrangement, generator

Section = arrangement.Section


@pytest.fixture(scope="module")
def one():
    return model(1)


@pytest.fixture(scope="module")
def two():
    return model(2)


def played(trained, latents, energy=None, **options):
    blocks = list(arrangement.render(trained, latents, energy, **options))
    return np.concatenate(blocks)


def difference_db(sound, wanted):
    assert sound.shape == wanted.shape
    return 10 * np.log10(np.mean((sound - wanted) ** 2) / np.mean(wanted**2))


# ------------------------------------------------------------------------------------------------------------- latents


def test_a_track_as_long_as_a_clip_equals_the_clip(two):
    latents = arrangement.latents_of(two.gan, [Section(2, seed=5)], hold=2)
    assert latents.shape == (2, 8 + ANCHOR + 2) and latents.dtype == np.float32
    (z,) = generator.draw_latents(two.gan, 5, [0])
    x, clip = (np.asarray(two.gan.generate(two.params, rows[None])) for rows in (latents, z))
    np.testing.assert_array_equal(x, clip)


def test_anchors_come_from_one_clip_after_another_and_repeat(two):
    latents = arrangement.latents_of(two.gan, [Section(12, seed=5)], hold=4)
    clips = generator.draw_latents(two.gan, 5, range(3))
    np.testing.assert_array_equal(latents[:, :8], np.tile(clips[:1, :8], (12, 1)))
    np.testing.assert_array_equal(latents[:, -2:], np.tile(clips[:1, -2:], (12, 1)))
    anchors = clips[:, 8:-2].reshape(3, 2, ANCHOR)
    np.testing.assert_array_equal(latents[:, 8:-2].reshape(3, 2, 2, ANCHOR), np.repeat(anchors[:, None], 2, 1))


def test_latents_of_a_bar_depend_on_seed_and_number_alone(one):
    long, parts = (
        arrangement.latents_of(one.gan, sections, hold=4)
        for sections in ([Section(12, seed=1)], [Section(6, seed=1), Section(3, seed=2), Section(3, seed=1)])
    )
    np.testing.assert_array_equal(long[[*range(6), 9, 10, 11]], parts[[*range(6), 9, 10, 11]])
    assert np.abs(long[6:9, :8] - parts[6:9, :8]).min() > 0


def test_crossfade_is_linear_and_label_weights_sum_to_one(one):
    old, new = Section(4, seed=1, label={"acid": 1.0}), Section(4, seed=2, label={"acid": 1.0, "industrial": 3.0})
    latents = arrangement.latents_of(one.gan, [old, new._replace(crossfade=4)], hold=4)
    left = arrangement.latents_of(one.gan, [old._replace(bars=8)], hold=4)[4:]
    right = arrangement.latents_of(one.gan, [old, new], hold=4)[4:]
    share = np.arange(4)[:, None] / 4
    np.testing.assert_allclose(latents[4:], left * (1 - share) + right * share, atol=1e-6)
    np.testing.assert_allclose(latents[4:, -1], [0, 0.1875, 0.375, 0.5625], atol=1e-6)


def test_truncation_scales_only_gaussian_latents(one):
    whole, half = (arrangement.latents_of(one.gan, [Section(4, seed=1)], 4, truncation) for truncation in (1, 0.5))
    np.testing.assert_allclose(half[:, :-2], whole[:, :-2] / 2, rtol=1e-6)
    np.testing.assert_array_equal(half[:, -2:], whole[:, -2:])


def test_sections_that_do_not_fit_the_model_raise(two):
    with pytest.raises(ValueError, match="expected a multiple of the model's 2 bars, got 3"):
        arrangement.latents_of(two.gan, [Section(4)], hold=3)
    with pytest.raises(arrangement.ScriptError, match="section 2, bars: expected a multiple of the model's 2, got 3"):
        arrangement.latents_of(two.gan, [Section(4), Section(3)], hold=4)
    with pytest.raises(arrangement.ScriptError, match="section 1, label: .*acid, industrial"):
        arrangement.latents_of(two.gan, [Section(4, label={"dub": 1.0})], hold=4)
    with pytest.raises(ValueError, match="generates clips of one length, not tracks"):
        arrangement.latents_of(two.gan._replace(endless=None), [Section(4)], hold=4)


# --------------------------------------------------------------------------------------------------------------- sound


@pytest.mark.parametrize("name, count", [("one", 7), ("two", 10)])
def test_a_track_in_blocks_equals_the_whole_loop(name, count, request):
    trained = request.getfixturevalue(name)
    bars = trained.gan.endless.bars
    latents = arrangement.latents_of(trained.gan, [Section(count, seed=3)], hold=bars)
    make = arrangement.sequences(trained, latents)
    x = np.concatenate([make(clip) for clip in range(count // bars)])[None]
    np.testing.assert_allclose(x, jax.jit(trained.gan.generate)(trained.params, latents[None]), atol=1e-5)
    whole = np.asarray(jax.jit(trained.gan.decode)(x))[0]  # of these bits, from which noise is drawn
    assert difference_db(played(trained, latents, block_bars=4), whole) < -100  # measured: -128


def test_zero_energy_removes_the_kick(one):
    sections = [Section(4, seed=3), Section(4, seed=3, energy=(0.5, 0.5))]
    latents, energy = arrangement.latents_of(one.gan, sections, hold=4), arrangement.energy_of(sections)
    full, shaped = played(one, latents, block_bars=8), played(one, latents, energy, block_bars=8)
    assert difference_db(played(one, latents, energy, block_bars=4), shaped) < -100
    change_db = []
    for first in (0, 4):
        inner = slice(first * 14336 + 7168, (first + 4) * 14336 - 7168)
        change_db.append(musical.ltas_db(shaped[inner], 8000) - musical.ltas_db(full[inner], 8000))
    kick = slice(1, 6)  # thirds of an octave from 31.5 to 80 Hz
    assert np.abs(change_db[0]).max() < 0.1 and change_db[1][kick].max() < -20 and np.abs(change_db[1][-6:]).max() < 0.1


def test_levels_scale_kick_and_treble_frequencies():
    noise = np.random.default_rng(0).standard_normal((44100, 2)).astype(np.float32) / 10
    low, high = np.zeros(44100, np.float32), np.full(44100, 0.5, np.float32)
    change_db = musical.ltas_db(np.asarray(arrangement._shape(noise, low, high, 44100)), 44100) - musical.ltas_db(
        noise, 44100
    )
    bands_hz = 1000 * 10 ** ((np.arange(len(change_db)) - 16) / 10)  # the first is 25 Hz
    assert change_db[bands_hz < 90].max() < -20
    np.testing.assert_allclose(change_db[(bands_hz > 350) & (bands_hz < 2300)], 0, atol=0.2)
    np.testing.assert_allclose(change_db[bands_hz > 7500], 20 * np.log10(0.5), atol=0.2)


def test_energy_rises_linearly_and_changes_at_the_bar_line():
    energy = arrangement.energy_of([Section(2, energy=(0, 1)), Section(1)])
    np.testing.assert_allclose(energy, [[0, 0.5], [0.5, 1], [1, 1]])
    low, high = arrangement._levels(np.array([[0.5, 0.5], [1, 1]]), np.arange(2000), 1000, 1000)
    assert not low[:995].any() and (low[1000:1995] == 1).all() and (np.diff(low[994:1001]) > 0).sum() == 5
    assert (high == 1).all()


def test_memory_does_not_grow_with_the_track(one):
    """Arrays of JAX that live while a block is at hand, and the peak of numpy's; some blocks are made ahead."""
    held = []
    for count in (48, 48, 48, 48, 240):
        latents = arrangement.latents_of(one.gan, [Section(count)], hold=4)
        tracemalloc.start()
        living = max(sum(x.nbytes for x in jax.live_arrays()) for _ in arrangement.render(one, latents, block_bars=4))
        held.append(living + tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert held[1] > 4 * 14336 * 2 * 4  # a block is counted
    # The first compiles; on a busy machine not all threads hold a block in each of the others.
    assert held[-1] < 1.2 * max(held[1:-1])


# -------------------------------------------------------------------------------------------------------------- script

SCRIPT = """
[[section]]
bars = 8
energy = [0.2, 0.5]

[[section]]
bars = 16
label = "acid"
seed = 3

[[section]]
bars = 8
label = { acid = 0.7, industrial = 0.3 }
energy = 1
crossfade = 4
"""


def test_a_script_lists_sections_and_missing_fields_keep_their_values(tmp_path):
    (tmp_path / "track.toml").write_text(SCRIPT, encoding="utf-8-sig")  # with a byte-order mark
    assert arrangement.read_script(tmp_path / "track.toml", seed=9) == [
        Section(8, 9, None, (0.2, 0.5), 0),
        Section(16, 3, {"acid": 1.0}, (1.0, 1.0), 0),
        Section(8, 3, {"acid": 0.7, "industrial": 0.3}, (1.0, 1.0), 4),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", r"expected a \[\[section\]\] for each part of the track and nothing else, found nothing"),
        ("tempo = 130\n[[section]]\nbars = 4", r"and nothing else, found tempo, section"),
        ("[[section]\n", "not valid TOML: "),
        ("[[section]]\nseed = 1", "section 1, bars: expected a whole number of at least 1, got None"),
        ("[[section]]\nbars = 4\n[[section]]\nbars = 4.5", "section 2, bars: expected a whole number .* got 4.5"),
        ("[[section]]\nbars = 4\nseed = -1", "section 1, seed: expected .* 0 to 4294967295, got -1"),
        ("[[section]]\nbars = 4\nenergy = 1.5", "section 1, energy: expected a number from 0 to 1, or two, .* got 1.5"),
        ("[[section]]\nbars = 4\nenergy = [0, nan]", "section 1, energy: expected a number from 0 to 1"),
        ("[[section]]\nbars = 4\ncrossfade = 5", "section 1, crossfade: expected .* 0 to its bars, got 5"),
        ("[[section]]\nbars = 4\nlabel = 3", "section 1, label: expected a name, or weights as"),
        ("[[section]]\nbars = 4\nlabel = { acid = 0 }", "section 1, label: expected a name, or weights as"),
        ("[[section]]\nbars = 4\ntempo = 130", "section 1: has no field tempo; expected some of bars, seed, label"),
    ],
)
def test_an_invalid_script_names_the_section_and_the_field(tmp_path, text, expected):
    (tmp_path / "track.toml").write_text(text)
    with pytest.raises(arrangement.ScriptError, match=expected):
        arrangement.read_script(tmp_path / "track.toml")
    with pytest.raises(arrangement.ScriptError, match="nothing.toml: cannot be read"):
        arrangement.read_script(tmp_path / "nothing.toml")
