"""The commands of ``mlfix``, one module each: a typed configuration in, work by library calls, a printed summary.

Each module has ``run(cfg)``, where ``cfg`` is the dataclass of :mod:`mlfix_train.config` with the same name.
"""

import importlib
import os
from typing import Any

from mlfix_train.errors import ConfigError, describe_os_error, name_keys


def run_command(command: str, *overrides: str, function: str = "run") -> Any:
    """Runs a command from Python with the keys of the command line.

    A Hydra application may call this; its Hydra state stays as it is.

    Args:
        command: Such as ``"train"``.
        *overrides: ``key=value`` strings, such as ``"data.root=photos", "seed=3"``; ``"hydra.searchpath=[file://conf]"``
            makes presets of your own known, as ``--config-dir conf`` does on the command line.
        function: The function of the command's module to call.

    Returns:
        What the command returns: a run directory, a table, or a summary.

    Raises:
        MlfixError: Something the user can fix.

    Example:
        >>> from mlfix_train import MlfixError, run_command
        >>> try:
        ...     run_command("train", "data.root=nowhere", "data.rot=photos")
        ... except MlfixError as error:
        ...     print(error.problem)
        unknown key data.rot: mlfix_train.data.readers.folder.read_folder does not take it
    """
    from mlfix_train.config.compose import compose

    return run_composed(command, compose(command, overrides), function)


def run_composed(command: str, cfg: Any, function: str = "run") -> Any:
    """Runs a command on its composed Hydra configuration."""
    from mlfix_train.config.schemas import to_object

    settings = to_object(command, cfg)
    module = importlib.import_module(f"mlfix_train.commands.{command}")
    key = "outputs" if command == "train" else "out"
    out = str(getattr(settings, key))
    if os.path.isfile(os.path.expanduser(out)):
        raise ConfigError(f"{key}={out} is a file", f"set a folder: {key}=<folder>")
    try:
        with name_keys():
            return getattr(module, function)(settings)
    except OSError as error:
        if os.environ.get("MLFIX_TRACEBACK") or isinstance(error, BrokenPipeError):
            raise
        raise describe_os_error(error, key, out) from error
