import pytest
from helpers.endless_model import model

from technogen_jax.app import __main__ as command
from technogen_jax.app import library, sounds
from technogen_jax.runs.workdir import WorkdirError
from technogen_jax.sampling import generator


@pytest.fixture
def loaded(playable, monkeypatch):
    """What `generator.load` finds at each path; nothing is measured."""
    found = {}

    def load(path, step):
        if path.name not in found:
            raise WorkdirError(f"{path}/config.json: not found")
        return found[path.name]

    monkeypatch.setattr(generator, "load", load)
    monkeypatch.setattr(library.effects, "find", lambda trained: library.effects.Controls(playable.directions, ()))
    monkeypatch.setattr(library, "LOOK_AGAIN_S", 0.0)
    return found


def opened(workdirs, until):
    """A library that has opened its models, as a thread would, until a condition holds; and what it said."""
    said = []
    books = library.Library(workdirs, say=said.append)

    class Until:
        def is_set(self):
            return until(books)

        def wait(self, seconds):
            return until(books)

    books._closed = Until()
    books._open_all()
    return books, said


def test_without_a_path_it_plays_the_model_that_comes_with_technogen(loaded, playable):
    loaded["technogan.npz"] = playable.trained
    books, said = opened((), until=lambda books: True)
    assert list(books.models()) == ["technogan"] and not said and library.SHIPPED.is_file()


def test_a_missing_run_is_a_warning_and_the_others_play(loaded, playable, tmp_path):
    loaded["good"] = playable.trained
    books, said = opened([tmp_path / "missing", tmp_path / "good"], until=lambda books: True)
    assert list(books.models()) == ["good"]
    assert said == [f"warning: {tmp_path}/missing/config.json: not found"]
    missing, good = books.describe()
    assert missing["state"] == "failed" and "not found" in missing["why"] and good["state"] == "ready"


def test_if_nothing_can_be_played_the_model_that_comes_with_technogen_does(loaded, playable, tmp_path):
    loaded["technogan.npz"] = playable.trained
    books, said = opened([tmp_path / "missing"], until=lambda books: True)
    assert list(books.models()) == ["technogan (comes with TechnoGen)"] and len(said) == 2


def test_a_run_is_opened_when_it_gets_a_checkpoint(loaded, playable, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / library.CONFIG_FILE).write_text("{}")
    looks = []

    def until(books):
        looks.append(1)
        if len(looks) == 3:  # meanwhile the training saves
            (run / library.CHECKPOINTS_FOLDER).mkdir()
            loaded["run"] = playable.trained
        return len(looks) > 8

    books, _ = opened([run], until)
    assert list(books.runs()) == ["run"] and list(books.models()) == ["run"]


def test_a_model_says_how_far_it_is(loaded, playable, tmp_path, monkeypatch):
    states = []
    books = library.Library([tmp_path / "run"])
    loaded["run"] = model(1)
    monkeypatch.setattr(generator, "load", lambda path, step: states.append(books.entries[0].state) or loaded["run"])
    monkeypatch.setattr(sounds, "loop_of", lambda sound: states.append(books.entries[0].state))
    books.open(books.entries[0])
    assert [*states, books.entries[0].state] == ["reading", "compiling", "ready"]
    monkeypatch.setattr(sounds, "loop_of", lambda sound: (_ for _ in ()).throw(MemoryError()))
    books.open(books.entries[0])
    assert (books.entries[0].state, books.entries[0].why) == ("failed", "not enough memory")


@pytest.mark.parametrize(
    "words, message",
    [
        (["--workdir", "x", "--port", "0"], "--port: expected 1 to 65535"),
        (["--workdir", "x", "--step", "last"], "--step: expected latest, best or a number"),
    ],
)
def test_invalid_options_exit_with_status_2(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.parse_options(words)
    assert message in capsys.readouterr().err
    assert command.parse_options([]).workdir is None


def test_a_taken_port_is_one_line(served, capsys, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert command.main(["--port", str(served.port)]) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and "taken by another program; end that program, or choose another port" in shown


def test_the_page_answers_behind_a_proxy_of_the_environment(served, monkeypatch, capsys):
    """It asks itself nothing through HTTP, so a proxy that does not answer cannot stop it."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    from technogen_jax.app import page

    books = library.Library(["x"])
    other = page.serve(books, port=0)
    try:
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", other.port, timeout=30)
        connection.request("GET", "/api/models")
        assert connection.getresponse().status == 200
    finally:
        other.close()
