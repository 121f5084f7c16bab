"""Resources of the machine that this process may use."""

import os

WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Environment variables by which a user says how OpenMP's threads wait."""


def let_threads_sleep() -> None:
    """Has OpenMP's threads that wait for each other sleep instead of spin, unless the environment says how they wait.

    A thread that spins takes a core from those that compute; where other jobs run, that slows a training down several
    times (``docs/benchmarks.md``). Results stay the same bit by bit. Call it before torch is imported; processes that
    are started later inherit it.
    """
    if not any(name in os.environ for name in WAIT_VARIABLES):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def cpu_count() -> int:
    """Returns the number of cores this process may use: within its CPU affinity and its container's quota."""
    import loky

    return int(loky.cpu_count())


def available_memory() -> int:
    """Returns the bytes that can be allocated without swapping; memory of the page cache counts as available."""
    import psutil

    return int(psutil.virtual_memory().available)
