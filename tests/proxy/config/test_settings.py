from pathlib import Path

import pytest

from proxy.config import Address, Config, ConfigError
from proxy.config.settings import OPTIONS, load, parse_address

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
        ("a = " + "9" * 5000, "j.toml: not TOML"),
        ("a = " + "[" * 5000, "j.toml: not TOML"),
        ("relay = 3", "j.toml: relay = 3: must be a table, begun with [relay]"),
        ("[[meter]]\nworkers = 1", "must be a table, begun with [meter]"),
        ("upstream = [1]", "j.toml: upstream [1]: must be URL[,URL]"),
        ("upstream = []", "must be URL[,URL]"),
        ("upstream = {a = 1}", "must be URL[,URL]"),
        ("[[backends]]\nurl = 'http://h?a=b'", "without a query"),
        ("[[backends]]\nurl = 3", "url = 3: must be a text"),
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
        ({"upstream": "http://a,,http://b"}, "must be URL[,URL]"),
        ({"upstream": "http://h/v1/chat/completions"}, "without /v1/chat/completions"),
        ({"health_path": "/h x"}, "must begin with /"),
        ({"health_path": "health"}, "must begin with /"),
        ({"tenant_header": "x tenant"}, "a header's name"),
        ({"workers": "1025"}, "must be from 1 to 1024"),
        ({"sample_hz": "1e9"}, "must be from 0.01 to 1000"),
        ({"listen": "9000"}, "--listen '9000': must be HOST:PORT, as 127.0.0.1:9000"),
        ({"listen": "h:70000"}, "a port is at most 65535"),
        ({"source": "nvlm"}, "--source 'nvlm': must be auto, nvml"),
        ({"source": "prometheus"}, "prometheus:URL"),
        ({"workers": "0"}, "must be a whole number above 0"),
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


def warnings(env: dict[str, str]) -> list[str]:
    lines: list[str] = []
    assert load({"upstream": UP}, env, warn=lines.append).backends[0].url == UP
    return lines


def test_an_unknown_variable_is_named_and_passed_over() -> None:
    (line,) = warnings({"JOULEPROXY_WORKER": "1", "OTHER": "x"})
    assert line.startswith("environment variable JOULEPROXY_WORKER is not a setting and was ignored")
    assert line.endswith("did you mean JOULEPROXY_WORKERS?")


@pytest.mark.parametrize("service", ["JOULEPROXY", "JOULEPROXY_ADMIN", "JOULEPROXY_US_EAST_1"])
def test_variables_of_a_kubernetes_service_are_passed_over(service: str) -> None:
    url = "tcp://10.0.0.1:9000"
    links = {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "9000",
        "SERVICE_PORT_HTTP_ADMIN": "9001",
        "PORT": url,
        "PORT_9000_TCP": url,
        "PORT_9000_TCP_PROTO": "tcp",
        "PORT_9000_TCP_PORT": "9000",
        "PORT_9000_TCP_ADDR": "10.0.0.1",
        "PORT_53_UDP": "udp://10.0.0.1:53",
    }
    assert warnings({f"{service}_{name}": text for name, text in links.items()}) == []
    assert warnings({"JOULEPROXY_PORT": "9000"}) != []


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.kind in {int, float}])
@pytest.mark.parametrize(
    "text",
    ["", " ", "x", "nan", "inf", "-inf", "1e400", "1e300", "-1", str(2**70), "٣", "1e-300", "0x10", "1,5"],
)
def test_a_number_that_is_none_is_refused_by_name(name: str, text: str) -> None:
    assert f"JOULEPROXY_{name.upper()}" in refusal(env={f"JOULEPROXY_{name.upper()}": text}, upstream=UP)


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.kind is str])
@pytest.mark.parametrize("text", ["", " ", "a\x00b", "a\r\nb"])
def test_a_text_that_cannot_be_used_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^--{name.replace('_', '-')} .*must be"):
        load({"upstream": UP, name: text}, {})


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("value", ["{}", "{a = 1}", "[1]", "1979-05-27", "inf", "nan", "1" + "0" * 30])
def test_a_toml_value_of_a_wrong_type_is_refused_by_name(name: str, value: str) -> None:
    assert f"j.toml: {name}" in refusal(f"{name} = {value}", upstream=UP)


@pytest.mark.parametrize(
    ("text", "seconds"), [("5", 5.0), ("0.5", 0.5), ("500ms", 0.5), ("2m", 120.0), (" 1h ", 3600.0)]
)
def test_seconds_may_have_a_unit(text: str, seconds: float) -> None:
    assert of(upstream=UP, stall_timeout_seconds=text).relay.stall_timeout_seconds == seconds
    assert "must be a number above 0, or a duration as 500ms" in refusal(
        upstream=UP, stall_timeout_seconds="5 parsecs"
    )
    toml = f'upstream = "{UP}"\nstall_timeout_seconds = "{text}"\n'
    assert of(toml).relay.stall_timeout_seconds == seconds


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_saved_by_windows_is_read(encoding: str) -> None:
    data = f'upstream = "{UP}"\r\n'.encode(encoding)
    assert load({"config": "j.toml"}, {}, lambda _path: data).backends[0].url == UP


def test_the_upstream_may_be_the_base_url_of_a_client() -> None:
    config = of(upstream="http://h:8000/v1, HTTPS://Other.example/openai/v1/")
    assert [b.url for b in config.backends] == ["http://h:8000", "https://other.example/openai"]
    assert [b.name for b in config.backends] == ["h:8000", "other.example:443"]
    assert "given twice" in refusal(upstream="http://h:8000,http://H:8000/v1")


def test_a_password_is_not_repeated() -> None:
    for text in ("http://user:secret@h", "ftp://user:secret@h"):
        assert "secret" not in refusal(upstream=text)
    assert "secret" not in refusal(upstream=UP, admin_token="sécret")
    assert "secret" not in refusal(upstream=UP, otlp="http://user:secret@h")


def test_the_otlp_url_is_a_base_url() -> None:
    assert of(upstream=UP, otlp="http://c:4318/v1").meter.otlp == "http://c:4318"
    assert "--otlp 'c:4318': " in refusal(upstream=UP, otlp="c:4318")
    assert "without /v1/traces" in refusal(upstream=UP, otlp="http://c:4318/v1/traces")


def test_admin_beyond_this_host_needs_a_token() -> None:
    assert of(upstream=UP, admin="0.0.0.0:1", admin_token="t").meter.admin.port == 1


def test_addresses() -> None:
    assert parse_address("[::1]:80") == Address("::1", 80)
    for wrong in ("::1:80", ":80", "http://h:80", "h:", "h:x", "[h]:1"):
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


@pytest.mark.parametrize(
    "source",
    ["agent:h", "agent:http://[::1", "agent:http://h:99999", "prometheus:foo", "zeus:h", "zeus:h:99999"]
    + ["none,nvml"]
    + [f"{kind}:http://{'a' * 64}.x/" for kind in ("agent", "prometheus")],
)  # fmt: skip
def test_a_source_whose_address_cannot_be_is_refused(source: str) -> None:
    assert refusal(upstream=UP, source=source).startswith(f"--source '{source}': ")
    right = "prometheus:http://user:pw@h:1/metrics?a=b#m=w,agent:http://h:1,zeus:[::1]:4"
    assert of(upstream=UP, source=right).meter.source == right


def test_a_config_without_a_name_is_refused() -> None:
    assert refusal(config="").startswith("--config ''")
    assert refusal(env={"JOULEPROXY_CONFIG": " "}).startswith("JOULEPROXY_CONFIG")


def test_timeline_and_ledger_are_two_files() -> None:
    assert "--record and --ledger are both 'a'" in refusal(upstream=UP, record="a", ledger="a")
