"""The parts of a command: options, errors, exit status."""

import argparse
import dataclasses
import errno
import os
import sys

import pytest

from technogen_jax.common import command_line
from technogen_jax.common.command_line import REQUIRED, CommandError, OptionError, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(command_line.Options):
    name: str = option(REQUIRED, "what it is called", convert=str)
    shares: tuple[float, ...] = option((0.5, 0.5), "of two", metavar="A,B", convert=command_line.parse_numbers)
    fast: bool = option(True, "or slow")
    salt: float = option(1.0, "100 % at most", least=0, most=100)
    heat: float | None = option(None, "in degrees", convert=float, above=0)
    style: str = option("raw", "how", choices=("raw", "cooked"))
    origin: str | None = option(None, "where", convert=str, name="from")

    def __post_init__(self):
        super().__post_init__()
        self.check("shares", sum(self.shares) == 1, "a sum of 1")


def command(function=lambda options, say: None, **changes):
    return command_line.Command("package.cook", Options, function, "Cooks.", "examples: none", **changes)


def parse(*argv):
    return command().parse(argv)


def test_options_have_their_types():
    assert parse("--name", "a") == Options(name="a", shares=(0.5, 0.5), fast=True)
    given = parse("--name", "a", "--shares", "0.25,.75", "--no-fast", "--heat", "3", "--from", "b")
    assert given == Options(name="a", shares=(0.25, 0.75), fast=False, heat=3.0, origin="b")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "cook: the following arguments are required: --name"),
        (["--nam", "a"], "cook: the following arguments are required: --name"),
        (["--name", "a", "b"], "cook: unrecognized arguments: b"),
        (["--name", "a", "--shares", "1,b"], "cook: --shares: expected numbers with commas between, got 1,b"),
        (["--name", "a", "--shares", "1,0.5"], "cook: --shares: expected a sum of 1, got 1,0.5"),
        (["--name", "a", "--salt", "many"], "cook: --salt: expected a number, got many"),
        (["--name", "a", "--salt", "-1"], "cook: --salt: expected 0 to 100, got -1"),
        (["--name", "a", "--salt", "nan"], "cook: --salt: expected 0 to 100, got nan"),
        (["--name", "a", "--heat", "0"], "cook: --heat: expected more than 0, got 0"),
        (["--name", "a", "--heat", "inf"], "cook: --heat: expected more than 0, got inf"),
        (["--name", "a", "--style", "burnt"], "cook: --style: expected one of raw, cooked, got burnt"),
    ],
)
def test_an_option_that_cannot_work_is_one_line(capsys, argv, message):
    with pytest.raises(SystemExit) as stop:
        parse(*argv)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"{message}\n"


def test_a_number_of_any_length_is_one_short_line(capsys):
    for digits in (30, 5000):  # Python reads no int of more than 4300 digits
        with pytest.raises(SystemExit):
            parse("--name", "a", "--salt", "9" * digits)
        error = capsys.readouterr().err
        assert error.startswith("cook: --salt: expected ") and error.count("\n") == 1 and len(error) < 200


def test_what_to_do_about_memory_may_depend_on_the_options(capsys):
    def cook(options, say):
        raise MemoryError

    assert command(cook, less_memory=lambda options: f"Try --salt {options.salt / 2}").main(["--name", "a"]) == 1
    assert capsys.readouterr().err == "cook: not enough memory\nTry --salt 0.5\n"


class JaxError(RuntimeError):
    __module__ = "jax.errors"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (None, 0, ""),
        (CommandError("the disk is full"), 1, "cook: the disk is full\n"),
        (OptionError("--name: no"), 2, "cook: --name: no\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.wav"), 1, "cook: a.wav: No such file\n"),
        (MemoryError(), 1, "cook: not enough memory\nCook less.\n"),
        (JaxError("RESOURCE_EXHAUSTED: Out of memory\nmore"), 1,
         "cook: not enough memory: RESOURCE_EXHAUSTED: Out of memory\nCook less.\n"),
        (JaxError("INTERNAL: a\nb\nc"), 1, "cook: INTERNAL: a\nb\n"),
        (RuntimeError("Unable to initialize backend 'tpu': none (set JAX_PLATFORMS='' to choose one)"), 1,
         "cook: JAX finds no device (Unable to initialize backend 'tpu': none); JAX_PLATFORMS=cpu works everywhere\n"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 1,
         "cook: not enough memory: [Errno 12] Cannot allocate memory\nCook less.\n"),
        (MemoryError("std::bad_alloc"), 1, "cook: not enough memory: std::bad_alloc\nCook less.\n"),
        (RuntimeError("can't start new thread"), 1, "cook: not enough memory: can't start new thread\nCook less.\n"),
        (OverflowError("int too large to convert"), 1, "cook: int too large to convert\n"),
        (ModuleNotFoundError("No module named 'stove'", name="stove"), 1,
         "cook: No module named 'stove'; install it with: pip install stove\n"),
        (KeyboardInterrupt(), 130, "\ncook: stopped by Ctrl-C; the same command resumes\n"),
    ],
)  # fmt: skip
def test_every_end_has_its_status_and_message(capsys, error, status, message):
    def cook(options, say):
        assert options.name == "a"
        if error:
            raise error

    cooking = command(cook, resumes=True, less_memory="Cook less.", requirements="requirements-cook.txt")
    assert cooking.main(["--name", "a"]) == status
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("error", [KeyError("a"), RuntimeError("deque mutated"), AssertionError()], ids=repr)
def test_a_bug_shows_its_traceback(error):
    def cook(options, say):
        raise error

    with pytest.raises(type(error)):
        command(cook).main(["--name", "a"])


def test_a_device_that_jax_lacks_is_named(monkeypatch, capsys):
    namespace = {"__name__": "jax._src.xla_bridge"}
    exec("def fail(options, say):\n    assert False", namespace)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert command(namespace["fail"]).main(["--name", "a"]) == 1
    assert (
        capsys.readouterr().err
        == "cook: JAX_PLATFORMS=cuda: JAX finds no such device; JAX_PLATFORMS=cpu works everywhere\n"
    )


def test_facts_of_a_failure_are_printed_too(capsys):
    def cook(options, say):
        raise CommandError("burnt", {"burnt": 1})

    assert command(cook).main(["--name", "a", "--json"]) == 1
    assert capsys.readouterr() == ('{"burnt": 1}\n', "cook: burnt\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_a_full_disk_behind_the_output_is_an_error(monkeypatch, capsys):
    with open("/dev/full", "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert command(lambda options, say: say("done")).main(["--name", "a"]) == 1
    assert capsys.readouterr().err == "cook: [Errno 28] No space left on device\n"


def test_other_words_reach_the_command_that_takes_them():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class More(Options):
        others: tuple[str, ...] = ()

    cooking = command_line.Command("package.cook", More, None, "", "", rest="others")
    assert cooking.parse(["--x.y=1", "--name", "a", "--x.z", "2"]).others == ("--x.y=1", "--x.z", "2")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8.0, "8"),
        (1.024, "1.024"),
        (-14, "-14"),
        ((1.0, 0.5), "1,0.5"),
        (["acid", "house"], "acid,house"),
        (None, "None"),
    ],
)
def test_values_are_shown_as_one_types_them(value, text):
    assert command_line.option_text(value) == text


def test_words_are_converted(monkeypatch):
    monkeypatch.setenv("HOME", "/home/a")
    assert command_line.expand_path("~/b") == "/home/a/b"
    assert command_line.parse_words("a, b") == ("a", "b")
    assert [command_line.parse_step(word) for word in ("7", "best", "latest")] == [7, "best", "latest"]
    with pytest.raises(argparse.ArgumentTypeError, match="expected latest, best or a number, got first"):
        command_line.parse_step("first")


def test_a_checkout_names_the_file_of_its_requirements(capsys):
    def serve(options, say):
        raise ModuleNotFoundError("No module named 'gradio'", name="gradio")

    assert command(serve, requirements="requirements-app.txt").main(["--name", "a"]) == 1
    assert "pip install -r requirements-app.txt\n" in capsys.readouterr().err
