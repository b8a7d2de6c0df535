import contextlib
import json
import pathlib
import urllib.parse

import numpy as np
import pytest
import soundfile

from technogen_jax.app import sounds
from technogen_jax.audio import audio_files

RATE_HZ = 8000


@pytest.fixture(scope="module")
def window(browser):
    """One for all tests: the page's programs are fetched and compiled once."""
    return browser.new_context(bypass_csp=True)  # the tests wait with eval, which the page forbids


@contextlib.contextmanager
def opened(window, served, query="", expected=()):
    """A tab with the page and its first loop; nothing may go wrong in it, or be asked of another host."""
    page, wrong = window.new_page(), []
    page.set_default_timeout(20_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.on("request", lambda asked: None if here(asked.url, served) else wrong.append(asked.url))
    page.goto(served.url + query)
    page.wait_for_function("window.technogen?.looper.buffer")
    settled(page)
    yield page
    page.close()
    assert not [text for text in wrong if not any(word in text for word in expected)]


def here(url, served):
    return url.startswith((served.url, "data:", "blob:"))


def settled(page):
    page.wait_for_function("!document.querySelector('[data-making]')")


def sound(page):
    return page.evaluate("technogen.sound")


def played(page):
    """The loop as it lies in the browser, `[T, C]`."""
    settled(page)
    return np.float32(
        page.evaluate(
            "Array.from({length: technogen.looper.buffer.numberOfChannels}, (_, c) => [...technogen.looper.buffer.getChannelData(c)])"
        )
    ).T


def expected_pcm(playable, query):
    asked = sounds.read_sound(dict(urllib.parse.parse_qsl(query, keep_blank_values=True)), {"tiny": playable})
    return audio_files.to_int16(sounds.loop_of(asked)) / np.float32(32768)


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
        for _ in range(2):  # another sound takes over while it plays: on the bar, then at once
            before = page.evaluate("technogen.looper.source.buffer.getChannelData(0)[5]")
            page.click("#dice")
            page.wait_for_function(f"technogen.looper.source.buffer.getChannelData(0)[5] !== {before}")
            assert page.evaluate("technogen.looper.playing")
            page.click("#on-the-bar")
        page.click("#play")
        assert page.evaluate("technogen.looper.position()") is None


def test_the_page_keeps_its_own_content_security_policy(browser, served):
    page, wrong = browser.new_page(), []
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.goto(served.url + "?seed=7")
    page.wait_for_selector("#playing:has-text('7')")
    page.click("#show-training")
    page.wait_for_selector("#charts svg")
    page.wait_for_selector("figure img")
    assert not wrong
    page.close()


def test_the_page_address_restores_the_sound(window, served, playable):
    with opened(window, served, "?seed=7&label=acid:0.5,industrial:0.25&truncation=0.5") as page:
        size = page.locator("#pad").bounding_box()["width"]
        page.locator("#pad").click(position={"x": size * 0.75, "y": size * 0.25})
        page.locator("#moves input").first.fill("-1")
        now, samples, query = sound(page), played(page), urllib.parse.urlsplit(page.url).query
    start = now["start"]
    assert start["label"] == {"acid": 0.5, "industrial": 0.25} and start["truncation"] == 0.5
    assert np.allclose(start["moves"], [1, 1, -1], atol=0.05)
    np.testing.assert_array_equal(samples, expected_pcm(playable, query))
    with opened(window, served, f"?{query}") as page:
        assert sound(page) == now
        np.testing.assert_array_equal(played(page), samples)
    old = "?model=tiny&seed=7&truncation=1&share=0.5&to=seed%3D8%26truncation%3D1%26label%3Dacid%3A1"
    with opened(window, served, old) as page:  # of an earlier version
        np.testing.assert_array_equal(played(page), expected_pcm(playable, "seed=7&to_seed=8&to_label=acid"))
    with opened(window, served, "?seed=1e99&truncation=NaN&moves=,,x,-7&bpm=1e9&to=seed%3Dx&share=9") as page:
        assert sound(page)["start"]["seed"] == 2**32 - 1


def test_a_link_that_cannot_be_followed_says_so(window, served):
    with opened(window, served, "?model=other&seed=7&label=polka:1") as page:
        notice = page.inner_text("#notice")
        assert "“other”, which is not open here" in notice and "“polka”, which tiny does not have" in notice
    with opened(window, served, "?model=tiny&seed=7") as page:
        assert "not open here" not in page.inner_text("#notice")


def test_back_and_forward_undo_and_redo(window, served):
    with opened(window, served, "?seed=7") as page:
        assert page.is_disabled("#undo")
        page.fill("#seed", "8")
        page.press("#seed", "Enter")
        page.keyboard.press("n")
        third = sound(page)["start"]["seed"]
        page.locator("#truncation").focus()
        for _ in range(3):  # one gesture for each key press: arrows send `change`
            page.keyboard.press("ArrowLeft")
        page.go_back()
        page.go_back()
        page.go_back()
        page.wait_for_function("technogen.sound.start.truncation === 1")
        assert sound(page)["start"]["seed"] == third
        page.keyboard.press("z")
        page.wait_for_function("technogen.sound.start.seed === 8")
        page.click("#undo")
        page.wait_for_function("technogen.sound.start.seed === 7")
        assert page.is_disabled("#undo")  # it does not leave the page
        page.keyboard.press("Shift+Z")
        page.wait_for_function("technogen.sound.start.seed === 8")
        settled(page)
        assert page.evaluate("technogen.played.sound.start.seed") == 8


def test_a_drag_is_one_step_to_undo(window, served):
    with opened(window, served, "?seed=7") as page:
        page.locator("#pad").scroll_into_view_if_needed()
        box = page.locator("#pad").bounding_box()
        page.mouse.move(box["x"] + 30, box["y"] + 30)
        page.mouse.down()
        for x in range(30, 100, 10):
            page.mouse.move(box["x"] + x, box["y"] + 40)
        page.mouse.up()
        assert any(sound(page)["start"]["moves"])
        page.click("#undo")
        page.wait_for_function("!technogen.sound.start.moves.some(Boolean)")
        assert page.is_disabled("#undo")


def test_the_ends_of_a_morph_stay_what_they_were_set_to(window, served, playable):
    with opened(window, served, "?seed=7&label=acid") as page:
        page.keyboard.press("a")
        page.fill("#seed", "8")
        page.press("#seed", "Enter")
        page.keyboard.press("b")
        assert float(page.input_value("#share")) == 1  # B is what plays
        assert page.inner_text("#ends") == "A: 7 acid — B: 8 acid"
        page.locator("#share").fill("0.5")
        np.testing.assert_array_equal(played(page), expected_pcm(playable, "seed=7&label=acid&to_seed=8&share=0.5"))
        page.click("#set-b")  # during a morph: to B, which stays 8
        assert page.inner_text("#ends") == "A: 7 acid — B: 8 acid" and float(page.input_value("#share")) == 1
        np.testing.assert_array_equal(played(page), expected_pcm(playable, "seed=8&label=acid"))
        page.locator("#share").fill("0.4")
        page.locator("#truncation").fill("0.5")  # another control changes both ends and does not jump to A
        now = sound(page)
        assert (now["start"]["seed"], now["end"]["seed"], now["share"]) == (7, 8, 0.4)
        assert now["start"]["truncation"] == now["end"]["truncation"] == 0.5
        page.click("role=button[name=industrial]")
        query = "seed=7&label=industrial&truncation=0.5&to_seed=8&share=0.4"
        np.testing.assert_array_equal(played(page), expected_pcm(playable, query))
        page.click("#dice")  # another sound: with what is set
        now = sound(page)
        assert now["end"] is None and now["start"]["truncation"] == 0.5 and now["start"]["label"] == {"industrial": 1}


def test_keys_work_everywhere_but_in_text_fields(window, served):
    with opened(window, served, "?seed=7") as page:
        for focus in ("#dice", "#volume", "#truncation", "#pad", "#lock", "#match"):
            before = page.evaluate("technogen.looper.playing"), sound(page), page.get_attribute("#lock", "aria-pressed")
            page.focus(focus)
            page.keyboard.press("Space")
            page.wait_for_function(f"technogen.looper.playing === {str(not before[0]).lower()}")
            assert (sound(page), page.get_attribute("#lock", "aria-pressed")) == before[1:], focus
        page.focus("#seed")
        page.keyboard.type("1 n k")
        assert sound(page)["start"]["seed"] == 7 and page.locator("#kept li").count() == 0
        page.focus("#match")
        page.keyboard.press("Enter")
        assert page.get_attribute("#match", "aria-checked") == "false"
        page.focus("#pad")
        for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
            page.keyboard.press(key)
        assert page.get_attribute("#pad", "aria-valuetext") == "more kick 0.2, brighter 0.1"
        assert sound(page)["start"]["moves"][:2] == [0.2, 0.1]


def test_loops_play_equally_loud_and_volume_is_remembered(window, served):
    with opened(window, served, "?seed=7") as page:
        found = page.evaluate("({ level: technogen.looper.level, ...technogen.played })")
        assert found["level"] == pytest.approx(min(10 ** ((-14 - found["lufs"]) / 20), 1 / found["peak"]))
        page.click("#match")
        assert page.evaluate("technogen.looper.level") == 1
        page.locator("#volume").fill("0.3")
        page.reload()
        page.wait_for_function("window.technogen?.looper.buffer")
        assert float(page.input_value("#volume")) == 0.3
        page.locator("#volume").fill("1")


def test_kept_sounds_are_renamed_exported_and_imported(window, served, tmp_path, playable):
    with opened(window, served, "?seed=7") as page:
        page.keyboard.press("k")
        page.fill("#seed", "8")
        page.press("#seed", "Enter")
        page.click("#keep")
        page.click("#keep")  # once is enough
        assert page.locator("#kept li").count() == 2
        page.click("#kept li:first-child button[title=Rename]")
        page.locator("#kept input").fill("warm-up")
        page.keyboard.press("Enter")
        page.wait_for_function("document.querySelector('#kept button').textContent === 'warm-up'")
        with page.expect_download() as download:
            page.click("#export")
        download.value.save_as(tmp_path / "list.json")
        assert [item["name"] for item in json.loads((tmp_path / "list.json").read_text())] == ["warm-up", "8"]
    other = window.browser.new_context(bypass_csp=True)  # another browser, or the page at another port
    with opened(other, served) as page:
        page.wait_for_selector("#kept li")
        page.click("#kept li:first-child button")
        np.testing.assert_array_equal(played(page), expected_pcm(playable, "seed=7"))
        for _ in range(2):
            count = page.locator("#kept li").count()
            page.click("#kept li:first-child button[title=Remove]")
            page.wait_for_function(f"document.querySelectorAll('#kept li').length === {count - 1}")
        page.set_input_files("#import-file", tmp_path / "list.json")
        page.wait_for_function("document.querySelectorAll('#kept li').length === 2")
        (tmp_path / "wrong.json").write_text('{"a": 1}')
        page.set_input_files("#import-file", tmp_path / "wrong.json")
        page.wait_for_function("document.querySelector('#status').textContent.includes('wrong.json: expected a list')")
        for count in (1, 0):
            page.click("#kept li:first-child button[title=Remove]")
            page.wait_for_function(f"document.querySelectorAll('#kept li').length === {count}")
        settled(page)


def test_files_are_downloaded(window, served, tmp_path, pcm_of_7):
    with opened(window, served, "?seed=7") as page:
        with page.expect_download() as download:
            page.click("#loop-wav")
        download.value.save_as(tmp_path / "loop.wav")
        pcm, rate_hz = soundfile.read(tmp_path / "loop.wav", dtype="int16")
        assert rate_hz == RATE_HZ and download.value.suggested_filename == "tiny-134bpm-7.wav"
        np.testing.assert_array_equal(pcm, pcm_of_7)
        page.locator("#tempo").fill("150")
        page.fill("#minutes", "0.5")
        with page.expect_download() as download:
            page.click("#track-flac")
        download.value.save_as(tmp_path / "track.flac")
        assert abs(soundfile.info(tmp_path / "track.flac").duration - round(0.5 * 150 / 4) * 240 / 150) < 0.01
        for minutes in ("", "999", "0"):  # nothing is asked for
            page.fill("#minutes", minutes)
            page.click("#track-wav")
            assert page.inner_text("#status") == "Minutes: a number from 0.1 to 20."
            assert page.locator("#renders li").count() == 0


def test_a_render_shows_its_progress_and_can_be_cancelled(window, served, monkeypatch):
    import threading

    free = threading.Event()

    def held(sound, path, minutes, report):
        while not free.wait(0.05):
            report(0.5)

    monkeypatch.setattr(sounds, "write", held)
    with opened(window, served, "?seed=7") as page:
        page.click("#track-wav")
        page.wait_for_function("document.querySelector('#renders progress')?.value === 0.5")
        page.click("#dice")  # the line stays while other things happen
        settled(page)
        assert page.locator("#renders li").count() == 1
        page.click("#renders button[title=Cancel]")
        assert page.locator("#renders li").count() == 0
    free.set()


def test_offline_the_page_says_what_is_heard_and_tries_again(window, served):
    with opened(window, served, "?seed=7", expected=("ERR_", "Failed to load")) as page:
        page.route("**/api/loop?**", lambda route: route.abort())
        page.fill("#seed", "8")
        page.press("#seed", "Enter")
        page.wait_for_function("document.querySelector('#status').classList.contains('wrong')")
        assert "You still hear 7." in page.inner_text("#status") and page.inner_text("#playing") == "7"
        assert page.locator(".stage.stale").count() == 1
        page.unroute("**/api/loop?**")
        page.wait_for_function("document.querySelector('#playing').textContent === '8'")
        assert page.locator(".stage.stale").count() == 0 and page.inner_text("#status") == ""


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_accessible_and_fits(browser, served, width, scheme):
    axe = pytest.importorskip("axe_playwright_python", reason="pip install axe-playwright-python")
    program = (pathlib.Path(axe.__file__).parent / "axe.min.js").read_text()
    options = dict(viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True)  # to add axe
    phone = dict(has_touch=True, is_mobile=True) if width == 390 else {}
    with opened(browser.new_context(**options, **phone), served, "?seed=7") as page:
        press = page.tap if phone else page.click
        press("role=button[name=Mix]")
        page.evaluate(program)
        for view in ("Play", "Training"):
            press(f"role=button[name={view}] >> nth=0")
            if view == "Training":
                page.wait_for_function("document.querySelector('figure img')?.naturalWidth > 0")
            result = page.evaluate("axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'best-practice'] })")
            problems = [(rule["id"], [node["target"] for node in rule["nodes"]]) for rule in result["violations"]]
            assert not problems and len(result["passes"]) > 15
            assert page.evaluate("document.documentElement.scrollWidth") == width
            outside = page.evaluate(
                """(width) => [...document.querySelectorAll('body *')].filter((e) => {
              const box = e.getBoundingClientRect(); return box.width && (box.left < 0 || box.right > width); }).length""",
                width,
            )
            assert outside == 0
        if phone:
            press("role=button[name=Play] >> nth=0")
            page.evaluate("scrollTo(0, 10_000)")
            for control in ("#play", "#dice", "#keep"):  # always within reach
                assert page.locator(control).bounding_box()["y"] > 700


def test_the_training_view_is_there_at_once_and_says_why_a_chart_is_empty(window, served):
    with opened(window, served) as page:
        page.click("#show-training")
        page.wait_for_selector("#charts svg", timeout=3000)
        assert "Step 1,000" in page.inner_text("#training-status")
        assert "has not been evaluated yet" in page.inner_text("#charts")
        page.locator("#back").fill("1")
        page.wait_for_function("document.querySelector('figcaption').textContent === 'Preview of step 500'")
