"""``mlfix train -m``: what Hydra's launchers call for each run of a sweep, and what is planned and printed."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from mlfix_train.cli.console import configure_logging
from mlfix_train.commands.train_stop import StudyWatch
from mlfix_train.commands.train_sweep import AttemptPrinter, print_best, print_sweep, train_composed
from mlfix_train.config.sweep import PlannedRun, fixed_keys, overrides_of, plan_runs
from mlfix_train.data.arms import warn_if_only_relabelled
from mlfix_train.data.fixes.table import read_fixes
from mlfix_train.data.runs import run_path
from mlfix_train.errors import ConfigError, MlfixError
from mlfix_train.training.launchers.serial import train_with_retries
from mlfix_train.training.signals import handle_signals
from mlfix_train.training.sweep import Attempt, SweepRun, mark_interrupted


class SweepTask:
    """The task function of a sweep, which Hydra's launchers call with the configuration of each run.

    In the process of the sweep it also plans the runs, and keeps what became of them; a copy in a worker has none of
    that.

    Args:
        swept: Keys of one value that another program sweeps, such as `wandb agent`.

    Attributes:
        paths: The run directories planned so far.
        folder: Where Hydra and its sweeper put files of their own; ``None`` before it is known.
        errors: What stopped runs.
        reads_values: Whether the sweeper makes something of the values of the runs, as one that optimizes does.
        first_number: Hydra's number of the first run that is launched.
        resources: Where launchers keep workers between batches; closed at the end of the sweep.
    """

    def __init__(self, swept: Sequence[str] = ()) -> None:
        self.swept = swept
        self.paths: list[Path] = []
        self.folder: Path | None = None
        self.errors: list[BaseException] = []
        self.reads_values, self.first_number = False, 0
        self.resources = ExitStack()
        self._printer = AttemptPrinter()

    def __reduce__(self) -> tuple[type[SweepTask], tuple[()]]:
        return SweepTask, ()

    def __call__(self, cfg: DictConfig) -> float | None:
        """Trains a run, unless it is finished, and returns its held-out error; raises what stops it."""
        configure_logging()
        return train_composed(cfg)

    @contextmanager
    def launching(
        self,
        config: DictConfig,
        compose: Callable[[Sequence[str], int], DictConfig],
        batch: Sequence[Sequence[str]],
        first_number: int,
    ) -> Iterator[list[PlannedRun]]:
        """Plans runs for the block, which trains them.

        Args:
            config: The configuration of the sweep.
            compose: Returns the configuration that overrides make; the number is that of the run.
            batch: The overrides of each run.
            first_number: Hydra's number of the first one.

        Raises:
            ConfigError: An unknown key, an invalid value, or two runs that would share a directory.
        """
        if not batch:
            swept = " ".join(one for one in overrides_of(config) if "(" in one)
            raise ConfigError(f"the sweep has no runs: {swept} has no values", "write key=range(0,10) or key=a,b")
        is_grid = config.hydra.runtime.choices["hydra/sweeper"] == "basic"
        complete = is_grid and config.hydra.sweeper.get("max_batch_size") is None and not self.swept
        self.reads_values, self.first_number = not is_grid, first_number
        fixed = fixed_keys(overrides_of(config)) - set(self.swept)
        planned = plan_runs(batch, lambda overrides, n: compose(overrides, first_number + n), fixed, complete)
        fixes = {str(run.settings.fixes.path) for run in planned if run.settings.arm == "control"} - {"None"}
        for path in fixes if not self.paths else ():
            warn_if_only_relabelled(read_fixes(path))
        self.paths += [path for path in dict.fromkeys(run.path for run in planned) if path not in self.paths]
        self._printer.total = len(self.paths) if complete else None
        with handle_signals() as signals:
            try:
                yield planned
            finally:
                with signals.blocked():
                    mark_interrupted(self.paths)

    def train_until_decided(
        self, runs: Sequence[SweepRun], train: Callable[[Sequence[SweepRun]], list[Attempt]]
    ) -> list[Attempt]:
        """Trains runs, with ``stop=auto`` in blocks of seeds until the training effect is decided."""
        stop = runs[0].job.settings.stop if runs else None
        if stop is None or not stop.auto:
            return train(runs)
        if self.reads_values:
            raise ConfigError("stop=auto needs all runs of the sweep beforehand", "leave out hydra/sweeper, or stop")
        watch = StudyWatch({run.path: run.job.settings for run in runs}, stop)
        attempts: list[Attempt] = []
        for block in watch.blocks:
            attempts += train([run for run in runs if run.path in block])
            if watch.is_decided():
                trained = {attempt.run.path for attempt in attempts}
                self.paths = [path for path in self.paths if path in trained]
                break
        return attempts

    def report(self, attempt: Attempt, with_traceback: bool = True) -> None:
        """Prints how an attempt at a run ended, and remembers what stopped it."""
        self._printer(attempt, with_traceback)
        if attempt.error is not None and not attempt.retried:
            self.errors.append(attempt.error)

    def finish(self) -> bool:
        """Prints what became of the runs; if none could be planned, removes what Hydra wrote about the sweep before.

        Returns:
            Whether all are finished as they were asked for.
        """
        if not self.paths:
            if self.folder is not None:
                (self.folder / "multirun.yaml").unlink(missing_ok=True)
                with suppress(OSError):  # it is missing, or holds other sweeps
                    self.folder.rmdir()
            return False
        finished = print_sweep(self.paths)
        if self.reads_values:
            print_best(self.paths)
        if self.errors:
            print(
                f"           {len(self.errors)} could not be trained as requested; see the messages above", flush=True
            )
        return finished and not self.errors


def retried_task(retries: int) -> Callable[[DictConfig], float | None]:
    """Returns a task function that tries a run again where it is trained, if it failed unexpectedly."""
    return partial(_train_with_retries, retries)


def _train_with_retries(retries: int, cfg: DictConfig) -> float | None:
    fold = cfg.split.fold if cfg.split.folds is not None else None
    run = SweepRun(run_path(str(cfg.outputs), str(cfg.name), str(cfg.arm), cfg.seed, fold), cfg)
    task, printer = SweepTask(), AttemptPrinter()

    def report(attempt: Attempt) -> None:  # the rest is printed by the process of the sweep, which gets no traceback
        if attempt.retried:
            printer(attempt)
        elif attempt.error is not None and not isinstance(attempt.error, MlfixError):
            traceback.print_exception(attempt.error)

    attempt = train_with_retries(run, lambda run: task(run.job), retries, report)
    if attempt.error is not None:
        raise attempt.error
    value: float | None = attempt.value
    return value
