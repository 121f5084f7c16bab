"""The ``mlfix`` command: a command word, then its keys. Heavy imports happen inside the commands."""

import logging
import os
import sys
from typing import Any

from mlfix_train import COMMANDS, __version__
from mlfix_train.errors import ConfigError, MlfixError, did_you_mean, own_code

UNEXPECTED = 70
"""Exit code of a bug in mlfix-train (``EX_SOFTWARE`` of sysexits.h)."""
MULTIRUN = ("-m", "--multirun")
FLAGS = (
    *("--multirun", "--run", "--cfg", "--resolve", "--package", "--config-dir", "--config-path", "--config-name"),
    *("--info", "--help", "--hydra-help", "--shell-completion", "--experimental-rerun", "--version"),
)
"""Hydra's flags."""


def main() -> None:
    """Runs the command line and exits: 0 done, 1 to fix, 2 unknown command or key, 70 a bug, 130 interrupted."""
    from mlfix_train.cli.help import help_text

    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        sys.exit(0 if arguments else 2)
    if arguments[0] in ("-V", "--version"):
        print(__version__)
        return
    sys.exit(run_safely(arguments[0], arguments[1:]))


def run_safely(command: str, arguments: list[str]) -> int:
    """Runs one command and returns its exit code, also for bugs of mlfix-train."""
    try:
        return _train(arguments) if command == "train" else run(command, arguments)
    except BrokenPipeError:  # such as `mlfix train --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing left to flush at exit
        return 0
    except Exception as error:
        import traceback

        traceback.print_exc()
        place = own_code(error)
        if place:
            print(f"mlfix: the error comes from {place}, not from mlfix-train", file=sys.stderr)
            return 1
        print("mlfix: this is a bug in mlfix-train; please report it with the lines above", file=sys.stderr)
        return UNEXPECTED


def _train(arguments: list[str]) -> int:
    """Runs ``mlfix train``, which signals end in order, even when it is still loading libraries."""
    from mlfix_train.training.signals import RunInterrupted, handle_signals

    try:
        with handle_signals():
            return run("train", arguments)
    except RunInterrupted as interrupt:
        return interrupt.exit_code


def run(command: str, arguments: list[str]) -> int:
    """Runs one command and returns its exit code."""
    configure_logging()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    try:
        if command not in COMMANDS:
            raise ConfigError("unknown command", did_you_mean(command, COMMANDS))
        if "--help" in arguments or "-h" in arguments:
            from mlfix_train.cli.help import command_help

            print(command_help(command), flush=True)
            return 0
        if command == "train" and any(argument in MULTIRUN for argument in arguments):
            return _sweep(arguments)
        failed = _run_hydra(command, arguments)
        if len(failed) == 1:
            raise failed[0]
        if failed:
            print(f"mlfix {command}: {len(failed)} jobs failed, see above", file=sys.stderr)
        return 1 if failed else 0
    except MlfixError as error:
        print(f"mlfix {command}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt as interrupt:
        print(f"mlfix {command}: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return getattr(interrupt, "exit_code", 130)


class _Console(logging.Handler):
    """Prints messages as plain lines to whatever standard error is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def configure_logging() -> None:
    """Sends the package's log messages to standard error as plain lines."""
    logger = logging.getLogger("mlfix_train")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _Console) for handler in logger.handlers):
        logger.addHandler(_Console())


def _flags_first(arguments: list[str]) -> list[str]:
    """Puts ``-m`` before the keys, where Hydra wants it, and rejects unknown flags."""
    for argument in arguments:
        if argument.startswith("--") and argument.partition("=")[0] not in FLAGS:
            raise ConfigError(f"unknown flag {argument}", f"{did_you_mean(argument, FLAGS)} Write keys as key=value")
    front = [argument for argument in arguments if argument in MULTIRUN]
    return [*front[:1], *(argument for argument in arguments if argument not in MULTIRUN)]


def _sweep(arguments: list[str]) -> int:
    """Trains the runs of a sweep, prints a table of their states, and returns the exit code."""
    if any(argument in ("--cfg", "-c", "--info") for argument in arguments):
        return len(_run_hydra("train", arguments))
    from mlfix_train.commands.train_sweep import sweep
    from mlfix_train.config.explain import explain
    from mlfix_train.config.overrides import normalize_overrides
    from mlfix_train.training.sweep import alternate_arms

    arguments = _config_dir_as_key(arguments)
    flags = [argument for argument in _flags_first(arguments) if argument.startswith("-")]
    keys = alternate_arms([argument for argument in arguments if not argument.startswith("-")])
    by_hydra = any(key.startswith(("hydra/launcher=", "hydra/sweeper=")) for key in keys)
    launch = (lambda: _run_hydra("train", [*flags, *keys])) if by_hydra else None
    try:
        return 0 if sweep(normalize_overrides(keys, sweep=True), configure_logging, launch) else 1
    except (ValueError, TypeError) as error:
        raise explain("train", error) from error


def _config_dir_as_key(arguments: list[str]) -> list[str]:
    """Replaces ``--config-dir <folder>`` by the key ``hydra.searchpath``, which the runs of a sweep can be given."""
    folders, others = [], []
    rest = iter(arguments)
    for argument in rest:
        flag, equals, folder = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            folders.append(os.path.abspath(folder if equals else next(rest, "")))
        else:
            others.append(argument)
    if not folders:
        return arguments
    for folder in folders:
        if not os.path.isdir(folder):
            raise ConfigError(f"--config-dir: there is no folder {folder}", "give the folder of your presets")
    given = [one.removeprefix("hydra.searchpath=").strip("[]") for one in others if one.startswith("hydra.searchpath=")]
    others = [one for one in others if not one.startswith("hydra.searchpath=")]
    places = ",".join([*(f"'file://{folder}'" for folder in folders), *given])
    return [*others, f"hydra.searchpath=[{places}]"]


def _run_hydra(command: str, arguments: list[str]) -> list[MlfixError]:
    """Hands over to Hydra, which composes the configuration, and handles ``--cfg``, ``--multirun`` and launchers.

    Returns:
        Errors that stopped a job; the other jobs of a sweep still run.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from mlfix_train.commands import run_composed
    from mlfix_train.config.explain import explain
    from mlfix_train.config.overrides import normalize_overrides
    from mlfix_train.config.paths import config_dir
    from mlfix_train.config.schemas import register_schema

    register_schema(command)
    multirun = any(argument in MULTIRUN for argument in arguments)
    arguments = _flags_first(arguments)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # modules next to the command, for _target_
    failed: list[MlfixError] = []
    started: list[bool] = []

    @hydra.main(version_base="1.3", config_path=config_dir(), config_name=command)
    def job(cfg: Any) -> None:
        started.append(True)
        if multirun:
            from mlfix_train.commands.train_sweep import attempt_composed

            failed.extend(attempt_composed(cfg))
            return
        try:
            run_composed(command, cfg)
        except MlfixError as error:
            failed.append(error)

    argv = sys.argv
    sys.argv = [argv[0], *normalize_overrides(arguments, multirun)]
    try:
        job()
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
        if isinstance(error, (HydraException, OmegaConfBaseException)) or not started:
            raise explain(command, error) from error
        raise
    finally:
        sys.argv = argv
    return failed


if __name__ == "__main__":
    main()
