"""The command line: defaults, and one line for every value that cannot work."""

import dataclasses

import pytest

from data_prep import options, prepare

REQUIRED = ["--input", "in", "--output", "out"]
NO_GRID = ("none", 4, None, None, 6.0, (100.0, 180.0))


def test_defaults_match_the_original_project():
    parsed = prepare.parse_options(REQUIRED)
    assert parsed == options.Options(input="in", output="out")
    assert (parsed.sample_rate, parsed.hop_size, parsed.split, parsed.seed) == (44100, 8.0, (0.8, 0.1, 0.1), 0)
    assert parsed.clip_samples == parsed.stride_samples == 352800
    assert parsed.clip_settings.normalise == "peak" and parsed.clip_settings.target_lufs is None


def test_parse_options_sets_every_option():
    line = "--sample_rate 16000 --hop_size 1.024 --stride 0.5 --channels 2 --split 0.5,0.25,0.25 --limit 9 --no-shuffle"
    line += " --seed 7 --silence_db -50 --normalise loudness --target_lufs -20 --labels none --workers 3 --task 2/4 --shard_mb 1"
    line += " --pad --min_bandwidth 7000"
    parsed = prepare.parse_options([*REQUIRED, *line.split()])
    assert dataclasses.astuple(parsed) == (
        *(
            "in",
            "out",
            16000,
            1.024,
            0.5,
            True,
            *NO_GRID,
            2,
            (0.5, 0.25, 0.25),
            9,
            False,
            7,
            -50.0,
            "loudness",
            -20.0,
            7000.0,
            "none",
            3,
            "2/4",
            1.0,
        ),
    )
    assert parsed.share == (2, 4)
    assert (parsed.clip_samples, parsed.stride_samples) == (16384, 8000)
    assert parsed.shaping["stride"] == 0.5 and not {"workers", "task"} & parsed.shaping.keys()
    assert prepare.parse_options([*REQUIRED, "--normalise", "loudness"]).clip_settings.target_lufs == -14


def test_bar_options_give_clip_lengths_in_bars():
    line = "--grid bars --bars 3 --bpm 131 --sample_rate 16000 --bpm_range 110,170"
    parsed = prepare.parse_options([*REQUIRED, *line.split()])
    settings = parsed.bar_settings(131)
    bar_samples = round(240 / 131 * 16000)
    assert (settings.bar_samples, settings.clip_samples, settings.stride_bars, settings.bpm) == (
        bar_samples,
        3 * bar_samples,
        3,
        131,
    )
    assert settings.stride_samples == settings.clip_samples
    two = prepare.parse_options([*REQUIRED, "--grid", "bars", "--bars", "2", "--stride_bars", "1"]).bar_settings(136)
    assert (two.bar_samples, two.clip_samples, two.stride_samples) == (77824, 155648, 77824)  # not 155647.06
    shaping = parsed.shaping
    assert shaping["stride_bars"] == 3 and shaping["bpm_range"] == [110, 170] and "hop_size" not in shaping
    assert not {"grid", "bars", "bpm"} & prepare.parse_options(REQUIRED).shaping.keys()


@pytest.mark.parametrize(
    "given",
    [
        "--sample_rate 10",
        "--task 0/4",
        "--task 5/4",
        "--task 2",
        "--sample_rate 44.1",
        "--hop_size 0",
        "--hop_size nan",
        "--hop_size 0.0001",
        "--stride 0",
        "--stride -1",
        "--channels 3",
        "--split 0.8,0.2",
        "--split 0.8,0.2,0.2",
        "--split a,b,c",
        "--split 1.5,-0.5,0",
        "--limit 0",
        "--seed -1",
        "--silence_db 3",
        "--normalise rms",
        "--target_lufs -14",
        "--labels name",
        "--workers 0",
        "--shard_mb 0",
        "--grid beats",
        "--bars 2",
        "--stride_bars 2",
        "--bpm 130",
        "--max_speed 3",
        "--bpm_range 110,190",
        "--hop_size 4 --grid bars",
        "--stride 4 --grid bars",
        "--bars 0 --grid bars",
        "--stride_bars 0 --grid bars",
        "--bpm nan --grid bars",
        "--max_speed 60 --grid bars",
        "--bpm_range 90,180 --grid bars",
        "--bpm_range 120 --grid bars",
        "--hopsize 8",
        "--sample 16000",
    ],
)
def test_invalid_options_are_one_line_errors(given, capsys):
    with pytest.raises(SystemExit) as caught:
        prepare.parse_options([*REQUIRED, *given.split()])
    message = capsys.readouterr().err
    assert caught.value.code == 2
    assert message.startswith("prepare: ") and message.count("\n") == 1 and given.split()[0] in message


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        prepare.parse_options(["--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert all(f"--{field.name} " in text for field in dataclasses.fields(options.Options) if field.name != "shuffle")
    assert "--no-shuffle" in text
