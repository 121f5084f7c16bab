"""Weights & Biases as a tracker: the mode of a run, and what is logged to it.

Nothing here ever prompts. Without a login, a run is kept offline beside the run directory; ``wandb sync`` uploads it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mlfix_train.audit.reporting.pictures import Picture
from mlfix_train.errors import check_choice

log = logging.getLogger(__name__)

MODES = ("auto", "online", "offline", "disabled")
WANDB_MODES = {"dryrun": "offline", "run": "online", "shared": "shared"}
"""Further values of ``WANDB_MODE`` that W&B takes, and what they mean."""
OFFLINE = "this run is kept offline, for `wandb sync`"
FINISH_TIMEOUT = 300.0
"""Seconds that the end of a run waits for uploads; what is left lies on disk, for ``wandb sync``."""
IMAGES_PER_TABLE = 108
"""Number of images that W&B keeps per key and step."""
TABLE_ROWS = 200_000
"""Number of rows that W&B keeps per table."""


def wandb_mode(setting: str) -> str:
    """Returns the mode of a run, ``online``, ``offline`` or ``disabled``, from the key ``logger.mode``.

    ``auto`` is ``WANDB_MODE`` where that is set, else online for users who are logged in, else offline. A server that
    can't be reached, or refuses the API key, makes a run offline, with a warning; nothing ever prompts.
    """
    mode = (os.environ.get("WANDB_MODE") or "online") if setting == "auto" else setting
    mode = WANDB_MODES.get(mode, mode)
    if mode not in (*MODES[1:], *WANDB_MODES.values()):
        log.warning("WANDB_MODE=%s is not a mode of W&B: nothing is logged to it", mode)
        return "disabled"
    if mode == "online" and not _logged_in(required="online" in (setting, os.environ.get("WANDB_MODE"))):
        return "offline"
    return mode


def _logged_in(required: bool) -> bool:
    """Whether W&B's server takes the API key, without asking for one; if ``required``, warns if there is none."""
    import wandb

    if wandb.run is not None:
        return True  # a run of the caller's own
    os.environ.setdefault("WANDB_SILENT", "true")
    before = os.environ.pop("WANDB_MODE", None)  # the key wins over it, and login() does nothing with `offline`
    try:
        logged_in = wandb.login(prompt=False, verify=True)
    except Exception as error:  # refused or unreachable, a malformed key, a home that can't be read
        log.warning("W&B can't be used online: %s (%s)", OFFLINE, _first_line(error))
        return False
    finally:
        os.environ |= {"WANDB_MODE": before} if before is not None else {}
    if not logged_in and required:
        log.warning("not logged in to W&B: %s (`wandb login` logs in)", OFFLINE)
    return bool(logged_in)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


class WandbTracker:
    """A W&B run, as what an audit or a comparison logs to.

    Args:
        run: the run; it stays the caller's to finish.
    """

    def __init__(self, run: Any) -> None:
        self.run = run

    @property
    def name(self) -> str:
        """The name of the run."""
        return str(self.run.name or "")

    def log_pictures(self, pictures: Sequence[Picture]) -> None:
        """Logs each picture under its own key: W&B displays all pictures of a key at one size."""
        import wandb

        images = {picture.key: wandb.Image(str(picture.path), caption=picture.caption) for picture in pictures}
        if images:
            self.run.log(images)

    def log_table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Logs a table; cells that are arrays ``(H, W, 3)`` become images."""
        import wandb

        limit = IMAGES_PER_TABLE if any(isinstance(cell, np.ndarray) for row in rows for cell in row) else TABLE_ROWS
        table = wandb.Table(columns=list(columns))
        for row in rows[:limit]:
            table.add_data(*(wandb.Image(cell) if isinstance(cell, np.ndarray) else cell for cell in row))
        self.run.log({key: table})

    def log_page(self, key: str, path: Path) -> None:
        """Logs a self-contained HTML file."""
        import wandb

        self.run.log({key: wandb.Html(str(path), inject=False)})

    def log_summary(self, values: Mapping[str, Any]) -> None:
        """Sets values of the run's summary."""
        self.run.summary.update(dict(values))

    def log_artifact(
        self, name: str, kind: str, files: Sequence[Path], metadata: Mapping[str, Any], used: bool = False
    ) -> None:
        """Logs files as an artifact.

        Args:
            name: name of the artifact (letters, digits, ``-``, ``_`` and ``.``).
            kind: its type, such as ``predictions`` or ``fixes``.
            files: its files.
            metadata: shown beside it.
            used: it is an input of the run rather than an output. Offline runs cannot record inputs (a limitation of
                W&B), and log it as an output.
        """
        import wandb

        artifact = wandb.Artifact(name, type=kind, metadata=dict(metadata))
        for file in files:
            artifact.add_file(str(file), name=Path(file).name)
        if used and not self.run.offline:
            self.run.use_artifact(artifact)
        else:
            self.run.log_artifact(artifact)


@contextmanager
def wandb_run(
    settings: Mapping[str, Any], folder: Path, job: str, name: str, config: Mapping[str, Any]
) -> Iterator[WandbTracker | None]:
    """Opens a W&B run for a ``with`` block, and finishes it, as failed if the block raises.

    Args:
        settings: ``project``, ``entity``, ``mode``, ``group`` and ``tags``.
        folder: an offline run lies in ``<folder>/wandb``.
        job: job type, and first tag.
        name: name of the run.
        config: shown as its configuration.

    Yields:
        The tracker; ``None`` where W&B is missing, disabled, or can't write.
    """
    run = open_run(settings, folder, job, name, config)
    if run is None:
        yield None
        return
    exit_code = 1
    try:
        yield WandbTracker(run)
        exit_code = 0
    finally:
        run.finish(exit_code=exit_code)


def open_run(
    settings: Mapping[str, Any],
    folder: Path,
    job: str,
    name: str,
    config: Mapping[str, Any],
    run_id: str | None = None,
) -> Any | None:
    """Opens a W&B run; see :func:`wandb_run`. A run with the id ``run_id`` is resumed."""
    try:
        import wandb
    except ImportError:
        log.warning("wandb is not installed, so nothing is logged to it (set logger=none to silence this)")
        return None
    os.environ.setdefault("WANDB_SILENT", "true")
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # which reports W&B's own failures to report
    mode = wandb_mode(check_choice("logger.mode", settings["mode"], MODES))
    if mode == "disabled":
        return None
    folder.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {
        "project": settings["project"],
        "entity": settings["entity"],
        "group": settings["group"],
        "job_type": job,
        "name": name,
        "id": run_id,
        "resume": "allow" if run_id else None,
        "tags": [job, *settings["tags"]],
        "config": dict(config),
        "dir": str(folder.resolve()),
        "settings": wandb.Settings(silent=True, console="off", init_timeout=60.0, finish_timeout=FINISH_TIMEOUT),
    }
    for attempt in dict.fromkeys((mode, "offline")):
        try:
            return wandb.init(mode=attempt, **options)  # type: ignore[arg-type]
        except Exception as error:  # whatever it is, the work goes on without W&B
            outcome = "nothing is logged to it" if attempt == "offline" else OFFLINE
            log.warning("W&B can't be used %s: %s (%s)", attempt, outcome, _first_line(error))
            if attempt != "offline" and wandb.run is None:
                wandb.teardown()  # its service would still hold the id of the run
    return None
