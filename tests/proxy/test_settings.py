from pathlib import Path

import pytest

from proxy.config import Address, Config, ConfigError
from proxy.settings import OPTIONS, load, parse_address

UP = "http://127.0.0.1:8000"


def of(toml: str = "", env: dict[str, str] | None = None, **flags: str) -> Config:
    given = {**flags, "config": "j.toml"} if toml else flags
    return load(given, env or {}, lambda _path: toml.encode())


def refusal(toml: str = "", env: dict[str, str] | None = None, **flags: str) -> str:
    with pytest.raises(ConfigError) as caught:
        of(toml, env, **flags)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_defaults_need_only_an_upstream() -> None:
    config = of(upstream=UP + "/")
    assert config.backends[0].url == UP
    assert config.backends[0].name == "127.0.0.1:8000"
    assert config.relay.listen == Address("127.0.0.1", 9000)
    assert config.meter.policy == "steps"


def test_flag_over_variable_over_file_over_default() -> None:
    toml = f'upstream = "{UP}"\nsample_hz = 5\nworkers = 2\n[relay]\nmax_body_bytes = 7\n'
    env = {"JOULEPROXY_WORKERS": "3", "JOULEPROXY_SAMPLE_HZ": "6"}
    config = of(toml, env, workers="4")
    assert (config.relay.workers, config.meter.sample_hz, config.relay.max_body_bytes) == (4, 6.0, 7)


def test_every_option_is_a_key_and_a_variable() -> None:
    for option in OPTIONS.values():
        message = refusal(env={f"JOULEPROXY_{option.name.upper()}": ""}, upstream=UP)
        assert f"JOULEPROXY_{option.name.upper()}" in message
        assert f"j.toml: {option.name}" in refusal(f"{option.name} = []", upstream=UP)


def test_backends_as_tables() -> None:
    config = of(
        '[[backends]]\nurl = "https://h"\ndevices = ["0", "1"]\n[[backends]]\nurl="http://h:1"\nname="b"'
    )
    first, second = config.backends
    assert (first.name, first.devices, second.name) == ("h:443", ("0", "1"), "b")


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("wrokers = 2", "j.toml: unknown key wrokers: did you mean workers?"),
        ("[relay]\nworker = 2", "j.toml: unknown key [relay] worker: did you mean workers?"),
        ("[relay]\nsample_hz = 2", "unknown key [relay] sample_hz"),
        ("workers = '2'", "j.toml: workers = '2': must be a whole number above 0"),
        ("workers = true", "must be a whole number"),
        ("workers = 1.5", "j.toml: workers '1.5': must be a whole number"),
        ("workers = 2\n[relay]\nworkers = 3", "workers is given twice"),
        ("check_upstream = 1", "must be true or false"),
        ("policy = 'fair'", "must be one of steps, tokens, overlap"),
        ("= 3", "j.toml: not TOML"),
        ("backends = 3", "list of tables"),
        ("[[backends]]\nurll = 'http://h'", "[[backends]] 1: unknown key urll: did you mean url?"),
        ("[[backends]]\nname = 'h'", "url is missing"),
        ("[[backends]]\nurl = 'http://h'\ndevices = '0'", "devices = '0': must be a list of texts"),
        ("[[backends]]\nurl = 'h:1'", "[[backends]] 1: url 'h:1': must be http://HOST[:PORT]"),
        ("upstream = 'http://a'\n[[backends]]\nurl = 'http://h'", "both given"),
        ("[[backends]]\nurl = 'http://h'\n[[backends]]\nurl = 'http://h'", "given twice"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(toml: str, reason: str) -> None:
    assert reason in refusal(toml)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({}, "no backend: give --upstream"),
        ({"upstream": "127.0.0.1:8000"}, "--upstream '127.0.0.1:8000': must be http://HOST[:PORT]"),
        ({"upstream": "unix:engine.sock"}, "unix:/PATH"),
        ({"upstream": "http://h:99999"}, "must be http://HOST[:PORT]"),
        ({"upstream": "http://u:p@h"}, "without user"),
        ({"upstream": ""}, "must be URL[,URL]"),
        ({"listen": "9000"}, "--listen '9000': must be HOST:PORT, as 127.0.0.1:9000"),
        ({"listen": "h:70000"}, "a port is at most 65535"),
        ({"source": "nvlm"}, "--source 'nvlm': must be auto, nvml"),
        ({"source": "prometheus"}, "prometheus:URL"),
        ({"workers": "0"}, "must be above 0"),
        ({"sample_hz": "nan"}, "must be a number above 0"),
        ({"admin": "0.0.0.0:9001"}, "give --admin-token"),
        ({"listen": "127.0.0.1:9001"}, "--listen and --admin are both 127.0.0.1:9001"),
        ({"tls_key": "k"}, "go together"),
    ],
)
def test_a_wrong_flag_is_refused_in_one_line(flags: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"upstream": UP} | flags if flags else {}, {})
    assert reason in str(caught.value)


def test_an_unknown_variable_is_an_error() -> None:
    assert "did you mean JOULEPROXY_WORKERS?" in refusal(env={"JOULEPROXY_WORKER": "1"}, upstream=UP)


def test_admin_beyond_this_host_needs_a_token() -> None:
    assert of(upstream=UP, admin="0.0.0.0:1", admin_token="t").meter.admin.port == 1


def test_addresses() -> None:
    assert parse_address("[::1]:80") == Address("::1", 80)
    for wrong in ("::1:80", ":80", "h:", "h:x", "[h]:1"):
        with pytest.raises(ConfigError, match="HOST:PORT"):
            parse_address(wrong)


def test_a_unix_socket_is_a_backend() -> None:
    (backend,) = of(upstream="unix:/run/engine.sock").backends
    assert (backend.url, backend.name) == ("unix:/run/engine.sock", "unix:/run/engine.sock")


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load({"config": "/nowhere/j.toml"}, {})


def test_a_file_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "j.toml"
    path.write_text(f'upstream = ["{UP}", "http://b"]')
    assert [b.name for b in load({}, {"JOULEPROXY_CONFIG": str(path)}).backends] == ["127.0.0.1:8000", "b:80"]
