"""Resources of the machine that this process may use."""


def cpu_count() -> int:
    """Returns the number of cores this process may use: within its CPU affinity and its container's quota."""
    import loky

    return int(loky.cpu_count())


def available_memory() -> int:
    """Returns the bytes that can be allocated without swapping; memory of the page cache counts as available."""
    import psutil

    return int(psutil.virtual_memory().available)
