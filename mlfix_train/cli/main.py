"""The ``mlfix`` command: a command word, then its keys. Heavy imports happen inside the commands."""

import os
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from mlfix_train import COMMANDS, __version__
from mlfix_train.cli.console import configure_logging
from mlfix_train.errors import ConfigError, MlfixError, did_you_mean, own_code

UNEXPECTED = 70
"""Exit code of a bug in mlfix-train (``EX_SOFTWARE`` of sysexits.h)."""
MULTIRUN = ("-m", "--multirun")
SHOWING = ("--cfg", "-c", "--info", "-i", "--shell-completion", "-sc", "--hydra-help", "--version")
"""Hydra's flags that show something instead of running."""
WITH_VALUE = (
    *("--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"),
    "--experimental-rerun",
)
"""Hydra's flags that take a value."""
FLAGS = (
    *("-m", "--multirun", "-r", "--run", "--resolve", "-sc", "--shell-completion", "-i", "--info", "-h", "--help"),
    *("--hydra-help", "--version", *WITH_VALUE),
)
"""Hydra's flags."""


def main() -> None:
    """Runs the command line and exits: 0 done, 1 to fix, 2 unknown command or key, 70 a bug, 130 interrupted."""
    from mlfix_train.cli.help import help_text
    from mlfix_train.data.files.system import let_threads_sleep

    let_threads_sleep()
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
        flags, keys, dashed = _take_apart(arguments)
        _config_dir(flags)
        of_agent = dashed if os.environ.get("WANDB_SWEEP_ID") else []  # a run of a sweep of W&B's
        is_sweep = any(flag in MULTIRUN for flag in flags) or "hydra.mode=MULTIRUN" in keys or bool(of_agent)
        shown = any(flag.partition("=")[0] in SHOWING for flag in flags)
        flags = [flag for flag in flags if flag not in MULTIRUN]
        if command == "train" and is_sweep and not shown:
            return _sweep(flags, keys, of_agent)
        return _run_jobs(command, ["-m", *flags] if is_sweep and not shown else flags, keys)
    except MlfixError as error:
        print(f"mlfix {command}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt as interrupt:
        print(f"mlfix {command}: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return getattr(interrupt, "exit_code", 130)


def _take_apart(arguments: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Takes a command line apart into Hydra's flags with their values, keys, and keys that were given as flags.

    ``--key=value``, as `wandb agent` passes it, is a key; the keys have it too.

    Raises:
        ConfigError: An unknown flag, or one that lacks its value.
    """
    flags: list[str] = []
    keys: list[str] = []
    dashed: list[str] = []
    rest = deque(arguments)
    while rest:
        argument = rest.popleft()
        flag, equals, _ = argument.partition("=")
        if flag in FLAGS:
            flags.append(argument)
            is_value = bool(rest) and not rest[0].startswith("-")
            if flag in WITH_VALUE and not equals and not is_value:
                raise ConfigError(f"{flag} lacks its value", f"write {flag} <value>")
            if not equals and is_value and (flag in WITH_VALUE or (flag in ("--info", "-i") and "=" not in rest[0])):
                flags.append(rest.popleft())
        elif flag.startswith("--") and equals and "-" not in flag[2:]:
            keys.append(f"{argument[2:-4]}null" if argument.endswith("=None") else argument[2:])
            dashed.append(flag[2:])
        elif flag.startswith("-"):
            hint = f"{did_you_mean(flag, FLAGS)} Write keys as key=value or --key=value"
            raise ConfigError(f"unknown flag {argument}", hint)
        else:
            keys.append(argument)
    return flags, keys, dashed


def _config_dir(flags: list[str]) -> None:
    """Checks the folder of ``--config-dir``.

    Raises:
        ConfigError: There is no such folder.
    """
    for number, flag in enumerate(flags):
        name, equals, folder = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            place = os.path.abspath(folder if equals else flags[number + 1])
            if not os.path.isdir(place):
                raise ConfigError(f"--config-dir: there is no folder {place}", "give the folder of your presets")


def _sweep(flags: list[str], keys: list[str], swept: list[str]) -> int:
    """Trains the runs of a sweep, prints a table of their states, and returns the exit code.

    ``swept`` are keys of one value that another program sweeps.
    """
    from mlfix_train.cli.sweep import SweepTask
    from mlfix_train.data.cache import caching
    from mlfix_train.training.sweep import alternate_arms

    task, done = SweepTask(swept), False
    try:
        with caching(), task.resources:
            _run_hydra("train", ["-m", *flags], alternate_arms(keys), task, lambda: bool(task.paths))
    except MlfixError as error:
        if error not in task.errors:
            raise
    except Exception as error:
        if error not in task.errors:  # an optimizing sweeper passes on what stopped a run, which is printed already
            raise
    finally:
        done = task.finish()
    return 0 if done else 1


def _run_jobs(command: str, flags: list[str], keys: list[str]) -> int:
    """Runs a command on its configuration, with ``-m`` on several, and returns its exit code."""
    from mlfix_train.commands import run_composed

    started: list[bool] = []
    failed: list[MlfixError] = []

    def job(cfg: Any) -> None:
        started.append(True)
        try:
            is_rank = "LOCAL_RANK" in os.environ  # a process of a run of a sweep, started by Lightning
            if command == "train" and "-m" not in flags and cfg.stop.auto and not is_rank:
                hint = "add -m, as in mlfix train -m sweep=before_after stop=auto, or leave out stop"
                raise ConfigError("stop=auto ends a sweep early, and this is a single run", hint)
            run_composed(command, cfg)
        except MlfixError as error:  # the other jobs still run
            failed.append(error)

    _run_hydra(command, flags, keys, job, lambda: bool(started))
    if len(failed) == 1:
        raise failed[0]
    for error in failed:
        print(f"mlfix {command}: {error}", file=sys.stderr)
    return 1 if failed else 0


def _run_hydra(
    command: str, flags: list[str], keys: list[str], task: Callable[[Any], Any], has_begun: Callable[[], bool]
) -> None:
    """Hands over to Hydra, which composes the configuration, and calls the task function with it.

    Hydra also handles ``--cfg`` and its like, sweepers and launchers.

    Raises:
        ConfigError: A configuration that cannot be composed, which shows before the task has begun.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from mlfix_train.config.compose import private_hydra
    from mlfix_train.config.explain import explain
    from mlfix_train.config.overrides import normalize_overrides
    from mlfix_train.config.paths import config_dir
    from mlfix_train.config.schemas import register_schema

    register_schema(command)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # modules next to the command, for _target_
    argv = sys.argv
    sys.argv = [argv[0], *flags, *normalize_overrides(keys, sweep="-m" in flags)]
    try:
        with private_hydra():
            hydra.main(version_base="1.3", config_path=config_dir(), config_name=command)(task)()
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
        if isinstance(error, (HydraException, OmegaConfBaseException)) or not has_begun():
            raise explain(command, error) from error
        raise
    finally:
        sys.argv = argv


if __name__ == "__main__":
    main()
