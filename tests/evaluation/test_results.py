import copy
import json

import pytest

from technogen_jax.evaluation import results

RESULT = {
    "version": 1,
    "context": {
        "sample_rate_hz": 16000,
        "clip_samples": 32000,
        "channels": 1,
        "rendering": "16 bit",
        "options": {"seed": 0},
    },
    "sets": {
        "reference": {"name": "real", "tracks": 30, "pcm_sha256": "aa"},
        "other": {"name": "train", "tracks": 60, "pcm_sha256": "bb"},
        "generated": {"name": "made", "tracks": 100, "pcm_sha256": "cc"},
    },
    "draws": {"tracks": 30},
    "embeddings": {"tmr-v1": {"n_fft": 1024, "projection_sha256": "dd"}},
    "distances": {"tmr-v1": {"all": {"frechet": {"value": 7.125, "floor": 3.5}}}},
    "features": {"ltas": {"unit": "dB", "shape_db": 1.0}},
    "memorisation": {"flagged_share": 0.1, "flagged": [{"generated": "x"}]},
}


@pytest.fixture
def pair(tmp_path):
    """Writes two results, the second one with `change` made to it."""

    def make(change=lambda result: None):
        other = copy.deepcopy(RESULT)
        change(other)
        for name, result in (("a", RESULT), ("b", other)):
            (tmp_path / name).mkdir(exist_ok=True)
            results.write(tmp_path / name, result)
        return [tmp_path / "a", tmp_path / "b" / results.RESULT_FILE]

    return make


def test_results_of_one_reference_are_compared(pair):
    def better(result):
        result["sets"]["generated"] = {"name": "made later", "tracks": 100, "pcm_sha256": "ee"}
        result["distances"]["tmr-v1"]["all"]["frechet"]["value"] = 4.25

    table = results.compare(pair(better))
    assert "7.125 (floor 3.5)" in table and "4.25 (floor 3.5)" in table and "made later" in table


@pytest.mark.parametrize(
    "path, value",
    [
        (("context", "sample_rate_hz"), 44100),
        (("context", "clip_samples"), 64000),
        (("context", "channels"), 2),
        (("context", "rendering"), "loudness-matched"),
        (("sets", "reference", "pcm_sha256"), "ff"),
        (("sets", "reference", "tracks"), 31),
        (("draws", "tracks"), 29),
        (("embeddings", "tmr-v1", "projection_sha256"), "ff"),
        (("version",), 2),
    ],
)
def test_results_with_different_settings_are_not_compared(pair, path, value):
    def change(result):
        for name in path[:-1]:
            result = result[name]
        result[path[-1]] = value

    paths = pair(change)
    with pytest.raises(results.ResultError, match=f"not comparable: {'.'.join(path[:2])}"):
        results.compare(paths)
    table = results.compare(paths, allow_mismatch=True)
    assert table.startswith("WARNING") and "7.125" in table


def test_line_is_json_without_the_long_lists(pair):
    line = results.line(RESULT)
    assert "\n" not in line
    content = json.loads(line)
    assert content["memorisation"] == {"flagged_share": 0.1}
    assert content["distances"] == RESULT["distances"]


def test_a_file_without_a_result_raises(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    for path in (tmp_path / "x.json", tmp_path / "missing", tmp_path):
        with pytest.raises(results.ResultError, match="expected the result.json of an evaluation"):
            results.read(path)


def test_nan_is_never_written(tmp_path):
    with pytest.raises(ValueError):
        results.write(tmp_path, {"value": float("nan")})
    assert not list(tmp_path.iterdir())


def test_an_incomplete_result_raises(pair):
    def edit(result):
        result["distances"]["tmr-v1"]["all"]["frechet"] = {}

    with pytest.raises(results.ResultError, match="another form"):
        results.compare(pair(edit))
