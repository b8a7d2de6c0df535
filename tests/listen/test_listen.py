import collections
import contextlib
import http.client
import io
import itertools
import json
import math
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from scipy import stats

from technogen_jax.audio import audio_files, loudness
from technogen_jax.evaluation.clip_sets import ClipSetError
from technogen_jax.listen import __main__ as command
from technogen_jax.listen import answers, listening_test, session, stimuli, verdict

RATE_HZ = 8000
PAIRS, SINGLES, SEED = 4, 2, 3
NEEDED = PAIRS + SINGLES + stimuli.SPARE
SECRET = re.compile(rb"human-secret|robot-secret|early-secret|anchor|repeat|truth|real/|generated|\.wav", re.I)
z = statistics.NormalDist().inv_cdf


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Loops of 2 s at different levels: real, generated, and noise that is known to be bad."""
    root = tmp_path_factory.mktemp("loops")
    random = np.random.default_rng(0)
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    for side, name in (("real", "human-secret"), ("made", "robot-secret"), ("bad", "early-secret")):
        (root / side).mkdir()
        for number in range(NEEDED if side != "bad" else 2):
            kick = np.sin(2 * np.pi * random.uniform(50, 90) * time_s) * np.exp(-12 * (time_s % 0.5))
            hat = random.standard_normal(len(time_s)) * np.exp(-40 * ((time_s + 0.25) % 0.5))
            loop = random.uniform(0.05, 0.3) * (kick + 0.4 * hat) + (0.01 if side == "bad" else 0)
            audio_files.write(root / side / f"{name}-{number}.wav", loop, RATE_HZ)
    return root


@pytest.fixture(scope="module")
def sounds_of_test(folders):
    sets = stimuli.open_sets([folders / side for side in ("real", "made", "bad")])
    return stimuli.prepare(*sets, least_pairs=PAIRS + SINGLES, beats=4, seed=SEED)


def plan(sounds_of_test, listeners, delta=0.1):
    return {
        "listeners": listeners,
        "pairs": PAIRS,
        "singles": SINGLES,
        "delta": delta,
        "seed": SEED,
        "trials": len(session.draw(sounds_of_test, SEED, 0, PAIRS, SINGLES)),
        "matched": sounds_of_test.matched,
        "seconds": 2.0,
    }


class Client:
    """One listener's requests, and all that came back."""

    def __init__(self, port, link):
        self.connection, self.link, self.received = http.client.HTTPConnection("127.0.0.1", port, timeout=300), link, []

    def ask(self, path, body=None, raw=None):
        data = raw if body is None else json.dumps(body).encode()
        self.connection.request("GET" if data is None else "POST", f"/{self.link}{path}", data)
        reply = self.connection.getresponse()
        content = reply.read()
        head = str(reply.getheaders()).encode()
        self.received.append(head + (b"" if content[:4] == b"RIFF" else content))
        return reply.status, content

    def state(self):
        return json.loads(self.ask("/state")[1])

    def begin(self, producer=False):
        status, content = self.ask("/begin", {"sound": "headphones", "producer": producer, "years": 0})
        assert status == 200, content

    def answer(self, trial, choice, changed=()):
        single = choice in ("real", "generated")
        body = {
            "trial": trial,
            "answer": choice,
            "confidence": 3 if single else None,
            "rt_ms": 6000,
            "heard_s": [3.5] * (1 if single else 2),
            "plays": 1,
            "switches": 2,
        }
        return self.ask("/answer", body | dict(changed))


@contextlib.contextmanager
def served(sounds_of_test, path, listeners, delta=0.1):
    """(port, links) of a test served in this process."""
    uvicorn = pytest.importorskip("uvicorn", reason="pip install -r requirements-app.txt")
    from technogen_jax.listen import server

    links = [f"link-{number}-{'x' * 20}" for number in range(listeners)]
    writer = answers.Writer(path, plan(sounds_of_test, listeners, delta))
    app = server.make_app(sounds_of_test, writer, links=links, key=b"k" * 32, seed=SEED, pairs=PAIRS, singles=SINGLES)
    running = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, server_header=False))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1], links
        finally:
            running.should_exit = True
            thread.join()
            writer.close()


def perfect(trial, random):
    return trial.truth or "left"


def guessing(trial, random):
    """Answers as a listener who notices obvious faults and nothing else."""
    if trial.kind in ("anchor", "bad"):
        return trial.truth
    return random.choice(["left", "right"] if len(trial.clips) == 2 else ["real", "generated"])


def sloppy(trial, random):
    """Answers as a listener who pays no attention."""
    if trial.kind in ("anchor", "bad"):
        return {"left": "right", "right": "left"}[trial.truth] if trial.kind == "anchor" else trial.truth
    return random.choice(["left", "right"] if len(trial.clips) == 2 else ["real", "generated"])


def simulate(sounds_of_test, path, kinds, delta=0.1, seed=0):
    """The report of listeners of those kinds, and all bytes that their browsers got."""
    received = []
    with served(sounds_of_test, path, len(kinds), delta) as (port, links):
        for number, (kind, link) in enumerate(zip(kinds, links, strict=True)):
            client, random = Client(port, link), np.random.default_rng([seed, number])
            client.begin(producer=number % 3 == 0)
            for place, trial in enumerate(session.draw(sounds_of_test, SEED, number, PAIRS, SINGLES)):
                assert client.state()["done"] == place
                status, content = client.answer(place, str(kind(trial, random)))
                assert status == 200, content
            received += client.received
    return verdict.report(answers.read(path)), received


# ----------------------------------------------------------------------------------------------------------- what is sounds_of_test


def test_all_clips_have_one_loudness_and_length_and_loop_without_a_click(sounds_of_test):
    levels = []
    for pcm in sounds_of_test.pcm:
        meter = loudness.LoudnessMeter(RATE_HZ, 1)
        meter.add(np.tile(audio_files.from_int16(pcm), (4, 1)))
        levels.append(loudness.gated_loudness(meter.energies()))
    assert np.ptp(levels) < 0.2  # the rule allows half a LU
    sound = audio_files.from_int16(sounds_of_test.pcm)
    assert np.abs(sound).max() <= 10 ** (-1 / 20) + 1e-4
    own = np.array([s.source in ("real", "generated", "bad") for s in sounds_of_test.sounds])
    np.testing.assert_allclose(sound[own, 0], sound[own, -1], atol=2e-4)
    wavs = [audio_files.encode(pcm, RATE_HZ, ".wav") for pcm in sounds_of_test.pcm]
    assert {(len(wav), wav[:44]) for wav in wavs} == {(44 + 2 * sounds_of_test.pcm.shape[1], wavs[0][:44])}


def test_pairs_have_the_least_total_distance(sounds_of_test):
    used = [
        index
        for pair in [
            *sounds_of_test.pairs,
            sounds_of_test.training,
            *sounds_of_test.anchors,
            *sounds_of_test.good,
            *sounds_of_test.bad,
        ]
        for index in pair
    ]
    assert len(used) == len(set(used)) and len(sounds_of_test.pairs) == PAIRS + SINGLES
    assert all(
        sounds_of_test.sounds[a].source == "real" and sounds_of_test.sounds[b].source == "generated"
        for a, b in sounds_of_test.pairs
    )
    assert [sounds_of_test.sounds[b].source for _, b in sounds_of_test.anchors] == list(stimuli.ANCHORS)
    random = np.random.default_rng(1)
    noise = random.standard_normal((12, 2 * RATE_HZ, 1)) * np.linspace(0.001, 0.1, 12)[:, None, None]
    tone = np.sin(np.arange(2 * RATE_HZ) * np.arange(1, 13)[:, None] / 8)[..., None]
    clips = list(np.float32(0.1 * tone + noise))
    shuffled = random.permutation(12)
    pairs, matched = stimuli._match(clips, [2 * clips[index] for index in shuffled], RATE_HZ, beats=2)
    assert matched and all(shuffled[j] == i for i, j in pairs) and len(pairs) == 12


def test_clips_of_different_tempo_are_not_paired(monkeypatch):
    clips = list(np.float32(np.random.default_rng(0).standard_normal((4, 2 * RATE_HZ, 1))))
    tempos = iter([120.0, 130.0, 140.0, math.nan, 123.0, 138.0, 150.0, 160.0])
    monkeypatch.setattr(stimuli, "_bpm", lambda clip, rate: next(tempos))
    pairs, matched = stimuli._match(clips, clips, RATE_HZ, beats=None)
    assert {(0, 0), (2, 1)} <= set(pairs) and len(pairs) == 3 and not matched


def test_saved_stimuli_load_unchanged(sounds_of_test, tmp_path):
    stimuli.save(tmp_path / "sounds.npz", sounds_of_test)
    found = stimuli.load(tmp_path / "sounds.npz")
    np.testing.assert_array_equal(found.pcm, sounds_of_test.pcm)
    assert found._replace(pcm=0) == sounds_of_test._replace(pcm=0, origin=json.loads(json.dumps(sounds_of_test.origin)))


def test_too_few_tracks_raise_an_error_with_both_counts(folders):
    sets = stimuli.open_sets([folders / "real", folders / "made"])
    with pytest.raises(ClipSetError, match=f"expected at least {NEEDED + 1} tracks .* got {NEEDED}"):
        stimuli.prepare(*sets, None, least_pairs=PAIRS + SINGLES + 1, beats=4, seed=0)


def test_sessions_are_balanced_and_depend_on_the_seed_alone(sounds_of_test):
    sessions = [session.draw(sounds_of_test, SEED, number, PAIRS, SINGLES) for number in range(300)]
    assert sessions[7] == session.draw(sounds_of_test, SEED, 7, PAIRS, SINGLES) != sessions[8]
    used, left, places = collections.Counter(), collections.Counter(), collections.defaultdict(list)
    for trials in sessions:
        kinds = collections.Counter(trial.kind for trial in trials)
        assert kinds == {"pair": 4, "single": 2, "anchor": 4, "good": 2, "bad": 2, "repeat": 2}
        targets = [trial for trial in trials if trial.kind in ("pair", "single")]
        assert len({trial.item for trial in targets}) == len(targets)
        for place, trial in enumerate(trials):
            places[trial.kind].append(place)
            if trial.kind == "pair":
                used[trial.item] += 1
                left[trial.item] += trial.truth == "left"
                assert sounds_of_test.sounds[trial.clips[0 if trial.truth == "left" else 1]].source == "real"
            elif trial.kind == "repeat":
                first = next(one for one in trials if one.kind == "pair" and one.item == trial.item)
                assert trial.clips == first.clips[::-1] and trial.truth != first.truth
                assert trials.index(first) < place
            elif trial.kind == "single":
                assert sounds_of_test.sounds[trial.clips[0]].source == trial.truth
        assert sum(trial.truth == "left" for trial in trials if trial.kind == "pair") == PAIRS // 2
    assert set(used.values()) == {200}
    assert all(70 < count < 130 for count in left.values())  # 100 expected, deviation 7
    assert all(6.2 < np.mean(places[kind]) < 7.6 for kind in ("anchor", "single", "bad", "good"))


# ---------------------------------------------------------------------------------------------------------------- figures


def test_independent_answers_give_the_exact_binomial_interval():
    n, k, delta = 120, 66, 0.1
    found = verdict.share([True] * k + [False] * (n - k), range(n), range(n), delta)
    tail = sum(math.comb(n, i) for i in range(k, n + 1)) / 2**n
    assert found.p_above >= tail - 1e-12 and found.p_above == pytest.approx(tail, abs=0.02)
    assert found.effect == pytest.approx(n / (n - 1))
    lower = sum(math.comb(n, i) * 0.6**i * 0.4 ** (n - i) for i in range(k + 1))
    assert found.p_equivalent == pytest.approx(lower, abs=0.02) and found.p_equivalent >= lower - 1e-12
    assert found.d_prime == pytest.approx(math.sqrt(2) * z((k + 0.5) / (n + 1)))
    assert found.low < k / n - 1.96 * math.sqrt(k / n * (1 - k / n) / n) and found.high < 0.65


def test_two_way_clustered_variance_matches_a_hand_computation():
    random = np.random.default_rng(5)
    listeners, items = (grid.ravel() for grid in np.indices((12, 9)))
    skill = 0.5 + 0.3 * np.linspace(-1, 1, 12)[listeners] + 0.15 * np.linspace(-1, 1, 9)[items]
    right = random.random(108) < skill
    found = verdict.share(right, listeners, items, 0.1)
    rest = right - right.mean()

    def meat(keys):
        groups = sorted(set(keys))
        total = sum(sum(r for r, key in zip(rest, keys, strict=True) if key == group) ** 2 for group in groups)
        return total * len(groups) / (len(groups) - 1) / 108**2

    by_listener, by_item = meat(listeners.tolist()), meat(items.tolist())
    binomial = right.mean() * (1 - right.mean()) / 108
    expected = max(by_listener + by_item - meat(range(108)), by_listener, by_item, binomial)
    assert found.effect == pytest.approx(expected / binomial) and found.effect > 2
    assert found.high - found.accuracy == pytest.approx(2.306004135 * math.sqrt(expected))  # t, 8 degrees of freedom


def test_bootstrap_resamples_listeners_and_items():
    """Where an answer is its listener's, or its item's, alone, a draw's share is a binomial one."""
    columns = [grid.ravel() for grid in np.indices((10, 10))]
    expected = (stats.binom(10, 0.5).ppf([0.025, 0.975]) / 10).tolist()
    for column in columns:
        assert verdict.bootstrap(column < 5, *columns) == pytest.approx(expected)
    assert verdict.bootstrap([True], [3], [4]) == (1, 1)


def test_guessing_listeners_are_rarely_significant_with_clustered_answers():
    random = np.random.default_rng(0)
    listeners, items = (grid.ravel() for grid in np.indices((15, 12)))
    wrong = naive = 0
    for _ in range(200):
        bias = 0.5 + 0.2 * random.standard_normal(15)[listeners] + 0.1 * random.standard_normal(12)[items]
        right = random.random(180) < bias
        wrong += verdict.share(right, listeners, items, 0.1).p_above < 0.05
        naive += right.sum() >= 103  # the exact binomial test's limit
    assert wrong <= 15 < naive  # 5 % would be 10


def test_all_answers_right_or_a_single_listener_give_finite_figures():
    found = verdict.share([True] * 12, [0] * 12, range(12), 0.1)
    assert (found.accuracy, found.high) == (1, 1) and found.p_above == pytest.approx(2**-12)
    assert found.low == pytest.approx(0.025 ** (1 / 12)) and found.p_equivalent == 1
    assert math.isfinite(verdict.share([False], [0], [0], 0.1).d_prime)


def test_detection_figures_match_a_hand_computation():
    says = [True] * 7 + [False] * 3 + [True] * 4 + [False] * 6
    truth = [True] * 10 + [False] * 10
    found = verdict.detection(says, truth, [1] * 20)
    hit, false = z(7.5 / 11), z(4.5 / 11)
    assert found["d_prime"] == pytest.approx(hit - false) and found["criterion"] == pytest.approx(-(hit + false) / 2)
    assert found["auc"] == pytest.approx(0.7 * 0.6 + 0.5 * (0.7 * 0.4 + 0.3 * 0.6))
    assert verdict.detection([True], [True], [1]) is None


def test_number_of_answers_for_equivalence_matches_the_formula():
    assert [verdict.trials_for_equivalence(delta) for delta in (0.05, 0.1)] == [857, 215]
    assert verdict.trials_for_equivalence(0.1, 2.0) in (428, 429)


# -------------------------------------------------------------------------------------------------------------- listeners


def test_attentive_listeners_give_level_0_and_no_response_reveals_the_truth(sounds_of_test, tmp_path):
    found, received = simulate(sounds_of_test, tmp_path / "a.jsonl", [perfect] * 3)
    assert found["claim"]["level"] == "L0" and "listeners distinguish generated from real" in found["claim"]["sentence"]
    pairs = found["pairs"]["included"]
    assert (pairs["correct"], pairs["trials"], pairs["accuracy"]) == (12, 12, 1)
    assert pairs["p_above"] == pytest.approx(2**-12)
    assert found["singles"]["included"]["auc"] == 1 and found["known_bad"] == {"kind": "bad", "trials": 6, "correct": 6}
    assert [one["agreed"] for one in found["by_listener"]] == [[2, 2]] * 3
    assert not [content for content in received if SECRET.search(content)]


def test_guessing_listeners_give_level_3_and_twenty_of_them_level_4(sounds_of_test, tmp_path):
    few, _ = simulate(sounds_of_test, tmp_path / "few.jsonl", [guessing] * 4, seed=1)
    assert few["claim"]["level"] == "L3" and "indistinguishable" not in few["claim"]["sentence"]
    assert [line.split()[0] for line in few["claim"]["missing_for_L4"]] == ["an", "20"]
    assert few["more"]["for_equivalence"]["trials"] >= 215
    many, _ = simulate(sounds_of_test, tmp_path / "many.jsonl", [guessing] * 20, delta=0.25, seed=1)
    assert many["claim"]["level"] == "L4" and many["pairs"]["included"]["trials"] == 80
    words = "Generated loops of 2 s are indistinguishable from real ones for 20 listeners, 7 of them producers"
    assert many["claim"]["sentence"].startswith(words)
    unmatched = json.loads((tmp_path / "many.jsonl").read_text().splitlines()[0]) | {"matched": False}
    lines = [unmatched, *answers.read(tmp_path / "many.jsonl")[1:]]
    assert verdict.report(lines)["claim"]["missing_for_L4"] == ["pairs known to have the same tempo (give --beats)"]


def test_inattentive_listeners_are_excluded_with_a_reason(sounds_of_test, tmp_path):
    found, _ = simulate(sounds_of_test, tmp_path / "a.jsonl", [perfect, sloppy, perfect, perfect])
    assert found["listeners"] == {"planned": 4, "began": 4, "finished": 4, "included": 3}
    assert found["by_listener"][1]["left_out"] == ["recognized 0 of 4 obvious faults"]
    assert found["pairs"]["included"]["trials"] == 12 and found["pairs"]["all"]["trials"] == 16
    assert "Excluded, listener 2: recognized 0 of 4 obvious faults." in verdict.text(found)
    assert "recognized 0 of 4 obvious faults" in verdict.page(found)


def test_no_conclusion_if_known_bad_clips_are_missed(sounds_of_test, tmp_path):
    def deaf(trial, random):
        flip = {"left": "right", "right": "left"}
        return flip[trial.truth] if trial.kind == "bad" else guessing(trial, random)

    found, _ = simulate(sounds_of_test, tmp_path / "a.jsonl", [deaf, guessing])
    assert found["claim"]["level"] == "L0" and "inconclusive, listeners recognized 2 of 4" in found["claim"]["sentence"]


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"answer": "left"}, "always chose one side"),
        ({"rt_ms": 900}, "answered after 0.9 s (median)"),
        ({"heard_s": [0.5, 9.0]}, "12 answers before 2 s of a clip were played"),
    ],
)
def test_each_exclusion_rule_applies(sounds_of_test, changed, reason):
    test = plan(sounds_of_test, 1) | {"what": "test", "trials": 12}
    lines = [
        {
            "what": "answer",
            "listener": 0,
            "trial": trial,
            "kind": kind,
            "item": trial,
            "clips": ["a", "b"],
            "truth": side,
        }
        | {"answer": side, "rt_ms": 5000, "heard_s": [3, 3], "confidence": None}
        | (changed if kind == "pair" or "answer" not in changed else {"answer": "left"})
        for trial, (kind, side) in enumerate(itertools.product(["pair"] * 4 + ["anchor"] * 2, ["left", "right"]))
    ]
    reasons = verdict.report([test, *lines], final=True)["by_listener"][0]["left_out"]
    assert any(reason in one for one in reasons)
    clean = [line | {"answer": line["truth"], "rt_ms": 5000, "heard_s": [3, 3]} for line in lines]
    assert not verdict.report([test, *clean], final=True)["by_listener"][0]["left_out"]


def test_no_claim_before_all_listeners_have_finished(sounds_of_test, tmp_path):
    with served(sounds_of_test, tmp_path / "a.jsonl", 2) as (port, links):
        client = Client(port, links[0])
        client.begin()
        for place, trial in enumerate(session.draw(sounds_of_test, SEED, 0, PAIRS, SINGLES)):
            client.answer(place, trial.truth or "left")
        assert client.state()["result"] == {"right": 4, "of": 4}
    lines = answers.read(tmp_path / "a.jsonl")
    assert "the test is not over, 1 of 2" in verdict.report(lines)["claim"]["sentence"]
    assert "not over" not in verdict.report(lines, final=True)["claim"]["sentence"]


# ---------------------------------------------------------------------------------------------------------------- answers


def test_unfinished_lines_are_dropped_and_a_second_writer_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    writer = answers.Writer(path, {"seed": 1})
    with pytest.raises(answers.AnswersError, match="another server is writing"):
        answers.Writer(path, {"seed": 1})
    writer.append({"what": "answer", "trial": 0})
    writer.close()
    with open(path, "ab") as file:
        file.write(b'{"what": "answer", "tri')
    assert len(answers.read(path)) == 2
    writer = answers.Writer(path, {"seed": 1})
    writer.append({"what": "answer", "trial": 1})
    writer.close()
    assert [line.get("trial") for line in answers.read(path)] == [None, 0, 1]
    with pytest.raises(answers.AnswersError, match="the answers of another test"):
        answers.Writer(path, {"seed": 2}).close()
    path.write_bytes(path.read_bytes().replace(b'"trial": 0}', b'"trial": 0'))
    with pytest.raises(answers.AnswersError, match="line 2: damaged"):
        answers.read(path)


def test_an_answer_that_cannot_be_written_is_not_counted(sounds_of_test, tmp_path, monkeypatch):
    with served(sounds_of_test, tmp_path / "a.jsonl", 1) as (port, links):
        client = Client(port, links[0])
        client.begin()
        first = session.draw(sounds_of_test, SEED, 0, PAIRS, SINGLES)[0].truth or "left"
        before = (tmp_path / "a.jsonl").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "full")))
            assert client.answer(0, first)[0] == 503
        assert (tmp_path / "a.jsonl").read_bytes() == before and client.state()["done"] == 0
        assert client.answer(0, first)[0] == 200
        assert client.answer(0, first)[0] == 200  # sent twice, written once
    assert sum(line["what"] == "answer" for line in answers.read(tmp_path / "a.jsonl")) == 1


def test_invalid_requests_are_refused_and_other_addresses_are_not_found(sounds_of_test, tmp_path):
    with served(sounds_of_test, tmp_path / "a.jsonl", 2) as (port, links):
        client, other = Client(port, links[0]), Client(port, links[1])
        trial = session.draw(sounds_of_test, SEED, 0, PAIRS, SINGLES)[0]
        good = trial.truth or "left"
        assert client.answer(0, good)[0] == 400  # before the beginning
        assert client.ask("/begin", {"sound": "radio", "producer": True, "years": 1})[0] == 400
        assert client.ask("/begin", {"sound": "speakers", "producer": True, "years": math.nan})[0] == 400
        client.begin()
        for changed in (
            {"trial": 1},
            {"trial": 0.5},
            {"trial": -1},
            {"trial": True},
            {"answer": "../x"},
            {"answer": ["left"]},
            {"confidence": 9},
            {"rt_ms": math.inf},
            {"rt_ms": -1},
            {"rt_ms": 10**400},
            {"heard_s": [math.nan, 1][: len(trial.clips)]},
            {"heard_s": [1] * 3},
            {"heard_s": 3},
            {"extra": 1},
        ):
            status, content = client.answer(0, good, changed)
            assert status == 400 and len(content) < 200, changed
        for raw in (b"", b"[]", b"{", b"\xff", b"[" * 4000, b" " * 5000):
            assert client.ask("/answer", raw=raw)[0] in (400, 413)
        # Sounds: only those of the question that is asked, by an address that is this listener's own.
        state = client.state()
        status, wav = client.ask(f"/sound/{state['clips'][0]}")
        pcm, rate = soundfile.read(io.BytesIO(wav), dtype="int16", always_2d=True)
        np.testing.assert_array_equal(pcm, sounds_of_test.pcm[trial.clips[0]])
        assert status == 200 and rate == RATE_HZ
        assert other.ask(f"/sound/{state['clips'][0]}")[0] == 404
        assert client.answer(0, good)[0] == 200
        assert client.ask(f"/sound/{state['clips'][0]}")[0] == 404
        for path in (
            "/sound/../state",
            "/sound/%2e%2e%2fanswers.jsonl",
            "/sound/é".encode().decode("latin-1"),
            "/x",
            "/sound/",
        ):
            assert client.ask(path.replace("Ã©", "%C3%A9"))[0] == 404, path
        for link in ("", "x", "..", "page.html", "answers.jsonl", "link-0-"):
            assert Client(port, link).ask("")[0] == 404 and Client(port, link).ask("/state")[0] == 404
        assert len(answers.read(tmp_path / "a.jsonl")) == 3


# ---------------------------------------------------------------------------------------------------------- the command


@contextlib.contextmanager
def running(folders, output):
    """(port, links, process) of the command."""
    pytest.importorskip("uvicorn", reason="pip install -r requirements-app.txt")
    words = ["--real", folders / "real", "--generated", folders / "made", "--output", output, "--listeners", 1]
    words += ["--pairs", PAIRS, "--singles", SINGLES, "--beats", 4, "--seed", SEED, "--port", 0]
    process = subprocess.Popen(
        [sys.executable, "-m", "technogen_jax.listen", *map(str, words)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        links = []
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/(\S+)", line):
                links.append(found.groups())
            if line.startswith("Then"):
                break
        assert links, "the command ended"
        yield int(links[0][0]), [link for _, link in links], process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    "available, pairs, singles, chosen",
    [
        (5, None, None, (4, 1)),
        (100, None, None, (12, 4)),
        (1, None, None, (1, 0)),
        (10, 6, None, (6, 2)),
        (7, 6, None, (6, 1)),
        (10, None, 0, (10, 0)),
        (9, 5, 4, (5, 4)),
    ],
)
def test_the_default_number_of_pairs_fits_the_loops(available, pairs, singles, chosen):
    assert listening_test.choose_lengths(available, pairs, singles) == chosen


def test_sixteen_loops_a_side_are_enough_for_the_defaults(tmp_path):
    rng, beat = np.random.default_rng(0), 4000
    for side in ("real", "made"):
        (tmp_path / side).mkdir()
        for index in range(16):
            loop = rng.normal(0, 0.05, 4 * beat) + np.tile(np.exp(-np.arange(beat) / 300), 4) * rng.uniform(0.3, 0.6)
            audio_files.write(tmp_path / side / f"{index}.wav", np.float32(loop), 8000)
    words = [
        "--real",
        str(tmp_path / "real"),
        "--generated",
        str(tmp_path / "made"),
        "--output",
        str(tmp_path / "test"),
    ]
    options = command.parse_options([*words, "--beats", "4"])
    asked = listening_test.Plan(**{name: getattr(options, name) for name in listening_test.Plan._fields})
    test, writer = listening_test.open_test(tmp_path / "test", asked)
    writer.close()
    header = test["header"]
    assert (header["pairs"], header["singles"]) == (4, 1)
    trials = session.draw(stimuli.load(tmp_path / "test" / listening_test.SOUNDS_FILE), 0, 0, 4, 1)
    assert len(trials) == header["trials"]
    clips = sum(len(trial.clips) for trial in trials)
    assert session.estimate_minutes(trials, 2.0) == round((4 * clips + 5 * len(trials)) / 60)
    listening_test.open_test(tmp_path / "test", asked)[1].close()  # the same command resumes it


def test_a_killed_server_loses_no_answer_and_resumes(folders, tmp_path, capsys):
    with running(folders, tmp_path / "test") as (port, links, process):
        client = Client(port, links[0])
        client.begin(producer=True)
        sounds_of_test = stimuli.load(tmp_path / "test" / listening_test.SOUNDS_FILE)
        trials = session.draw(sounds_of_test, SEED, 0, PAIRS, SINGLES)
        for place in range(5):
            assert client.answer(place, trials[place].truth or "left")[0] == 200
        before = client.state()
        process.send_signal(signal.SIGKILL)
        process.wait()
    test = json.loads((tmp_path / "test" / listening_test.TEST_FILE).read_text())
    assert (tmp_path / "test" / listening_test.TEST_FILE).stat().st_mode & 0o77 == 0
    with running(folders, tmp_path / "test") as (port, again, process):
        assert again == links == test["links"]
        client = Client(port, links[0])
        assert client.state() == before and before["done"] == 5
        for place in range(5, len(trials)):
            assert client.answer(place, trials[place].truth or "left")[0] == 200
        client.connection.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 0
    assert command.main(["--report", str(tmp_path / "test")]) == 0
    assert "Pairs, after exclusions: 4 of 4 right" in capsys.readouterr().out
    result = json.loads((tmp_path / "test" / "report.json").read_text())
    assert result["listeners"]["finished"] == 1 and result["groups"]["producers"]["correct"] == 4
    assert (tmp_path / "test" / "report.html").read_text().startswith("<!doctype html>")
    words = ["--real", str(folders / "real"), "--generated", str(folders / "made"), "--output", str(tmp_path / "test")]
    assert command.main([*words, "--port", "0"]) == 1
    assert "holds another test (--listeners was 1" in capsys.readouterr().err
    assert test["key"] not in (tmp_path / "test" / "answers.jsonl").read_text()


def test_missing_packages_are_reported_with_the_install_command(tmp_path, monkeypatch, capsys):
    for name in ("uvicorn", "starlette"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "technogen_jax.common.web_server", raising=False)  # of other tests
    monkeypatch.delattr("technogen_jax.common.web_server", raising=False)
    assert command.main(["--real", "x", "--generated", "y", "--output", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and "pip install -r requirements-app.txt" in shown
    (tmp_path / answers.ANSWERS_FILE).write_text('{"what": "nothing"}\n')
    assert command.main(["--report", str(tmp_path)]) == 1
    assert "expected a header of schema 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [[], ["--real", "a"], ["--real", "a", "--generated", "b", "--output", "c", "--delta", "nan"]]
)
def test_invalid_options_exit_with_status_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        command.parse_options(words)
    assert ended.value.code == 2 and "expected" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------ the browser


def test_a_complete_test_works_with_the_keyboard_alone(sounds_of_test, tmp_path, browser):
    wrong, received, pictures = [], [], os.environ.get("TECHNOGEN_SCREENSHOTS")
    with served(sounds_of_test, tmp_path / "a.jsonl", 1) as (port, links):
        context = browser.new_context(viewport={"width": 390, "height": 844})
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
        page.on("request", lambda one: None if f"127.0.0.1:{port}" in one.url else wrong.append(one.url))

        def pass_on(route):
            reply = route.fetch()
            received.append(f"{route.request.url} {reply.headers} ".encode() + reply.body())
            route.fulfill(response=reply)

        page.route("**/*", pass_on)
        # The clock of the page alone runs faster: two seconds of a clip have to be sounds_of_test before an answer counts.
        page.set_default_timeout(300_000)
        page.add_init_script("const now = performance.now.bind(performance); performance.now = () => 20 * now();")
        page.goto(f"http://127.0.0.1:{port}/{links[0]}")
        page.wait_for_selector("#welcome:visible")

        def shoot(name):
            if pictures:
                for width, height in ((390, 844), (1280, 800)):
                    page.set_viewport_size({"width": width, "height": height})
                    page.screenshot(path=str(pathlib.Path(pictures) / f"{name}-{width}.png"))

        def hear(two):
            page.wait_for_function("() => Boolean(listening.player)")
            page.keyboard.press("ArrowLeft")
            page.wait_for_function("() => listening.player.secondsPlayed()[0] >= 2")
            if two:
                page.keyboard.press("ArrowRight")
                page.wait_for_function("() => listening.player.secondsPlayed()[1] >= 2")

        shoot("welcome")
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.querySelector('#question').textContent.includes('examples')")
        hear(True)
        shoot("training")
        page.keyboard.press("Enter")
        trials = session.draw(sounds_of_test, SEED, 0, PAIRS, SINGLES)
        for place, trial in enumerate(trials):
            page.wait_for_function(
                f"() => document.querySelector('#count').textContent === '{place + 1} of {len(trials)}'"
            )
            page.wait_for_function("() => Boolean(listening.player)")
            if place == 0:
                page.keyboard.press("1")  # not yet: nothing was sounds_of_test
                page.keyboard.press("Enter")
                assert page.is_disabled("#next")
            hear(len(trial.clips) == 2)
            if place in (0, 1):
                found = page.evaluate(
                    "listening.player.buffers.map((b) => Array.from({length: b.numberOfChannels}, (_, c) => [...b.getChannelData(c)]))"
                )
                for clip, index in zip(found, trial.clips, strict=True):
                    np.testing.assert_array_equal(np.float32(clip).T, sounds_of_test.pcm[index] / np.float32(32768))
                assert page.evaluate("listening.player.sources.every((s) => s.loop && s.context.sampleRate === 8000)")
                rounds = page.evaluate("""async () => {
                  const [buffer] = listening.player.buffers;
                  const context = new OfflineAudioContext(1, 3 * buffer.length, buffer.sampleRate);
                  const source = new AudioBufferSourceNode(context, { buffer, loop: listening.player.sources[0].loop });
                  source.connect(context.destination); source.start();
                  return [...(await context.startRendering()).getChannelData(0)];
                }""")
                np.testing.assert_array_equal(np.float32(rounds), np.tile(np.float32(found[0][0]), 3))
            if place == 2:
                page.reload()  # goes on where it was
                page.wait_for_function(f"() => document.querySelector('#count').textContent === '3 of {len(trials)}'")
                hear(len(trial.clips) == 2)
            keys = {"left": "1", "right": "2", "real": "1", "generated": "5", None: "2"}
            page.keyboard.press(keys[trial.truth])
            if place in (0, 1) or trial.kind == "single":
                shoot("pair" if len(trial.clips) == 2 else "single")
            text = page.inner_text("body").lower()
            assert "right" not in text and "correct" not in text and "wrong" not in text
            page.keyboard.press("Enter")
        page.wait_for_selector("#end:visible")
        assert "4 of 4 pairs" in page.inner_text("#result")
        shoot("end")
        assert len(received) > 3 * len(trials)
        told = [text for text in received if re.search(r"secret|anchor|truth", text.decode("latin-1"))]
        assert not [text[:200] for text in told]
        context.close()
    assert not wrong
    found = verdict.report(answers.read(tmp_path / "a.jsonl"))
    assert found["by_listener"][0]["left_out"] == [] and found["pairs"]["included"]["correct"] == PAIRS
