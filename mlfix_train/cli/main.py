"""The ``mlfix`` command: a word for the verb, then its keys. Heavy imports happen inside the verb."""

from __future__ import annotations

import logging
import os
import sys

from mlfix_train import COMMANDS, __version__
from mlfix_train.errors import ConfigError, MlfixError, did_you_mean, describe_os_error

UNEXPECTED = 70
"""Exit code of a fault of our own (EX_SOFTWARE of sysexits.h)."""
SUMMARIES = {
    "crop": "photos with boxes (MTSD, COCO, YOLO, VOC) to crops and their table",
    "train": "one run of a classifier or of the sorting network; -m sweeps over seeds and arms",
    "sort": "images in an order in which neighbours look alike; near-duplicates",
    "audit": "runs to a ranking of doubtful labels, with estimates, panels and a page",
    "review": "the page where wrong labels are marked; writes fixes.csv",
    "compare": "before against after, evaluation and training effect apart",
    "export": "fixes back into MTSD, COCO, YOLO or VOC annotations; an audit to other tools",
    "demo": "the whole loop on rendered signs with planted label errors",
}

HELP = f"""mlfix {__version__}: find wrong labels in image data, fix them, and prove what it bought.

  mlfix sort data.root=photos                      photos/<label>/<picture>, or unsorted: look at sort/panels
  mlfix train data.root=photos                     a baseline
  mlfix audit runs=outputs/default out=audit       what the models find least believable
  mlfix review audit=audit                         mark them on a page: review/fixes.csv
  mlfix train data.root=photos fixes.path=review/fixes.csv arm=fixed
  mlfix compare original=outputs/default/original fixed=outputs/default/fixed fixes.path=review/fixes.csv

verbs
{{verbs}}

mlfix <verb> --help shows all keys of a verb; keys are given as key=value, and -m sweeps: seed=range(0,20)
"""


def help_text() -> str:
    """Returns what ``mlfix --help`` prints."""
    return HELP.format(verbs="\n".join(f"  {verb:<9}{SUMMARIES[verb]}" for verb in COMMANDS))


def main() -> None:
    """Runs the command line and exits: 0 done, 1 to mend, 2 no such verb or key, 70 our fault, 130 interrupted."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text(), end="")
        sys.exit(0 if arguments else 2)
    if arguments[0] in ("-V", "--version"):
        print(__version__)
        return
    if arguments[0] == "--sweep-worker":
        from mlfix_train.training.launchers.local import serve

        sys.exit(serve(lambda overrides: guarded("train", overrides)))
    sys.exit(guarded(arguments[0], arguments[1:]))


def guarded(verb: str, arguments: list[str]) -> int:
    """Runs one verb; returns the exit code, for faults of our own too."""
    try:
        return run(verb, arguments)
    except Exception:
        import traceback

        traceback.print_exc()
        print("mlfix: this is a fault of mlfix-train's own; please report it with the lines above", file=sys.stderr)
        return UNEXPECTED


def run(verb: str, arguments: list[str]) -> int:
    """Runs one verb; returns the exit code."""
    _say_logs()
    try:
        if verb not in COMMANDS:
            raise ConfigError("no such verb", did_you_mean(verb, COMMANDS))
        if "--help" in arguments or "-h" in arguments:
            from mlfix_train.config.keys import describe_keys

            print(f"mlfix {verb}: {SUMMARIES[verb]}\n\n{describe_keys(verb)}", flush=True)
            return 0
        if verb == "train" and any(argument in ("-m", "--multirun") for argument in arguments):
            return _sweep(arguments)
        failed = _hydra(verb, arguments)
        if len(failed) == 1:
            raise failed[0]
        if failed:
            print(f"mlfix {verb}: {len(failed)} jobs failed, see above", file=sys.stderr)
        return 1 if failed else 0
    except ConfigError as error:
        print(f"mlfix {verb}: {error}", file=sys.stderr)
        return 2
    except MlfixError as error:
        print(f"mlfix {verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        if interrupt.args != ("said",):
            print(f"mlfix {verb}: interrupted", file=sys.stderr)
        return 130


class _Console(logging.Handler):
    """Prints messages as plain lines to whatever standard error is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a message."""
        print(self.format(record), file=sys.stderr, flush=True)


def _say_logs() -> None:
    ours = logging.getLogger("mlfix_train")
    ours.setLevel(logging.INFO)
    if not any(isinstance(handler, _Console) for handler in ours.handlers):
        ours.addHandler(_Console())


FLAGS = (
    "--multirun", "--cfg", "--resolve", "--package", "--config-dir", "--config-path", "--config-name", "--info",
    "--help", "--run", "--hydra-help", "--shell-completion", "--experimental-rerun", "--version",
)  # fmt: skip


def _in_order(arguments: list[str]) -> list[str]:
    """Puts -m before the keys, where Hydra wants it, and refuses options that don't exist."""
    for argument in arguments:
        if argument.startswith("--") and argument.partition("=")[0] not in FLAGS:
            hint = f"{did_you_mean(argument, FLAGS)} Keys are given as key=value"
            raise ConfigError(f"{argument} is no option", hint)
    front = [argument for argument in arguments if argument in ("-m", "--multirun")]
    return [*front[:1], *(argument for argument in arguments if argument not in ("-m", "--multirun"))]


def _sweep(arguments: list[str]) -> int:
    """Trains the runs of a sweep, and prints what became of each; returns the exit code."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if any(argument in ("--cfg", "-c", "--info") for argument in arguments):
        return len(_hydra("train", arguments))
    from mlfix_train.config import build as config
    from mlfix_train.training import sweep

    options = [argument for argument in _in_order(arguments) if argument.startswith("-")]
    keys = sweep.ordered([argument for argument in arguments if not argument.startswith("-")])
    try:
        planned = sweep.plan(config.normalize_overrides(keys, sweep=True))
    except (ValueError, TypeError) as error:
        raise config.explain("train", error) from error
    count, gpus = sweep.processes(planned.settings)
    failed = 0
    sweep.enable_cache(count == 1)
    try:
        failed = sweep.run_processes(planned, count, gpus) if count > 1 else len(_hydra("train", [*options, *keys]))
    finally:
        sweep.enable_cache(False)
        whole = sweep.report(planned.jobs)
        if failed:
            print(f"           {failed} could not be trained as asked: see their messages above", flush=True)
    return 0 if whole and not failed else 1


def _hydra(verb: str, arguments: list[str]) -> list[MlfixError]:
    """Hands over to Hydra: composing, --cfg, --multirun and launchers are its.

    Returns:
        Mistakes that stopped a job; the other jobs of a sweep run all the same.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us instead of being printed
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from mlfix_train.config import build as config
    from mlfix_train.config.keys import config_dir
    from mlfix_train.training.sweep import attempt

    sweep = any(argument in ("-m", "--multirun") for argument in arguments)
    arguments = _in_order(arguments)
    failed: list[MlfixError] = []
    started: list[bool] = []
    told: set[str] = set()

    @hydra.main(version_base="1.3", config_path=config_dir(), config_name=verb)
    def job(cfg: object) -> None:
        started.append(True)
        retries = int(getattr(cfg, "retries", 0) or 0)
        folder = str(getattr(cfg, "outputs" if verb == "train" else "out", ""))
        error = attempt(lambda: config.run_command(verb, cfg), verb, retries, sweep, folder)  # type: ignore[arg-type]
        if error is not None:
            failed.append(error)
            if sweep:
                again = str(error) in told
                told.add(str(error))
                words = f"{error.problem}: as before" if again else str(error)
                print(f"mlfix {verb}: {words}", file=sys.stderr, flush=True)

    before = sys.argv
    sys.argv = [before[0], *config.normalize_overrides(arguments, sweep)]
    try:
        job()
    except (HydraException, OmegaConfBaseException, ValueError, TypeError, OSError) as error:
        if isinstance(error, (HydraException, OmegaConfBaseException)) or not (started or isinstance(error, OSError)):
            raise config.explain(verb, error) from error
        if isinstance(error, OSError):
            raise describe_os_error(error, "outputs" if verb == "train" else "out") from error
        raise
    finally:
        sys.argv = before
    return failed


if __name__ == "__main__":
    main()
