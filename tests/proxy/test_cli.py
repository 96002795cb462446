"""The command line in the test's own process; tests/e2e runs the installed program."""

from pathlib import Path

import pytest

from proxy import cli, supervisor
from proxy.config import Config
from proxy.config.settings import OPTIONS
from proxy.config.sources import syntaxes


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Return exit status, output and errors of a command line."""
    try:
        status = cli.main(words)
    except SystemExit as ended:
        status = int(ended.code or 0)
    return (status, *capsys.readouterr())


def test_help_names_every_command_and_source(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(["help"], capsys)
    assert status == 0
    for command in cli._RUN:
        assert f"jouleproxy {command}" in out.replace("jouleproxy --upstream", "jouleproxy serve")
    assert set(syntaxes()) <= set(out.split())
    assert max(map(len, out.splitlines())) <= 110


def test_help_all_lists_every_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(["serve", "--help-all"], capsys)
    for option in OPTIONS.values():
        assert f"  {option.flag} " in out


def test_no_word_is_help_with_exit_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run([], capsys)
    assert (status, out.partition(":")[0]) == (2, "jouleproxy")


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(["--version"], capsys)
    assert status == 0
    assert out.startswith("jouleproxy ")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["sevre"], "unknown command sevre: did you mean serve?"),
        (["--upstreem", "x"], "unknown option --upstreem: did you mean --upstream?"),
        (["serve"], "no backend: give --upstream URL"),
        (["agent", "--listen", "9009"], "--listen '9009': must be HOST:PORT, as 127.0.0.1:9009"),
        (["agent", "--listen", "0.0.0.0:9009"], "give --agent-token"),
        (["devices", "--source", "nvlm"], "'nvlm' is not one of auto, nvml"),
        (["attribute", "/nowhere"], "/nowhere: No such file or directory"),
        (["explain", "/nowhere"], "/nowhere: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    words: list[str], error: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOULEPROXY_AGENT_TOKEN", raising=False)
    monkeypatch.delenv("JOULEPROXY_UPSTREAM", raising=False)
    status, out, errors = run(words, capsys)
    assert (status, out) == (2, "")
    assert error in errors
    assert errors.count("\n") == 1


def test_flags_precede_variables_and_both_reach_the_supervisor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Config] = []

    def serve(load: supervisor.Load) -> int:
        loaded.extend((load(), load()))
        return 0

    monkeypatch.setattr(supervisor, "serve", serve)
    monkeypatch.setenv("JOULEPROXY_WORKERS", "2")
    monkeypatch.setenv("JOULEPROXY_POLICY", "tokens")
    monkeypatch.setenv("JOULEPROXY_WORKRES", "3")
    words = [
        "--upstream",
        "http://h:1",
        "--workers",
        "4",
        "--no-health-checks",
        "--record",
        str(tmp_path / "t"),
    ]
    status, _, errors = run(words, capsys)
    assert status == 0
    assert (loaded[0].relay.workers, loaded[0].meter.policy, loaded[0].relay.health_checks) == (
        4,
        "tokens",
        False,
    )
    assert errors.count("JOULEPROXY_WORKRES is not a setting") == 1, "warned once, although read twice"
