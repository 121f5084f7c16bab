"""Cores and memory of this process, against what the system says."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from mlfix_train.data.files.system import WAIT_VARIABLES, available_memory, cpu_count, let_threads_sleep


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="sets the CPU affinity")
def test_cores_follow_the_affinity() -> None:
    script = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from mlfix_train.data.files.system import cpu_count; print(cpu_count())"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "1\n"
    assert 1 <= cpu_count() <= len(os.sched_getaffinity(0))


def test_memory_counts_the_page_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system would give up for the asking is available: far more than what is unused."""
    memory = psutil.virtual_memory()._replace(available=3 << 30, free=1 << 20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert available_memory() == 3 << 30


def test_threads_sleep_unless_the_user_says_how_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WAIT_VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    let_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "5000")
    let_threads_sleep()
    assert "OMP_WAIT_POLICY" not in os.environ


def test_the_command_sets_it_before_torch_is_there() -> None:
    code = "import sys; from mlfix_train.cli import main; sys.argv = ['mlfix', '--version']; main.main(); import os; "
    code += "print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    env = {name: value for name, value in os.environ.items() if name not in WAIT_VARIABLES}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.splitlines()[-1] == "passive False"
