"""The README and the pages of docs/ agree with the program, and their links lead somewhere."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from proxy.config.settings import OPTIONS, load
from tests.contract.cases import CASES
from tests.e2e.serving import serving
from tests.fakes.model_server import MODEL, ModelServer

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


async def test_the_python_of_the_readme_runs_and_every_address_answers() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    paths = [path.split("?")[0] for path in re.findall(r"GET :9001(/[\w/]*)", README)]
    assert len(paths) > 5
    async with ModelServer(tokens=5, gap_seconds=0.01) as server:
        with serving(server.url, "--source", "none") as proxy:
            here = code.replace("http://127.0.0.1:9000", proxy.url).replace("llama-3.1-8b", MODEL)
            assert here != code
            printed = await run_python(here)
            assert printed.split() == ["None", "None", "None"], "no energy source: unknown, not 0"
            async with httpx.AsyncClient(base_url=proxy.admin) as admin:
                (record,) = (await admin.get("/energy/requests")).json()
                for path in paths:
                    name = record["request_id"] if path.endswith("requests/") else ""
                    answer = await admin.get(path + name, params={"start_ns": 0, "end_ns": 1})
                    assert answer.status_code == 200, path


async def run_python(code: str) -> str:
    """Return the output of a program that runs in a separate process."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("", "deploy", "docs", "docs/decisions", "examples")
    for path in (ROOT / folder).glob("*.md")
)


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_to_files_and_headings(page: str) -> None:
    path = ROOT / page
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", path.read_text()):
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_the_navigation_of_the_site_has_every_page_of_docs() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:")[1]
    listed = re.findall(r"[\w/-]+\.md", navigation)
    assert sorted(f"docs/{page}" for page in listed) == [page for page in PAGES if page.startswith("docs/")]


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    """A path in backquotes is relative to the root."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for path in re.findall(r"`((?:proxy|loadgen|tests|deploy|docs|examples)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path


def test_the_settings_of_the_operations_page_are_there_and_so_is_every_wait(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", page))
    assert named - OPTIONS.keys() == {"prompt_cache_key", "jouleproxy_backend_up", "in_progress"}
    assert {name for name in OPTIONS if name.endswith("_timeout_seconds")} <= named
    for name, default in re.findall(r"^\| `(\w+_timeout_seconds)` \| (\d+) \|", page, re.MULTILINE):
        assert OPTIONS[name].default == float(default), name
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "j.toml").write_text(example.replace('ca_file = "/etc/ssl/engine.pem"', ""))
    config = load({"config": str(tmp_path / "j.toml")}, {})
    assert [backend.name for backend in config.backends] == ["a", "10.0.0.2:8443"]


def test_the_conformance_table_of_the_benchmarks_page_lists_every_case() -> None:
    table = (ROOT / "docs" / "benchmarks.md").read_text().split("## Conformance")[1]
    rows = re.findall(r"^\| ([^|*]+?) \|", table, re.MULTILINE)
    assert rows == ["case", *(case.title for case in CASES), "passed"]
