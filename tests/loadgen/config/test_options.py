import pytest

from loadgen.config.options import read_config


def shown(capsys: pytest.CaptureFixture[str], command: str, flag: str) -> list[str]:
    with pytest.raises(SystemExit) as stop:
        read_config(command, [flag])
    assert stop.value.code == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_help_fits_a_screen_and_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, command, "--help")
    assert len(lines) <= 32
    assert max(map(len, lines)) <= 100
    assert "examples:" in lines
    everything = shown(capsys, command, "--help-all")
    assert any("--arrivals" in line for line in everything)
    assert any("--resume" in line for line in everything) == (command == "sweep")


def test_a_search_has_ends_not_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-2")
    config = read_config("sweep", ["--search", "--slo", "1s", "--header", "a=b", "--header", "c=d"])
    assert config.spec.levels == (1.0, 100_000.0)
    assert config.spec.mode == "rate"
    assert config.api_key == "sk-2"
    assert config.headers == ("a=b", "c=d")
    closed = read_config("sweep", ["--search", "--slo", "1s", "--concurrency", "2..40", "--budget", "1m"])
    assert (closed.spec.levels, closed.spec.budget_seconds) == ((2.0, 40.0), 60.0)


def test_durations_by_command() -> None:
    assert read_config("run", ["--rate", "1"]).spec.duration_seconds == 30
    assert read_config("sweep", ["--rate", "1"]).spec.duration_seconds == 10
    assert read_config("run", ["--rate", "1", "--requests", "5"]).spec.duration_seconds is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--rate 1 --turns 0", "1 to 100"),
        ("--rate 1 --turns 2 --endpoint completions", "--endpoint chat"),
        ("--rate 1 --picture big", "512x512"),
        ("--rate 1 --source cpu", "proxy or nvml"),
        ("--rate 1 --power-limits 300", "--source nvml"),
    ],
)
def test_conflicting_options_are_rejected(words: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_config("sweep", words.split())


def test_workers_are_for_runs_and_grids() -> None:
    assert read_config("run", ["--rate", "9", "--workers", "3"]).spec.workers == 3
    assert read_config("sweep", ["--rate", "1..8", "--ray", "auto"]).spec.ray == "auto"
    wrong = {
        "--workers 0: must be from 1 to 1024": ["--workers", "0"],
        "--workers: several workers support a run or a grid": ["--workers", "2", "--search", "--slo", "1s"],
        "--ray: several workers support a run or a grid": [
            "--ray",
            "auto",
            "--simulate",
            "h100-llama-3.1-8b",
        ],
        "--max-in-flight 1: must be at least one for each": ["--workers", "2", "--max-in-flight", "1"],
    }
    for text, words in wrong.items():
        with pytest.raises(ValueError, match=text):
            read_config("sweep", ["--rate", "1..8", *words])


def test_urls_follow_the_rule_of_the_proxy() -> None:
    spec = read_config("run", ["--rate", "1", "--url", "HTTP://h:8000/v1/"]).spec
    assert spec.url == "http://h:8000"
    for text, says in (
        ("http://u:pw@h", "without user"),
        ("http://h?x=1", "query"),
        ("h:8000", "http://h:8000"),
    ):
        for option in ("--url", "--admin-url"):
            with pytest.raises(ValueError, match=says) as caught:
                read_config("run", ["--rate", "1", option, text])
            assert str(caught.value).startswith(option)
            assert "pw" not in str(caught.value)


def test_headers_and_keys_go_out_as_they_were_meant() -> None:
    words = ["--rate", "1", "--api-key", "sk-1\n", "--header", "X-A=b==", "--header", "X-B: c=d"]
    assert (
        read_config("run", words).header_lines() == b"X-A: b==\r\nX-B: c=d\r\nAuthorization: Bearer sk-1\r\n"
    )
    words += ["--header", "authorization: Basic dTpwdw=="]
    assert read_config("run", words).header_lines().count(b"uthorization") == 1
    for option, text in (("--header", "A=b\r\nC: d"), ("--api-key", "a\nb"), ("--admin-token", "é")):
        with pytest.raises(ValueError, match=option):
            read_config("run", ["--rate", "1", option, text])


@pytest.mark.parametrize("option", ["--requests", "--seed", "--workers", "--prefix-share"])
@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "1e400", "٣", str(2**70)])
def test_a_malformed_number_is_rejected(option: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((SystemExit, ValueError)) as caught:  # argparse leaves with the status itself
        read_config("run", ["--rate", "1", option, text])
    assert option in f"{caught.value} {capsys.readouterr().err}"


@pytest.mark.parametrize("option", ["--duration", "--drain", "--warmup"])
@pytest.mark.parametrize("text", ["30", "=1s", "٣s", "9" * 400 + "s"])
def test_a_malformed_duration_is_rejected_by_name(option: str, text: str) -> None:
    with pytest.raises(ValueError, match=option):
        read_config("run", ["--rate", "1", option, text])
