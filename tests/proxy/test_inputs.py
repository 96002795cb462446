"""The parsers of operator input that both programs share."""

from collections.abc import Callable

import pytest

from proxy import inputs
from proxy.inputs import InputError, Origin


@pytest.mark.parametrize(
    ("text", "url", "prefix", "authority"),
    [
        ("http://h:8000", "http://h:8000", "", "h:8000"),
        ("http://h:8000/v1", "http://h:8000", "", "h:8000"),
        ("http://h:8000/v1/", "http://h:8000", "", "h:8000"),
        ("http://h:8000//v1//", "http://h:8000", "", "h:8000"),
        ("https://api.example/openai/v1", "https://api.example/openai", "/openai", "api.example"),
        ("http://h/v10", "http://h/v10", "/v10", "h"),
        (" HTTP://LocalHost:80/ \n", "http://localhost", "", "localhost"),
        ("https://h:443", "https://h", "", "h"),
        ("https://h:80", "https://h:80", "", "h:80"),
        ("http://[::1]:8000/v1", "http://[::1]:8000", "", "[::1]:8000"),
        ("http://[fe80::1%25eth0]:8000", "http://[fe80::1]:8000", "", "[fe80::1]:8000"),
        ("http://日本.example", "http://xn--wgv71a.example", "", "xn--wgv71a.example"),
        ("http://vllm_server:8000", "http://vllm_server:8000", "", "vllm_server:8000"),
        ("http://h/a b".replace(" ", "%20"), "http://h/a%20b", "/a%20b", "h"),
        ("http://h/é", "http://h/%C3%A9", "/%C3%A9", "h"),
    ],
)
def test_urls_are_read_into_one_spelling(text: str, url: str, prefix: str, authority: str) -> None:
    origin = inputs.parse_url(text)
    assert (origin.url, origin.prefix, origin.authority) == (url, prefix, authority)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must be http://HOST"),
        ("localhost:8000", "is http://localhost:8000 meant?"),
        ("127.0.0.1", "is http://127.0.0.1 meant?"),
        ("http:/h:8000", "must be http://HOST"),
        ("ftp://h", "must be http://HOST"),
        ("unix:/a.sock", "must be http://HOST"),
        ("http://", "must be http://HOST"),
        ("http://h:0", "from 1 to 65535"),
        ("http://h:99999", "ut of range"),
        ("http://h:-1", "must be http://HOST"),
        ("http://h:٨٠", "must be http://HOST"),
        ("http://h:8000:8000", "must be http://HOST"),
        ("http://h /x", "without spaces"),
        ("http://h\r\nX-A: b", "without spaces"),
        ("http://h\x00", "control characters"),
        ("http://h\udcff", "control characters"),
        ("http:\\\\h", "backslashes"),
        ("http://user:pw@h", "without user and password"),
        ("http://@h", "without user and password"),
        ("http://h/?a=b", "without a query"),
        ("http://h?", "without a query"),
        ("http://h/#x", "without a query"),
        ("http://h/v1/chat/completions", "the base URL, without /v1/chat/completions"),
        ("http://" + "a" * 64 + ".example", "at most 63"),
        ("http://" + "日" * 64, "is not a host name"),
        ("http://" + "a." * 200 + "b", "253 in all"),
        ("http://a..b", "a name is"),
        ("http://-a", "a name is"),
        ("http://256.1.1.1", "is not an IPv4 address"),
        ("http://127.1", "is not an IPv4 address"),
        ("http://[::1", "must be http://HOST"),
        ("http://[::x]", "must be http://HOST"),
        ("http://::1:8000", "must be http://HOST"),
    ],
)
def test_a_wrong_url_is_refused_with_what_would_be_right(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=r".") as caught:
        inputs.parse_url(text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unix_sockets_have_two_spellings() -> None:
    wanted = Origin("localhost", 0, "/run/a.sock", False, "", "localhost")
    for text in ("unix:/run/a.sock", "unix:///run/a.sock", " UNIX:/run/a.sock "):
        assert inputs.parse_url(text, unix=True) == wanted
    assert wanted.url == "unix:/run/a.sock"
    for text in ("unix:a.sock", "unix:", "unix:/", "unix://a.sock", "unix:/" + "a" * 107, "unix:/a\nb"):
        with pytest.raises(InputError, match="unix:/PATH"):
            inputs.parse_url(text, unix=True)


def test_a_password_is_not_shown() -> None:
    with pytest.raises(InputError) as caught:
        inputs.named("--url", "http://user:secret@h", inputs.parse_url)
    assert str(caught.value).startswith("--url 'http://***@h': must be without user")
    tries: list[tuple[Callable[[str], object], str]]
    tries = [(inputs.parse_key, "sk-sécret"), (inputs.parse_header, "A: sécret\n")]
    for parse, text in tries:
        with pytest.raises(InputError) as caught:
            inputs.named("--x", text, parse)
        assert "cret" not in str(caught.value)


def test_addresses() -> None:
    assert inputs.parse_address("127.0.0.1:9000") == ("127.0.0.1", 9000)
    assert inputs.parse_address(" [::1]:0 ") == ("::1", 0)
    wrong = (
        ":80",
        "80",
        "h",
        "h:",
        "h:x",
        "h:٨٠",
        "h:-1",
        "::1:80",
        "[h]:1",
        "http://h:80",
        "h h:1",
        "256.0.0.1:1",
    )
    for text in wrong:
        with pytest.raises(InputError, match="not HOST:PORT"):
            inputs.parse_address(text)
    for text in ("h:65536", "h:" + "9" * 5000):
        with pytest.raises(InputError, match="at most 65535"):
            inputs.parse_address(text)


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("A=b", ("A", "b")),
        ("A=b=c==", ("A", "b=c==")),
        ("Authorization: Basic dTpwdw==", ("Authorization", "Basic dTpwdw==")),
        ("Authorization=Basic dTpwdw==", ("Authorization", "Basic dTpwdw==")),
        ("x-url=http://h:1/?a=b", ("x-url", "http://h:1/?a=b")),
        ("x-empty=", ("x-empty", "")),
        (" A : b\tc ", ("A", "b\tc")),
    ],
)
def test_headers_keep_the_signs_of_their_value(text: str, header: tuple[str, str]) -> None:
    assert inputs.parse_header(text) == header


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "=b",
        ": b",
        "A b=c",
        "Ä=b",
        "A=b\r\nC: d",
        "A=b\nc",
        "A=\x00",
        "A=\udcff",
        "Content-Length=3",
        "host: h",
    ],
)
def test_headers_that_would_damage_a_request_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"NAME=VALUE|cannot be given"):
        inputs.parse_header(text)


def test_keys() -> None:
    assert inputs.parse_key(" sk-1\r\n") == "sk-1"
    for text in ("sk\n1", "sk-é", "Bearer sk-1", "a\x00"):
        with pytest.raises(InputError):
            inputs.parse_key(text)


def test_durations() -> None:
    assert [inputs.parse_duration(t) for t in ("200ms", "1.5s", " 2m ", "1h", ".5s")] == [
        0.2,
        1.5,
        120,
        3600,
        0.5,
    ]
    for text in ("", "10", "s", "-1s", "1e3s", "nans", "infs", "٣s", "1 s", "9" * 400 + "s"):
        with pytest.raises(InputError):
            inputs.parse_duration(text)


@pytest.mark.parametrize(
    ("parse", "right", "wrong"),
    [
        (inputs.parse_whole, {"64": 64, "1_000": 1000, "-3": -3},
         ["", "1.5", "1e3", "nan", "٣", f"1{'0' * 5000}", str(2**70)],),
        (inputs.parse_number, {"0.5": 0.5, "1e3": 1000.0}, ["", "nan", "inf", "-inf", "1e400", "٣", "x"]),
    ],
)  # fmt: skip
def test_numbers(parse: Callable[[str], float], right: dict[str, float], wrong: list[str]) -> None:
    assert {text: parse(text) for text in right} == right
    for text in wrong:
        with pytest.raises(InputError, match="number"):
            parse(text)


def test_text_files_of_windows_are_read() -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert inputs.decode_text("ä = 1\n".encode(encoding)) == "ä = 1\n"
    for data in (b"\xff\xfea", b"a\xe9"):
        with pytest.raises(InputError, match="save it as UTF-8"):
            inputs.decode_text(data)
