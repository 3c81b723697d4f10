"""What the commands share."""

from __future__ import annotations

import pytest

from halos.command import Parser, mistake
from halos.errors import ConfigError, UserError


def test_a_mistake_on_the_command_line_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        Parser(prog="simulate").parse_args(["--fast"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: unrecognized arguments: --fast; see: simulate --help\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("first\n  second\n"), "error: first second\n"),
        (ConfigError("policy.name", "is missing"), "error: policy.name: is missing\n"),
    ],
)
def test_a_users_mistake_is_one_line_whatever_it_says(
    error: UserError, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mistake(error) == 2
    assert capsys.readouterr() == ("", line)
