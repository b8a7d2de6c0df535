import base64
import concurrent.futures
import contextlib
import copy
import io
import json
import math
import os
import threading
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest
import soundfile
from helpers.endless_model import model

from technogen_jax.app import __main__ as command
from technogen_jax.app import request_filter, sounds, temporary_files, training_view
from technogen_jax.audio import audio_files, spectrogram_images
from technogen_jax.runs.metrics_log import METRICS_FILE
from technogen_jax.runs.workdir import CONFIG_FILE, SAMPLES_FOLDER
from technogen_jax.sampling import arrangement, generator, latent_directions

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.*")
RATE_HZ = 8000
SEED_7 = {"seed": 7, "label": None, "truncation": 1, "moves": []}
ASKED = {"model": "tiny", "start": SEED_7, "end": None, "share": 0}


def changed(content, path, value):
    """A copy of nested dicts with one value replaced."""
    content = copy.deepcopy(content)
    *folders, last = path.split(".")
    for folder in folders:
        content[folder] = content[folder] if content[folder] is not None else copy.deepcopy(SEED_7)
    inner = content
    for folder in folders:
        inner = inner[folder]
    inner[last] = value
    return content


@pytest.fixture(scope="module")
def playable():
    """A TechnoGAN of one bar, two classes, 8 kHz, random networks."""
    trained = model(1)
    shape = trained.config.audio
    bpm = 240 * shape.sample_rate_hz / shape.clip_samples
    return sounds.PlayableModel("tiny", trained, latent_directions.find(trained.gan, trained.params, sounds.MOVES), bpm)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a training that has previews and metrics and no checkpoint yet; a killed run left half a line."""
    folder = tmp_path_factory.mktemp("run")
    (folder / CONFIG_FILE).write_text("{}")
    lines = [{"step": step, "d/adversarial": 1 / step, "g/adversarial": math.nan} for step in range(1, 1001)]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 2000, "d/adv'
    (folder / METRICS_FILE).write_text(text)
    (folder / SAMPLES_FOLDER).mkdir()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 1)).astype(np.float32)
    for step in (500, 1000):
        path = folder / SAMPLES_FOLDER / f"step{step:08d}.png"
        spectrogram_images.write_contact_sheet(path, [noise], RATE_HZ)
        audio_files.write(path.with_suffix(".wav"), noise, RATE_HZ)
    return folder


@pytest.fixture(scope="module")
def served(playable, run):
    """The page, served on loopback."""
    pytest.importorskip("gradio", reason="pip install -r requirements-app.txt")
    from technogen_jax.app import page

    page = page.serve({"tiny": playable}, {"run": run})
    yield page
    page.close(verbose=False)


def fetch(served, path, content=None, method=None, raw=None):
    """(status, body) of a request."""
    data = raw if content is None else json.dumps(content).encode()
    headers = {"Content-Type": "application/json"} if data is not None else {}
    asked = urllib.request.Request(served.local_url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def call(served, name, asked):
    """(whether it was made, what it says)."""
    status, body = fetch(served, f"gradio_api/call/{name}", {"data": [asked]})
    if status != 200:
        return False, body.decode()
    _, events = fetch(served, f"gradio_api/call/{name}/{json.loads(body)['event_id']}")
    event, data = events.decode().strip().split("\n\n")[-1].split("\n")
    data = json.loads(data.removeprefix("data: "))
    return event == "event: complete", data[0] if event == "event: complete" else data["error"]


def pcm_of(made):
    return np.frombuffer(base64.b64decode(made["pcm"]), "<i2").reshape(made["samples"], made["channels"])


def clip_of_seed(playable, seed, **options):
    return next(generator.render(playable.trained, generator.draw_latents(playable.trained.gan, seed, [0], **options)))


@pytest.fixture(scope="module")
def pcm_of_7(playable):
    """What `technogen_jax.sample` writes for seed 7, int16 `[T, C]`."""
    return audio_files.to_int16(clip_of_seed(playable, 7))


# ------------------------------------------------------------------------------------------- what may be asked for


@pytest.mark.parametrize(
    "path, value",
    [
        ("model", "/etc/passwd"),
        ("model", ["tiny"]),
        ("share", math.nan),
        ("share", 1.01),
        ("share", True),
        ("start", None),
        ("start", [1, 2]),
        ("end", "B"),
        ("end.seed", -1),
        ("start.seed", 2**32),
        ("start.seed", 0.5),
        ("start.seed", 10**400),
        ("start.seed", "7"),
        ("start.seed", math.inf),
        ("start.truncation", 0),
        ("start.truncation", math.nan),
        ("start.truncation", -math.inf),
        ("start.moves", [math.nan]),
        ("start.moves", [2.1]),
        ("start.moves", [0] * 9),
        ("start.moves", {"0": 1}),
        ("start.moves", "00"),
        ("start.label", "acid"),
        ("start.label", {"polka": 1}),
        ("start.label", {"acid": 0}),
        ("start.label", {"acid": -1}),
        ("start.label", {"acid": math.nan}),
        ("start.label", {}),
        ("start.label", {"acid": 1, "industrial": 1, "x" * 10_000: 1}),
        ("start.path", "../x"),
    ],
)
def test_values_out_of_bounds_are_refused_in_one_short_line(playable, path, value):
    with pytest.raises(sounds.RequestError) as refused:
        sounds.read_sound(changed(ASKED, path, value), {"tiny": playable})
    assert len(str(refused.value)) < 300 and "\n" not in str(refused.value)


@pytest.mark.parametrize("asked", [None, 7, "loop", [], {}, {**ASKED, "workdir": "/tmp"}])
def test_requests_with_wrong_fields_are_refused(playable, asked):
    with pytest.raises(sounds.RequestError, match="expected the fields end, model, share, start"):
        sounds.read_sound(asked, {"tiny": playable})


def test_tempo_has_bounds_and_needs_clips_of_whole_bars(playable):
    assert sounds.read_tempo(None, playable) is None and sounds.read_tempo(140, playable) == 140
    for bpm in (math.nan, 10, 1e9, "140", True):
        with pytest.raises(sounds.RequestError, match="bpm: expected a number from 93"):
            sounds.read_tempo(bpm, playable)
    with pytest.raises(sounds.RequestError, match="not whole bars"):
        sounds.read_tempo(140, playable._replace(bpm=None))


# ------------------------------------------------------------------------------------------------------------- sounds


def test_a_loop_equals_the_clip_that_sample_makes_from_the_seed(playable):
    label = {"acid": 0.25, "industrial": 0.75}
    expected = clip_of_seed(playable, 3, truncation=0.5, label=label)
    np.testing.assert_array_equal(
        sounds.loop_of(sounds.Sound(playable, sounds.Recipe(3, label, 0.5, (0, 0)))), expected
    )


def test_moves_follow_the_directions_and_a_morph_interpolates(playable):
    start, end = sounds.Recipe(1, {"acid": 1.0}, 1.0, (0.5, 0, -2)), sounds.Recipe(2, {"industrial": 1.0}, 1.0, ())
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
    recipe = sounds.Recipe(7, None, 1.0, ())
    np.testing.assert_array_equal(np.concatenate(list(sounds.track_of(sounds.Sound(playable, recipe), 16))), expected)
    other = np.concatenate(list(sounds.track_of(sounds.Sound(playable, recipe._replace(moves=(1.0,))), 16)))
    assert np.abs(other - expected).max() > 0.01


def test_another_tempo_changes_the_speed_and_the_loop_stays_seamless(playable, tmp_path, pcm_of_7):
    sound = sounds.Sound(playable, sounds.Recipe(7, None, 1.0, ()))
    sounds.write(sound, tmp_path / "own.wav", None, None)
    sounds.write(sound, tmp_path / "fast.flac", playable.bpm * 1.25, None)
    own, fast = (soundfile.read(tmp_path / name)[0] for name in ("own.wav", "fast.flac"))
    np.testing.assert_array_equal(own, pcm_of_7 / 32768)
    assert len(fast) == round(len(own) / 1.25)
    # What lies below half the rate in both is the same around the circle, up to 16 bits.
    spectra = [np.fft.rfft(side, axis=0)[: len(fast) // 2] / len(side) for side in (own, fast)]
    assert np.linalg.norm(spectra[0] - spectra[1]) < 1e-3 * np.linalg.norm(spectra[0])

    sounds.write(sound, tmp_path / "track.wav", playable.bpm * 0.8, 0.5)
    bars = round(0.5 * playable.bpm * 0.8 / 4)
    assert abs(soundfile.info(tmp_path / "track.wav").frames - bars * len(own) / 0.8) <= 2


def test_models_get_unique_names():
    assert sounds.names_of(["a/run", "b/run", "c/model.npz", "d/run"]) == ["run", "run (2)", "model", "run (3)"]


# -------------------------------------------------------------------------------------------------------------- files


def test_temporary_files_are_private_and_expire(monkeypatch):
    timers = []

    class Timer(threading.Timer):
        def start(self):
            timers.append(self)

    monkeypatch.setattr(threading, "Timer", Timer)
    files = temporary_files.TemporaryFiles(kept_s=60, most_bytes=100)
    tokens = [files.put("loop.wav", 40, lambda path: path.write_bytes(b"x" * 40)) for _ in range(2)]
    paths = [files.find(token).path for token in tokens]
    assert tokens[0] != tokens[1] and len(tokens[0]) >= 32 and paths[0].suffix == ".wav"
    assert paths[0].parent.stat().st_mode & 0o77 == 0
    with pytest.raises(temporary_files.StorageFullError, match="try again in 1 minutes"):
        files.put("loop.wav", 40, lambda path: pytest.fail("written"))
    timers[0].function(*timers[0].args)
    assert files.find(tokens[0]) is None and not paths[0].exists() and paths[1].exists()
    files.close()
    assert not paths[1].parent.exists()


def test_only_existing_previews_are_served(run):
    runs = {"run": run}
    assert training_view.previews(run) == [500, 1000]
    assert training_view.preview_file(runs, "run", "500", ".wav").is_file()
    for asked in (("run", "501", ".png"), ("run", "../500", ".png"), ("run", "٥٠٠", ".png"), (str(run), "500", ".png")):
        assert training_view.preview_file(runs, *asked) is None
    assert training_view.preview_file(runs, "run", "500", ".json") is None


def test_curves_are_thinned_and_unfinished_lines_are_skipped(run, tmp_path):
    losses = training_view.curves(run)["Losses"]
    assert len(losses) <= 400 and losses[-1] == (1000, 0.001, "d/adversarial")
    assert all(math.isfinite(value) for _, value, _ in losses)
    assert not any(training_view.curves(tmp_path).values())


# ----------------------------------------------------------------------------------------------------------- the server


def test_the_loop_call_returns_the_samples(served, playable, pcm_of_7):
    made, answer = call(served, "loop", ASKED)
    assert made and answer["rate_hz"] == RATE_HZ
    np.testing.assert_array_equal(pcm_of(answer), pcm_of_7)
    levels = np.frombuffer(base64.b64decode(answer["picture"]), np.uint8).reshape(-1, answer["frames"])
    expected = np.clip(spectrogram_images.mel_db(audio_files.from_int16(pcm_of_7), RATE_HZ) / 80 + 1, 0, 1)
    np.testing.assert_allclose(levels / 255, expected, atol=2 / 255)  # pictured before it is rounded to 16 bits


def test_invalid_requests_return_a_message(served):
    raw = json.dumps({"data": [changed(ASKED, "start.truncation", math.nan)]})
    assert "NaN" in raw
    assert call(served, "loop", changed(ASKED, "start.truncation", math.nan)) == (
        False,
        "truncation: expected a number from 0.01 to 1, got nan",
    )
    asked = {"sound": ASKED, "format": "wav", "bpm": None, "minutes": None}
    for field, value in (("minutes", 1e9), ("minutes", math.nan), ("format", "../x"), ("format", ["wav"]), ("bpm", 1)):
        made, message = call(served, "file", {**asked, field: value})
        assert not made and message.startswith(f"{field}: expected"), message
    assert call(served, "file", [asked]) == (False, "file: expected the fields sound, format, bpm, minutes")


def test_each_file_has_its_own_download_address(served, pcm_of_7):
    asked = {"sound": ASKED, "format": "flac", "bpm": None, "minutes": None}
    addresses = [call(served, "file", asked)[1]["address"] for _ in range(2)]
    assert addresses[0] != addresses[1]
    for address in addresses:
        pcm, _ = soundfile.read(io.BytesIO(fetch(served, address)[1]), dtype="int16")
        np.testing.assert_array_equal(pcm, pcm_of_7)
    for address in ("download/", "download/x", f"{addresses[0]}/../x", "download/..%2F..%2Fetc%2Fpasswd"):
        assert fetch(served, address)[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/passwd",
        "gradio_api/file=http://127.0.0.1/",
        "gradio_api/proxy=http://127.0.0.1/",
        "gradio_api/runs",
        "gradio_api/run-history/buckets",
        "gradio_api/deep_link",
        "gradio_api/component_server",
        "gradio_api/run/loop",
        "monitoring",
        "docs",
        "preview/run/501.png",
        "preview/run/..%2F..%2Fconfig.json",
        "preview/%2Fetc/500.png",
        "assets/..%2F..%2F..%2F__init__.py",
    ],
)
def test_other_addresses_are_not_found(served, path):
    assert fetch(served, path)[0] in (400, 403, 404)


def test_uploads_are_refused(served):
    status, _ = fetch(served, "gradio_api/upload", raw=b"--x\r\n", method="POST")
    assert status == 404
    status, body = fetch(served, "gradio_api/call/loop", raw=b" " * (request_filter.MOST_BODY_BYTES + 1), method="POST")
    assert (status, body) == (413, b"The request is too long.")


def test_the_server_listens_on_loopback_without_analytics(served):
    assert served.server_name == "127.0.0.1" and not served.share and not served.analytics_enabled
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


def test_many_clients_are_queued_and_served_one_at_a_time(served, playable, monkeypatch):
    running, most, real = [0], [0], sounds.loop_of

    def counted(sound):
        running[0] += 1
        most[0] = max(most[0], running[0])
        made = real(sound)
        running[0] -= 1
        return made

    monkeypatch.setattr(sounds, "loop_of", counted)
    asked = [changed(ASKED, "start.seed", seed) for seed in range(12)]
    expected = [real(sounds.read_sound(one, {"tiny": playable})) for one in asked]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda one: call(served, "loop", one), asked))
    assert all(made for made, _ in answers) and most == [1]
    for clip, (_, answer) in zip(expected, answers, strict=True):
        np.testing.assert_array_equal(pcm_of(answer), audio_files.to_int16(clip))


def test_clients_beyond_the_queue_get_an_error(served, monkeypatch):
    free, real = threading.Event(), sounds.loop_of
    monkeypatch.setattr(sounds, "loop_of", lambda sound: free.wait(20) and real(sound))
    monkeypatch.setattr(served._queue, "max_size", 2)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(call, served, "loop", ASKED) for _ in range(8)]
        done = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED).done
        assert all("Queue is full" in answer.result()[1] for answer in done)
        free.set()
    answers = [answer.result() for answer in waiting]
    assert sum(made for made, _ in answers) >= 2 and all(
        made or "Queue is full" in message for made, message in answers
    )


# ---------------------------------------------------------------------------------------------------------- the browser


@pytest.fixture(scope="module")
def window(browser):
    """One for all tests: the page's programs are fetched and compiled once."""
    return browser.new_context()


@contextlib.contextmanager
def opened(window, served, query=""):
    """A tab with the page and its first loop; nothing may go wrong in it, or be asked of another host."""
    page, wrong = window.new_page(), []
    page.set_default_timeout(300_000)  # many programs may be running
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.on("request", lambda asked: None if here(asked.url, served) else wrong.append(asked.url))
    page.goto(served.local_url + query)
    page.wait_for_function("window.technogen?.looper.buffer")
    yield page
    page.close()
    assert not wrong


def here(url, served):
    return url.startswith((served.local_url, "data:", "blob:"))


def settled(page):
    page.wait_for_function("!document.querySelector('[data-making]')")


def played(page):
    """The loop as it lies in the browser, `[T, C]`."""
    return np.float32(
        page.evaluate(
            "Array.from({length: technogen.looper.buffer.numberOfChannels}, (_, c) => [...technogen.looper.buffer.getChannelData(c)])"
        )
    ).T


def test_the_browser_plays_every_sample_of_the_loop_without_a_gap(window, served, pcm_of_7):
    with opened(window, served, "?seed=7") as page:
        np.testing.assert_array_equal(played(page), pcm_of_7 / np.float32(32768))
        page.click("#play")
        page.wait_for_function("technogen.looper.position() > 0")
        assert page.evaluate(
            "technogen.looper.source.loop && technogen.looper.source.buffer === technogen.looper.buffer"
        )
        assert page.get_attribute("#play", "aria-label") == "Stop"
        rounds = page.evaluate("""async () => {
          const { buffer } = technogen.looper;
          const context = new OfflineAudioContext(buffer.numberOfChannels, 3 * buffer.length, buffer.sampleRate);
          const source = new AudioBufferSourceNode(context, { buffer, loop: technogen.looper.source.loop });
          source.connect(context.destination); source.start();
          return [...(await context.startRendering()).getChannelData(0)];
        }""")
        np.testing.assert_array_equal(np.float32(rounds), np.tile(played(page)[:, 0], 3))
        for on_the_bar in (True, False):  # another sound takes over while it plays
            page.set_checked("#on-the-bar", on_the_bar)
            before = page.evaluate("technogen.looper.source.buffer.getChannelData(0)[5]")
            page.click("#dice")
            page.wait_for_function(f"technogen.looper.source.buffer.getChannelData(0)[5] !== {before}")
            assert page.evaluate("technogen.looper.playing")
        page.click("#play")
        assert page.evaluate("technogen.looper.position()") is None


def test_the_page_address_restores_the_sound(window, served, playable):
    with opened(window, served, "?seed=7&label=acid:0.5,industrial:0.25&truncation=0.5") as page:
        box = page.locator("#pad").bounding_box()
        page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.25)
        page.locator("#moves input").first.fill("-1")
        settled(page)
        sound, samples, address = page.evaluate("technogen.sound"), played(page), page.url
    start = sound["start"]
    assert start["label"] == {"acid": 0.5, "industrial": 0.25} and start["truncation"] == 0.5
    assert np.allclose(start["moves"][:3], [1, 1, -1], atol=0.05) and len(start["moves"]) == 8
    expected = sounds.loop_of(sounds.read_sound(sound, {"tiny": playable}))
    np.testing.assert_array_equal(samples, audio_files.to_int16(expected) / np.float32(32768))
    with opened(window, served, "?" + urllib.parse.urlsplit(address).query) as page:
        assert page.evaluate("technogen.sound") == sound
        np.testing.assert_array_equal(played(page), samples)
    wild = "?seed=1e99&truncation=NaN&moves=,,x,-7&label=polka:1&model=/etc&bpm=1e9&to=seed%3Dx&share=9"
    with opened(window, served, wild) as page:
        assert page.evaluate("technogen.sound.start.seed") == 2**32 - 1


def test_seed_lock_morph_and_list_of_kept_sounds(window, served, playable):
    with opened(window, served, "?seed=7") as page:
        page.click("#set-a")
        page.fill("#seed", "8")
        page.press("#seed", "Enter")
        page.click("#keep")
        page.click("#lock")
        assert page.is_disabled("#dice") and page.is_disabled("#seed")
        page.click("#set-b")
        page.locator("#share").fill("0.5")
        settled(page)
        recipes = [sounds.Recipe(seed, None, 1.0, ()) for seed in (7, 8)]
        expected = sounds.loop_of(sounds.Sound(playable, *recipes, 0.5))
        np.testing.assert_array_equal(played(page), audio_files.to_int16(expected) / np.float32(32768))
        page.click("#keep")
        page.reload()
        page.wait_for_function("window.technogen?.looper.buffer")
        assert page.locator("#kept li").count() == 2  # this browser's own, and it stays
        assert page.evaluate("technogen.sound.share") == 0.5
        page.click("#kept li:first-child button:first-child")
        settled(page)
        expected = sounds.loop_of(sounds.Sound(playable, recipes[1]))
        np.testing.assert_array_equal(played(page), audio_files.to_int16(expected) / np.float32(32768))


def test_files_are_downloaded(window, served, tmp_path, pcm_of_7):
    with opened(window, served, "?seed=7") as page:
        with page.expect_download() as download:
            page.click("#loop-wav")
        download.value.save_as(tmp_path / "loop.wav")
        pcm, rate_hz = soundfile.read(tmp_path / "loop.wav", dtype="int16")
        assert rate_hz == RATE_HZ and download.value.suggested_filename == "technogen-7-134-bpm.wav"
        np.testing.assert_array_equal(pcm, pcm_of_7)
        page.locator("#tempo").fill("150")
        page.fill("#minutes", "0.5")
        with page.expect_download() as download:
            page.click("#track-flac")
        download.value.save_as(tmp_path / "track.flac")
        info = soundfile.info(tmp_path / "track.flac")
        assert abs(info.duration - round(0.5 * 150 / 4) * 240 / 150) < 0.01
        page.fill("#minutes", "999")
        page.click("#track-wav")
        page.wait_for_function("document.querySelector('#status').classList.contains('wrong')")
        assert "minutes: expected a number from 0.1 to 20" in page.inner_text("#status")


def test_the_page_fits_a_phone_and_shows_a_training(browser, served):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with opened(browser.new_context(**phone), served) as page:
        page.tap("role=button[name=Mix]")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        outside = page.evaluate("""[...document.querySelectorAll('.technogen *')].filter((e) => {
          const box = e.getBoundingClientRect(); return box.width && (box.left < 0 || box.right > 390); }).length""")
        assert outside == 0
        page.tap("role=tab[name=Training]")
        page.wait_for_function("document.querySelector('figure img')?.naturalWidth > 0")
        assert page.inner_text("figcaption") == "Step 1,000"
        page.wait_for_selector("canvas.marks, svg.marks")
        assert page.evaluate("document.documentElement.scrollWidth") == 390


# ----------------------------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "--workdir"),
        (["--workdir", "x", "--port", "0"], "--port: expected 1 to 65535"),
        (["--workdir", "x", "--step", "last"], "--step: expected latest, best or a number"),
    ],
)
def test_invalid_options_exit_with_status_2(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.parse_options(words)
    assert message in capsys.readouterr().err


def test_a_folder_that_is_not_a_workdir_is_a_one_line_error(tmp_path, capsys, monkeypatch):
    pytest.importorskip("gradio", reason="pip install -r requirements-app.txt")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert command.main(["--workdir", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"app: {tmp_path}/config.json: not found")
