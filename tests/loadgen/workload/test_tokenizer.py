"""Token counts by a local tokenizer file, with the real library and a tokenizer made here."""

import asyncio
import sys
from pathlib import Path

import pytest

from loadgen.cli import main
from loadgen.client.http_client import Client, Target
from loadgen.client.text_capture import TextCapture
from loadgen.config.options import read_config
from loadgen.drive.attack import Attack
from loadgen.drive.pacer import ClosedLoop
from loadgen.drive.request import new_reader
from loadgen.results.run_directory import load
from loadgen.selfcheck.truth_server import Truth, TruthServer
from loadgen.workload.lengths import Fixed, Lengths
from loadgen.workload.request_bodies import Workload
from loadgen.workload.tokenizer import Tokenizer
from tests.timing import PATIENCE_SECONDS

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Letters are tokens, but for a few pairs; a space is one of its own."""
    from tokenizers import Tokenizer as Made
    from tokenizers.models import BPE

    letters = "abcdefghijklmnopqrstuvwxyz0123456789. "
    pairs = [("t", "h"), ("i", "n"), ("e", "r")]
    vocabulary = {one: at for at, one in enumerate([*letters, *("".join(pair) for pair in pairs)])}
    path = tmp_path / "tokenizer.json"
    Made(BPE(vocabulary, pairs)).save(str(path))
    return path


def test_it_counts_text(file: Path) -> None:
    tokenizer = Tokenizer(file)
    assert tokenizer.count(["", "abc", "thin", "other in"]) == [0, 3, 2, 5]
    assert tokenizer.running(["ab", "thin"]) == [0, 2, 5]


def test_prompts_have_the_specified_number_of_tokens(file: Path) -> None:
    tokenizer = Tokenizer(file)
    work = Workload("completions", "m", Lengths(Fixed(200), Fixed(4)), tokenizer=tokenizer)
    for index in range(50):
        text = work.body(index).split(b'"prompt":"')[1].split(b'"')[0].decode()
        assert tokenizer.count([text])[0] == pytest.approx(200, abs=12)  # a word of these has up to nine


@pytest.mark.parametrize(
    ("name", "says"), [("nowhere.json", "No such file"), ("wrong.json", "not a tokenizer")]
)
def test_a_file_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    (tmp_path / "wrong.json").write_text("[]")
    code = main(["--rate", "1", "--url", NOWHERE, "--tokenizer", str(tmp_path / name)])
    said = capsys.readouterr().err
    assert (code, said.count("\n")) == (2, 1)
    assert f"--tokenizer {tmp_path / name}: " in said
    assert says in said


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match=r"pip install 'jouleproxy\[tokenizer\]'"):
        Tokenizer(file)


@pytest.mark.parametrize("words", [(), ("--workers", "2")])
async def test_a_run_counts_the_tokens_of_the_response_text(
    tmp_path: Path, file: Path, words: tuple[str, ...]
) -> None:
    async with TruthServer(Truth(0.005, 0.001, 6)) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "loadgen.cli", "--concurrency", "2", "--requests", "6", "--slo", "60s",
            "--url", server.url, "--admin-url", NOWHERE, "--out", str(tmp_path / "run"),
            "--tokenizer", str(file), *words,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert process.returncode == 0, said.decode()
    run, records = load(tmp_path / "run")
    assert run.spec["tokenizer"] == str(file)
    counts = {record.output_tokens for record in records}
    assert counts == {6 * 5}, "six words of a space and four letters each, not the six tokens of usage"


@pytest.mark.parametrize(
    ("command", "words", "says"),
    [
        ("sweep", ["--simulate", "h100-llama-3.1-8b"], "not supported in virtual time"),
        ("run", ["--endpoint", "embeddings"], "chat or completions"),
    ],
)
def test_endpoints_without_text_are_rejected(command: str, words: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=f"--tokenizer.*{says}"):
        read_config(command, ["--rate", "1", "--tokenizer", "x.json", *words])


async def test_a_failure_without_text_has_an_unknown_number_of_tokens(file: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        client = Client(Target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        work = Workload("chat", "m", Lengths(Fixed(4), Fixed(4)))
        outcome = await Attack(client, work, ClosedLoop(1, None, 2), 0, "t", tokenizer=Tokenizer(file)).run()
        await client.close()
    assert [(r.error, r.output_tokens) for r in outcome.records] == [("HTTP 503", None)] * 2


@pytest.mark.parametrize("endpoint", ["embeddings", "images", "videos"])
def test_content_other_than_text_is_not_counted(endpoint: str) -> None:
    work = Workload(endpoint, "m", Lengths(Fixed(4), Fixed(4)))
    assert not isinstance(new_reader(work, capture_text=True), TextCapture)
