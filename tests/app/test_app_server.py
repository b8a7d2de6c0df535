import base64
import http.client
import io
import json
import subprocess
import threading
import time

import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette", reason="pip install -r requirements-app.txt")
from technogen_jax.app import queues, renders, server, sounds
from technogen_jax.audio import audio_files, spectrogram_images

RATE_HZ = 8000


def fetch(served, path, method="GET", body=None, headers=None):
    """(status, headers, body) of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def finished(served, query):
    """The render of a query, when it is done."""
    status, _, body = fetch(served, f"/api/renders?{query}", "POST")
    assert status == 202, body
    render = json.loads(body)
    for _ in range(600):
        render = json.loads(fetch(served, f"/api/renders/{render['id']}")[2])
        if render["state"] in ("done", "failed"):
            return render
        time.sleep(0.1)
    raise AssertionError(render)


@pytest.fixture
def waiting(monkeypatch):
    """Holds every render until the event is set."""
    free, real = threading.Event(), sounds.write

    def held(sound, path, minutes, report):
        for _ in range(600):
            report(0.25)
            if free.wait(0.1):
                break
        real(sound, path, None)

    monkeypatch.setattr(sounds, "write", held)
    yield free
    free.set()


# ------------------------------------------------------------------------------------------------------------- loops


def test_a_loop_is_returned_as_samples_with_a_picture_and_its_loudness(served, pcm_of_7):
    status, headers, body = fetch(served, "/api/loop?seed=7")
    answer = json.loads(body)
    assert status == 200 and answer["rate_hz"] == RATE_HZ and headers["cache-control"] == "no-store"
    pcm = np.frombuffer(base64.b64decode(answer["pcm"]), "<i2").reshape(answer["samples"], answer["channels"])
    np.testing.assert_array_equal(pcm, pcm_of_7)
    levels = np.frombuffer(base64.b64decode(answer["picture"]), np.uint8).reshape(-1, answer["frames"])
    expected = np.clip(spectrogram_images.mel_db(audio_files.from_int16(pcm_of_7), RATE_HZ) / 80 + 1, 0, 1)
    np.testing.assert_allclose(levels / 255, expected, atol=2 / 255)  # pictured before it is rounded to 16 bits
    meter = pytest.importorskip("pyloudnorm", reason="an independent meter").Meter(RATE_HZ)
    assert answer["lufs"] == pytest.approx(meter.integrated_loudness(np.tile(pcm / 32768, (2, 1))), abs=0.2)


def test_curl_saves_a_loop_under_its_name(served, tmp_path, pcm_of_7):
    address = f"{served.url}api/loop.wav?seed=7"
    subprocess.run(["curl", "-fsSOJ", address], cwd=tmp_path, check=True, timeout=60)
    (path,) = tmp_path.iterdir()
    assert path.name == "tiny-134bpm-7.wav"
    np.testing.assert_array_equal(soundfile.read(path, dtype="int16")[0], pcm_of_7)


def test_a_loop_without_parameters_says_what_it_is(served):
    _, headers, first = fetch(served, "/api/loop.flac?label=acid")
    _, _, again = fetch(served, f"/api/loop.flac?{headers['x-technogen-sound']}")
    assert first == again and "label=acid" in headers["x-technogen-sound"]


def test_invalid_requests_return_a_message(served):
    assert fetch(served, "/api/loop?truncation=nan")[::2] == (
        400,
        b"truncation: expected a number from 0.01 to 1, got 'nan'",
    )
    for query, name in (
        ("minutes=1e9", "minutes"),
        ("minutes=", "minutes"),
        ("format=../x", "format"),
        ("bpm=1", "bpm"),
    ):
        status, _, body = fetch(served, f"/api/renders?{query}", "POST")
        assert status == 400 and body.startswith(f"{name}: expected".encode()), body
    assert fetch(served, "/api/loop?model=run")[::2] == (503, b"run cannot be played: run: no checkpoint yet")
    assert fetch(served, "/api/loop.mp3")[0] == 400


def test_the_models_say_how_far_they_are(served):
    about = json.loads(fetch(served, "/api/models")[2])
    tiny, run = about["models"]
    assert tiny["state"] == "ready" and tiny["classes"] == ["acid", "industrial"] and len(tiny["effects"]) == 4
    assert run["state"] == "failed" and run["why"] and about["runs"] == ["run"]


# ------------------------------------------------------------------------------------------------------------- files


def test_curl_makes_a_track_in_two_commands(served, tmp_path):
    curl = ["curl", "-fsS"]
    asked = subprocess.run(
        [*curl, "-X", "POST", f"{served.url}api/renders?seed=7&minutes=0.5&format=flac&bpm=150"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    render = json.loads(asked.stdout)
    subprocess.run([*curl, "-OJ", f"{served.url}api/renders/{render['id']}/file"], cwd=tmp_path, check=True, timeout=60)
    (path,) = tmp_path.iterdir()
    assert path.name == render["name"] and path.name.startswith("tiny-150bpm-7-0.5min")
    assert abs(soundfile.info(path).duration - round(0.5 * 150 / 4) * 240 / 150) < 0.01


def test_each_file_has_its_own_address(served, pcm_of_7):
    made = [finished(served, "seed=7&format=flac") for _ in range(2)]
    assert made[0]["id"] != made[1]["id"] and len(made[0]["id"]) >= 32
    for render in made:
        content = fetch(served, f"/api/renders/{render['id']}/file")[2]
        np.testing.assert_array_equal(soundfile.read(io.BytesIO(content), dtype="int16")[0], pcm_of_7)
        assert fetch(served, f"/api/renders/{render['id']}", "DELETE")[0] == 204
        assert fetch(served, f"/api/renders/{render['id']}/file")[0] == 404


def test_one_client_cannot_fill_the_queue(served, waiting):
    answers = [fetch(served, "/api/renders?seed=1&minutes=20", "POST") for _ in range(10)]
    made = [json.loads(body) for status, _, body in answers if status == 202]
    assert len(made) == renders.MOST_EACH
    assert all(status == 503 and headers["retry-after"] for status, headers, _ in answers[renders.MOST_EACH :])
    began = time.monotonic()
    assert fetch(served, "/api/loop?seed=7")[0] == 200  # loops do not wait for files
    assert time.monotonic() - began < 20
    about = json.loads(fetch(served, f"/api/renders/{made[0]['id']}")[2])
    assert about["share"] == 0.25 and about["state"] == "rendering"
    for render in made:  # the one that is at work too
        assert fetch(served, f"/api/renders/{render['id']}", "DELETE")[0] == 204
    waiting.set()
    assert finished(served, "seed=7")["state"] == "done"


def test_files_of_clients_that_are_gone_are_removed(served, waiting, monkeypatch):
    """Abandoned in the middle of the work, abandoned while waiting, and finished but never fetched."""
    app = app_of(served)
    gone = [json.loads(fetch(served, "/api/renders?seed=2&minutes=1", "POST")[2]) for _ in range(2)]
    monkeypatch.setattr(renders, "ABANDONED_S", 0.0)
    wait_for(lambda: all(fetch(served, f"/api/renders/{render['id']}")[0] == 404 for render in gone))
    monkeypatch.setattr(renders, "ABANDONED_S", 60.0)
    waiting.set()
    finished(served, "seed=2")
    assert app.renders.size_bytes() > 0
    monkeypatch.setattr(renders, "KEPT_S", 0.0)
    wait_for(lambda: app.renders.size_bytes() == 0)


def app_of(served):
    route = next(route for route in served.app.routes if route.path == "/api/models")
    return route.endpoint.__self__


def wait_for(condition):
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")


def test_clients_take_turns():
    import asyncio

    async def work():
        queue, order = queues.FairQueue(6, 5), []

        async def ask(address):
            async with queue.turn(address):
                order.append(address)
                await asyncio.sleep(0)

        async with queue.turn("x"):
            tasks = [asyncio.create_task(ask(address)) for address in "aaaaab"]
            await asyncio.sleep(0)
            for address in "ac":  # its own bound, and that of all
                with pytest.raises(queues.BusyError):
                    queue.check(address)
            tasks[1].cancel()  # a client that leaves
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        async with queue.turn("y"):
            order.append("y")
        return order

    assert asyncio.run(work()) == ["a", "b", "a", "a", "a", "y"]


# ------------------------------------------------------------------------------------------------------ other addresses


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/upload",
        "/file=/etc/passwd",
        "/proxy=http://127.0.0.1/",
        "/docs",
        "/openapi.json",
        "/api/runs/run/501.png",
        "/api/runs/run/..%2F..%2Fconfig.json",
        "/api/runs/%2Fetc/500.png",
        "/api/runs/%2Fetc",
        "/api/renders/..%2F..%2Fetc/file",
        "/assets/..%2F..%2F__init__.py",
        "/assets/../page.py",
        "/assets//etc/passwd",
        "http://example.org/",
        "//example.org/",
    ],
)
def test_other_addresses_are_not_found(served, path):
    assert fetch(served, path)[0] in (404, 421)


def test_other_methods_are_refused(served):
    for path, method in (("/", "POST"), ("/api/loop", "POST"), ("/api/renders", "GET"), ("/api/kept", "DELETE")):
        assert fetch(served, path, method)[0] == 405


def test_kept_sounds_are_the_users_at_every_port(served):
    items = [{"name": "ein Stück ♫", "sound": "model=tiny&seed=7"}]
    assert json.loads(fetch(served, "/api/kept")[2]) == []
    assert fetch(served, "/api/kept", "PUT", json.dumps(items))[0] == 200
    assert json.loads(fetch(served, "/api/kept")[2]) == items
    for wrong in ("x", "{}", "[1]", '[{"name": 1, "sound": ""}]', "[" * 10_000, json.dumps(items * 501)):
        assert fetch(served, "/api/kept", "PUT", wrong)[0] == 400, wrong[:30]
    assert fetch(served, "/api/kept", "PUT", b" " * (server.MOST_BODY_BYTES + 1))[0] == 413
    assert json.loads(fetch(served, "/api/kept")[2]) == items
    assert fetch(served, "/api/kept", "PUT", "[]")[0] == 200


def test_a_training_is_described(served):
    about = json.loads(fetch(served, "/api/runs/run")[2])
    charts = {chart["title"]: chart for chart in about["charts"]}
    assert about["previews"] == [500, 1000] and about["step"] == 1000 and len(charts["Losses"]["points"]) <= 400
    assert (
        not charts["Coverage, regular beat"]["points"]
        and "not been evaluated" in charts["Coverage, regular beat"]["why"]
    )
    assert fetch(served, "/api/runs/run/500.wav")[1]["content-type"] in ("audio/x-wav", "audio/wav")
