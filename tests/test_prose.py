"""The prose check finds what style rules forbid, and its limits may only shrink."""

from pathlib import Path

import pytest

from tests import prose


def reasons(source: str, path: str = "proxy/module.py") -> list[str]:
    """Return the reasons for which a module is refused."""
    return [one.reason for one in prose.check_python(path, source)]


@pytest.mark.parametrize(
    "source",
    [
        '"""What the proxy has."""',
        'def f():\n    """Return all that was told."""',
        "x = 1  # the meter knows",
        "# What runs first.",
        'raise ValueError("nothing is said here")',
        'log.warning(f"the meter {name} wants a file")',
        "def test_a_meter_tells_its_energy(): ...",
    ],
)
def test_a_word_to_avoid_is_found_in_docstrings_comments_messages_and_test_names(source: str) -> None:
    assert len(reasons(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        '"""Return the chunk boundaries."""',
        "# a whole number of `told` records",
        'x = "# knows"',
        'ROUTES = {"tell": 1}',
        "knows = 1",
    ],
)
def test_code_names_and_strings_that_are_no_messages_are_not_checked(source: str) -> None:
    assert reasons(source) == []


def test_strings_of_tests_are_data_and_not_checked() -> None:
    assert reasons('x = "what he said was heard"', "tests/test_x.py") == []


def test_code_and_link_addresses_of_a_page_are_not_checked() -> None:
    page = "```\nit tells\n```\nsee [the page](tells.md) and `ask`\nit tells\n"
    assert [(one.line, one.reason[:7]) for one in prose.check_markdown("a.md", page)] == [(5, '"tells"')]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("proxy/relay/http/head.py", "proxy/relay"),
        ("proxy/cli.py", "proxy"),
        ("loadgen/search/knee.py", "loadgen"),
        ("tests/proxy/test_cli.py", "tests"),
        ("docs/a.md", "docs"),
        ("README.md", "docs"),
    ],
)
def test_a_file_counts_to_its_top_level_package(path: str, name: str) -> None:
    assert prose.package(path) == name


def test_the_higher_limit_counts_where_a_merge_left_two() -> None:
    assert prose.read_limits("# head\ntests 5\nproxy/api 3\ntests 4\n") == {"tests": 5, "proxy/api": 3}


def test_an_update_is_refused_if_the_sum_of_findings_grew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = tmp_path / "limits.txt"
    limits.write_text("docs 1\ntests 1\n")
    monkeypatch.setattr(prose, "LIMITS", limits)
    two = [prose.Finding("README.md", n, "x") for n in (1, 2)]
    monkeypatch.setattr(prose, "findings", lambda: [*two, prose.Finding("tests/a.py", 1, "x")])
    assert prose.main([]) == 1
    assert prose.main(["--update"]) == 1
    monkeypatch.setattr(prose, "findings", lambda: two)
    assert prose.main([]) == 1, "docs is above its limit, though the sum is not"
    assert prose.main(["--update"]) == 0
    assert prose.main([]) == 0
    assert prose.read_limits(limits.read_text()) == {"docs": 2}
