"""Cores and memory of this process, against what the system says."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from mlfix_train.data.files.system import available_memory, cpu_count


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
