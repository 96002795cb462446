from pathlib import Path

import pytest

from tests import generated


@pytest.mark.parametrize("name", generated.TABLES)
def test_the_table_in_the_documentation_is_current(name: str) -> None:
    file, make = generated.TABLES[name]
    page = (generated.DOCS / file).read_text()
    assert generated.current(page, name, make()) == page, "run: make format"


def test_a_stale_table_is_found_and_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n\n<!-- generated: t -->\n\nold\n\n<!-- end of t -->\n\nb\n")
    monkeypatch.setattr(generated, "DOCS", tmp_path)
    monkeypatch.setattr(generated, "TABLES", {"t": ("page.md", lambda: "new")})
    assert generated.main([]) == 1
    assert "docs/page.md: the table t is not current" in capsys.readouterr().out
    assert generated.main(["--update"]) == 0
    assert page.read_text() == "a\n\n<!-- generated: t -->\n\nnew\n\n<!-- end of t -->\n\nb\n"
    assert generated.main([]) == 0


def test_a_page_without_a_place_for_its_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 places"):
        generated.current("no table\n", "t", "new")


def test_a_pipe_within_a_cell_is_escaped() -> None:
    assert generated.table(("a", "b"), [("x|y", "")]) == "| a | b |\n|---|---|\n| x\\|y | |"
