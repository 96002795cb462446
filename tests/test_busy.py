"""The burners of ``make test-busy`` run while the command does, and no longer."""

import subprocess
import sys

import psutil
import pytest

from tests.busy import burners
from tests.timing import PATIENCE_SECONDS, Punctuality


def test_the_exit_status_is_the_commands_and_burners_run_beside_it() -> None:
    look = "import os, psutil; print(len(psutil.Process(os.getppid()).children())); raise SystemExit(7)"
    done = subprocess.run(
        [sys.executable, "-m", "tests.busy", sys.executable, "-c", look],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert int(done.stdout) >= 2, "a burner, and the command itself"


def test_burners_end_with_the_block() -> None:
    with burners(1) as pids:
        assert psutil.pid_exists(pids[0])
    assert not psutil.pid_exists(pids[0])


def test_burners_end_with_a_parent_that_is_killed() -> None:
    lines = ("import time", "from tests.busy import burners", "with burners(1) as pids:")
    code = "\n".join((*lines, "    print(pids[0], flush=True)", "    time.sleep(600)"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        burner = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    gone, _ = psutil.wait_procs([burner], timeout=PATIENCE_SECONDS)
    assert gone == [burner]


def test_a_time_that_is_right_is_not_excused_and_a_late_machine_is() -> None:
    with Punctuality() as machine:
        pass
    machine.late_seconds = 0.0
    machine.judge(True, "it is right")
    with pytest.raises(pytest.fail.Exception, match="20 ms"):
        machine.judge(False, "20 ms")
    machine.late_seconds = 0.03
    with pytest.raises(pytest.skip.Exception, match="30 ms late meanwhile: 20 ms"):
        machine.judge(False, "20 ms")
