"""What every command does alike: options in, one line and a status out."""

import dataclasses

import pytest

from technogen_jax.common import command_line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    name: str = command_line.option(dataclasses.MISSING, "NAME", "what it is called", str)
    shares: tuple[float, ...] = command_line.option((0.5, 0.5), "A,B", "of two", command_line.numbers)
    fast: bool = command_line.option(True, "", "or slow")

    def __post_init__(self):
        command_line.check(self, "shares", sum(self.shares) == 1, "a sum of 1")


def parse(*argv):
    return command_line.parse(Options, "package.cook", "Cooks.", "examples: none", argv)


def test_options_arrive_with_their_types():
    assert parse("--name", "a") == Options(name="a", shares=(0.5, 0.5), fast=True)
    assert parse("--name", "a", "--shares", "0.25,.75", "--no-fast") == Options(
        name="a", shares=(0.25, 0.75), fast=False
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "cook: the following arguments are required: --name"),
        (["--nam", "a"], "cook: the following arguments are required: --name"),
        (["--name", "a", "--shares", "1,b"], "cook: argument --shares: expected numbers with commas between, got 1,b"),
        (["--name", "a", "--shares", "1,0.5"], "cook: --shares: expected a sum of 1, got 1,0.5"),
    ],
)
def test_what_cannot_work_is_one_line(capsys, argv, message):
    with pytest.raises(SystemExit) as stop:
        parse(*argv)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"{message}\n"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, 0, ""),
        (command_line.CommandError("the disk is full"), 1, "cook: the disk is full\n"),
        (command_line.OptionError("--name: no"), 2, "cook: --name: no\n"),
        (KeyboardInterrupt(), 130, "\ncook: stopped; the same command goes on from here\n"),
    ],
)
def test_every_end_has_its_status(capsys, error, status, said):
    def cook(options):
        assert options.name == "a"
        if error:
            raise error

    assert command_line.run("cook", cook, Options(name="a")) == status
    assert capsys.readouterr().err == said


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
