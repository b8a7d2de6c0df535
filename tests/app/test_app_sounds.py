import urllib.parse

import numpy as np
import pytest
import soundfile

from technogen_jax.app import library, sounds
from technogen_jax.sampling import arrangement, generator


def read(playable, query):
    return sounds.read_sound(dict(urllib.parse.parse_qsl(query, keep_blank_values=True)), {"tiny": playable})


def clip_of_seed(playable, seed, **options):
    return next(generator.render(playable.trained, generator.draw_latents(playable.trained.gan, seed, [0], **options)))


@pytest.mark.parametrize(
    "query",
    [
        "model=/etc/passwd",
        "share=0.5",  # of what?
        "to_seed=1&share=nan",
        "to_seed=1&share=1.01",
        "seed=-1",
        "seed=4294967296",
        "seed=0.5",
        "seed=" + "9" * 400,
        "seed=٧",
        "seed=",
        "truncation=0",
        "truncation=nan",
        "truncation=-inf",
        "moves=nan",
        "moves=2.1",
        "moves=0,0,0,0,0",
        "moves=,",
        "label=polka",
        "label=acid:0",
        "label=acid:-1",
        "label=acid:nan",
        "label=acid:1,industrial:1," + "x" * 10_000 + ":1",
        "to_label=polka",
        "bpm=10",
        "bpm=1e9",
        "bpm=nan",
        "bpm=" + "1" * 50,
        "workdir=/tmp",
        "sed=7",
    ],
)
def test_values_out_of_bounds_are_refused_in_one_short_line(playable, query):
    with pytest.raises(sounds.RequestError) as refused:
        read(playable, query)
    assert len(str(refused.value)) < 300 and "\n" not in str(refused.value)
    assert query.split("=")[-2].split("&")[-1][:5] in str(refused.value)


def test_every_parameter_is_optional(playable):
    found = {read(playable, "").start.seed for _ in range(20)}
    assert len(found) > 10  # another sound each time
    assert read(playable, "seed=7") == sounds.Sound(playable, sounds.Recipe(7))
    end = sounds.Recipe(8, {"acid": 1.0}, 0.5, (1.0,))
    morph = read(playable, "seed=7&truncation=0.5&moves=1&to_seed=8&to_label=acid")
    assert morph == sounds.Sound(playable, end._replace(seed=7, label=None), end, 0.5)


@pytest.mark.parametrize(
    "query",
    [
        "model=tiny&seed=7",
        "model=tiny&seed=7&label=acid:0.25,industrial:0.75&truncation=0.5&moves=1,0,-2",
        "model=tiny&seed=7&label=acid:1&to_seed=8&to_label=&share=0.25&bpm=140",
        "model=tiny&seed=7&to_seed=7&share=0",
    ],
)
def test_the_parameters_of_a_sound_ask_for_it_again(playable, query):
    sound = read(playable, query)
    assert urllib.parse.parse_qs(query, True) == urllib.parse.parse_qs(
        urllib.parse.urlencode(sounds.parameters_of(sound)), True
    )


def test_a_label_may_have_any_characters(playable):
    names = ("a,b:c", "50%", "x=y&z")
    gan = playable.trained.gan._replace(classes=names)
    model = playable._replace(trained=playable.trained._replace(gan=gan))
    for label in ({name: 1.0} for name in names):
        sound = sounds.Sound(model, sounds.Recipe(1, label))
        assert sounds.read_sound(sounds.parameters_of(sound), {"tiny": model}).start.label == label
        assert sounds.read_sound({"label": next(iter(label))}, {"tiny": model}).start.label == label


def test_different_sounds_have_different_file_names(playable):
    queries = ["", "&label=acid", "&truncation=0.5", "&moves=1", "&moves=1.5", "&to_seed=8", "&to_seed=8&share=0.4"]
    queries += ["&bpm=140", "&bpm=140.1", "&label=acid:0.5,industrial:0.2"]
    found = [sounds.file_name(read(playable, f"seed=7{query}"), None, "wav") for query in queries]
    found += [sounds.file_name(read(playable, "seed=7"), minutes, "wav") for minutes in (3, 3.5)]
    assert len(set(found)) == len(found)
    assert found[:2] == ["tiny-134bpm-7.wav", "tiny-acid-134bpm-7.wav"] and found[-2] == "tiny-134bpm-7-3min.wav"
    odd = playable._replace(name="../a b/ü")
    assert "/" not in sounds.file_name(sounds.Sound(odd, sounds.Recipe(7)), None, "wav")


def test_tempo_needs_clips_of_whole_bars(playable):
    with pytest.raises(sounds.RequestError, match="not whole bars"):
        read(playable._replace(bpm=None), "bpm=140")


def test_a_loop_equals_the_clip_that_sample_makes_from_the_seed(playable):
    label = {"acid": 0.25, "industrial": 0.75}
    expected = clip_of_seed(playable, 3, truncation=0.5, label=label)
    made = sounds.loop_of(read(playable, "seed=3&truncation=0.5&label=acid:0.25,industrial:0.75&moves=0,0"))
    np.testing.assert_array_equal(made, expected)


def test_moves_follow_the_directions_and_a_morph_interpolates(playable):
    start, end = sounds.Recipe(1, {"acid": 1.0}, 1.0, (0.5, 0, -2)), sounds.Recipe(2, {"industrial": 1.0})
    latents = generator.draw_latents(playable.trained.gan, 1, [0], label="acid")
    latents[0, : playable.directions.shape[1]] += 0.5 * playable.directions[0] - 2 * playable.directions[2]
    expected = next(generator.render(playable.trained, latents))
    for sound in (
        sounds.Sound(playable, start),
        sounds.Sound(playable, start, end, 0),
        sounds.Sound(playable, end, start, 1),
    ):
        assert np.abs(sounds.loop_of(sound) - expected).max() < 1e-3


def test_a_track_equals_that_of_the_sample_command(playable):
    sections = [arrangement.Section(16, seed=7)]
    expected = np.concatenate(
        list(arrangement.render(playable.trained, arrangement.latents_of(playable.trained.gan, sections, 4)))
    )
    recipe = sounds.Recipe(7)
    np.testing.assert_array_equal(np.concatenate(list(sounds.track_of(sounds.Sound(playable, recipe), 16))), expected)
    other = np.concatenate(list(sounds.track_of(sounds.Sound(playable, recipe._replace(moves=(1.0,))), 16)))
    assert np.abs(other - expected).max() > 0.01


def test_another_tempo_changes_the_speed_and_the_loop_stays_seamless(playable, tmp_path, pcm_of_7):
    sound = sounds.Sound(playable, sounds.Recipe(7))
    sounds.write(sound, tmp_path / "own.wav", None)
    sounds.write(sound._replace(bpm=playable.bpm * 1.25), tmp_path / "fast.flac", None)
    own, fast = (soundfile.read(tmp_path / name)[0] for name in ("own.wav", "fast.flac"))
    np.testing.assert_array_equal(own, pcm_of_7 / 32768)
    assert len(fast) == round(len(own) / 1.25)
    # What lies below half the rate in both is the same around the circle, up to 16 bits.
    spectra = [np.fft.rfft(side, axis=0)[: len(fast) // 2] / len(side) for side in (own, fast)]
    assert np.linalg.norm(spectra[0] - spectra[1]) < 1e-3 * np.linalg.norm(spectra[0])

    shares = []
    sounds.write(sound._replace(bpm=playable.bpm * 0.8), tmp_path / "track.wav", 0.5, shares.append)
    bars = round(0.5 * playable.bpm * 0.8 / 4)
    assert abs(soundfile.info(tmp_path / "track.wav").frames - bars * len(own) / 0.8) <= 2
    assert shares[0] == 0 and len(shares) > 1 and sorted(shares) == shares and shares[-1] < 1
    assert (tmp_path / "track.wav").stat().st_size < sounds.most_bytes(sound, 0.5)


def test_models_get_unique_names():
    assert library.names_of(["a/run", "b/run", "c/model.npz", "d/run"]) == ["run", "run (2)", "model", "run (3)"]
