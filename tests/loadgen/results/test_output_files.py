"""Run directories: claimed before a run, and files written completely or not at all."""

from pathlib import Path

import pytest

from loadgen.results.output_files import REQUESTS, RUN, claim, release, write_file


@pytest.mark.parametrize("name", [RUN, REQUESTS])
def test_a_directory_with_a_run_is_rejected_without_force(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("an old run")
    with pytest.raises(ValueError, match=r"--out .*: contains a run; .*--force"):
        claim(tmp_path, overwrite=False)
    assert not claim(tmp_path, overwrite=True)
    assert (tmp_path / name).read_text() == "an old run"


def test_a_new_directory_is_created_and_removed_again_if_empty(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    created = claim(out, overwrite=False)
    assert created == [out, tmp_path / "a"]
    assert list(out.iterdir()) == []
    release(created)
    assert not (tmp_path / "a").exists()
    created = claim(out, overwrite=False)
    (out / "note").touch()
    release(created)
    assert (out / "note").exists()


def test_a_file_as_output_directory_is_rejected_by_name(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ValueError, match=r"--out .*file: cannot be written: File exists"):
        claim(file, overwrite=False)


def test_a_file_that_cannot_be_written_is_named_and_the_old_one_stays(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("old")
    (tmp_path / "old.part").mkdir()  # cannot be opened as a file
    with pytest.raises(OSError, match="old"):
        write_file(old, b"new")
    assert old.read_text() == "old"


def test_a_full_device_is_named_and_not_replaced() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        write_file(Path("/dev/full"), b"data")
    assert caught.value.filename == "/dev/full"
    assert not Path("/dev/full").is_file()
