"""``mlfix review``: serves the page where people mark wrong labels, and writes the fixes file as they go.

It does not load torch: images are put in order by a process of its own.
"""

import contextlib
import gc
import json
import logging
import math
import multiprocessing
import os
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from mlfix_train.audit.files import read_audit
from mlfix_train.audit.review.server import LOOPBACK, SpritePrefetcher, open_socket, serve
from mlfix_train.audit.review.session import ReviewSession, open_session
from mlfix_train.audit.review.widget import get_open_session, make_widget
from mlfix_train.audit.similarity.order_files import find_embeddings, read_order
from mlfix_train.commands.inputs import check_out, read_samples, source_name
from mlfix_train.commands.progress import ProgressBar
from mlfix_train.config.review import ReviewConfig
from mlfix_train.data.files.atomic import remove_leftovers
from mlfix_train.data.files.process_pool import exit_with_parent
from mlfix_train.data.pixels.spec import PixelsConfig
from mlfix_train.data.pixels.store import PixelStore, open_store
from mlfix_train.data.runs import RunDirectory
from mlfix_train.data.samples import COLUMNS as TABLE_COLUMNS
from mlfix_train.data.samples import find_names, string_array
from mlfix_train.errors import ConfigError, DataError, MlfixError
from mlfix_train.training.signals import handle_signals

log = logging.getLogger(__name__)

DEFAULT_SIZE = 64
"""Side of the stored images without a run, pixels."""
MIN_SORTED = 3
"""Fewer images are not sorted."""


def run(cfg: ReviewConfig) -> Path:
    """Serves the page until it is interrupted, and returns the fixes file.

    Raises:
        MlfixError: There is nothing to show, the port is taken, or a file cannot be used.
    """
    _check_paths(cfg)
    listener = open_socket(cfg.host, cfg.port)  # before the long work
    try:
        session = open_configured_session(cfg)
    except BaseException:
        listener.close()
        raise
    for note in session.fixes.notes:
        print(f"note       {note}", file=sys.stderr)
    fixes = session.fixes_path
    session.view({"group_by": "label"})
    prefetcher = SpritePrefetcher(session, ProgressBar("cutting sprite sheets"))

    def on_start(link: str) -> None:
        print(f"review     {link}")
        if cfg.host not in LOOPBACK:
            print("           Anyone with this link who can reach this machine")
            print("           can see the images and change the fixes; the connection is not encrypted.")
            print("           An SSH tunnel to host=127.0.0.1 is safer.")
        print(f"fixes      {fixes}, up to date after every mark; Ctrl-C stops, the same command resumes", flush=True)
        prefetcher.start()
        if cfg.open:
            _open_browser(link)

    with contextlib.suppress(KeyboardInterrupt), handle_signals():  # the server raises both when it has shut down
        try:
            serve(session, listener, cfg.host, on_start)
        finally:
            prefetcher.stopped.set()
            session.close()
    _print_summary(session)
    return fixes


def _open_browser(link: str) -> None:
    has_screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not has_screen:
        return  # a text browser would take over the terminal
    try:
        webbrowser.open(link)
    except webbrowser.Error as error:
        log.warning("the browser could not be opened (%s): open the link yourself", error)


def _print_summary(session: ReviewSession) -> None:
    progress = session.progress({})
    print(
        f"reviewed   {progress['reviewed']:,} of {progress['samples']:,} samples: {progress['marked']:,} marked, "
        f"{progress['invalid']:,} of them invalid"
    )
    found = progress["estimate"]
    if found is not None:
        low, high = found["interval"]
        interval = f"95% interval {math.floor(low):,} to {math.ceil(high):,}"
        print(f"wrong      about {found['wrong']:,.0f} labels in all ({interval}), from {found['judged']:,} judged")
    print(f"fixes      {session.fixes_path}", flush=True)


def widget(cfg: ReviewConfig) -> Any:
    """Returns the page as a notebook widget; raises what :func:`run` raises."""
    return make_widget(get_open_session(_check_paths(cfg)) or open_configured_session(cfg))


def _check_paths(cfg: ReviewConfig) -> Path:
    """Checks the paths before anything is read or written, and returns ``out``."""
    out = check_out(cfg.out, cfg.data)
    for name in ("fixes.csv", "journal.jsonl", "seen.jsonl"):
        if (out / name).is_dir():
            problem = f"{out / name} is a folder; the review writes a file of this name"
            raise ConfigError(problem, "rename it, or set another out=<folder>")
    if cfg.order not in ("auto", "none") and not Path(cfg.order).expanduser().exists():
        raise DataError(f"order={cfg.order} does not exist", "set order=<output folder of mlfix sort>, auto or none")
    return out


def open_configured_session(cfg: ReviewConfig) -> ReviewSession:
    """Reads audit, samples, pixels and order, and opens the session.

    Raises:
        MlfixError: Something cannot be used; nothing is changed.
    """
    summary, ranking = read_audit(cfg.audit, compact=True) if cfg.audit is not None else ({}, None)
    data, pixels = cfg.data, cfg.pixels
    if not cfg.has_data:
        run_config = summary.get("config") or _run_config(cfg, summary["run_paths"])
        data, pixels = run_config["data"], PixelsConfig(**run_config["pixels"])
        if cfg.pixels.size is not None:
            pixels = replace(pixels, size=cfg.pixels.size)
    title = cfg.audit or data.get("file") or data.get("root") or "samples"
    sorted_by = None if cfg.order in ("auto", "none") else cfg.order
    folders = [sorted_by, summary.get("order"), cfg.audit, Path(cfg.out).expanduser() / "order"]
    with _reading_process() as reader:
        table = _result(reader.submit(_read_table, data))
        if ranking is not None:
            _check_audited_samples(ranking, table, source_name(data))
        order = _read_order(cfg, table.index, summary.get("order"))
        opened = reader.submit(_open_store, pixels)  # the long work, after what may be wrong
        session = open_session(
            table,
            lambda: _result(opened),
            cfg.out,
            ranking=ranking,
            order=order,
            calibrated=bool(summary.get("estimates")),
            fixes=cfg.fixes.path,
            ignore=cfg.fixes.ignore,
            reviewer=cfg.reviewer,
            title=Path(str(title)).expanduser().resolve().name,
            find_embeddings=lambda: find_embeddings(folders),
        )
        store = _result(opened)
    if order is None and cfg.order == "auto" and len(table) - len(store.unreadable) >= MIN_SORTED:
        size = int(store.shape[1])
        out = str(Path(cfg.out).expanduser() / "order")
        settings = {"data": data, "out": out, "n_panels": 0, "pixels": {**asdict(pixels), "size": size}}
        _sort_meanwhile(session, settings)
    return session


class _ThisProcess(Executor):
    """Runs jobs at once, in this process."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(*args, **options))
        return done


def _reading_process() -> Executor:
    """Returns a process that reads the images: its Python objects, one and more for each, end with it."""
    if sys.platform != "linux" or threading.active_count() > 1:  # a fork of several threads may hang
        return _ThisProcess()
    return ProcessPoolExecutor(1, multiprocessing.get_context("fork"), _begin_reading, (os.getpid(),))


def _begin_reading(parent: int) -> None:
    exit_with_parent(parent)
    gc.disable()  # millions of texts and no cycles


def _result(job: Future[Any]) -> Any:
    try:
        return job.result()
    except BrokenProcessPool as error:
        hint = "free some memory: the system kills processes that need too much"
        raise DataError("the process that reads the images was killed", hint) from error


_read: list[pd.DataFrame] = []  # the table, in the process that reads the images


def _read_table(data: Mapping[str, Any]) -> pd.DataFrame:
    """Reads the sample table, and returns it with text as pandas' type ``str``, without a Python object for each."""
    table = read_samples(data, uses_labels=False)
    _read.append(table)
    texts = table.assign(**{name: string_array(table[name]) for name in TABLE_COLUMNS})
    return texts.set_axis(pd.Index(string_array(table.index), name=table.index.name))


def _open_store(pixels: PixelsConfig) -> PixelStore:
    """Opens the pixel store of the table that was read."""
    options: dict[str, Any] = {"max_unreadable": pixels.max_unreadable, "progress": ProgressBar("decoding images")}
    return open_store(_read.pop(), pixels.spec(DEFAULT_SIZE), pixels.cache, **options)


def _run_config(cfg: ReviewConfig, run_paths: Sequence[str]) -> dict[str, Any]:
    """Returns the configuration of the first of the audited runs that still exists."""
    for path in run_paths:
        with contextlib.suppress(MlfixError, OSError):
            config: dict[str, Any] = RunDirectory(Path(path)).require()["config"]
            return config
    reason = (
        "was made from runs that no longer exist"
        if run_paths
        else "was made from prediction files, which do not list images"
    )
    raise DataError(f"audit={cfg.audit} {reason}", "set data.root=<folder> too")


def _check_audited_samples(ranking: pd.DataFrame, table: pd.DataFrame, source: str) -> None:
    missing = ranking["sample_id"][find_names(ranking["sample_id"], table.index) < 0]
    if len(missing) == len(ranking):
        problem = f"{source} has none of the audited samples, such as {missing.iloc[0]}"
        raise DataError(problem, "use the data that was audited")
    if len(missing):
        text = "%d audited samples, such as %s, are no longer in the data and left out"
        log.warning(text, len(missing), missing.iloc[0])


def _read_order(cfg: ReviewConfig, ids: pd.Index, audit_order: str | None) -> pd.DataFrame | None:
    """Returns the configured visual order, that of the audit, or that of an earlier review; ``None`` without one."""
    if cfg.order == "none":
        return None
    if cfg.order != "auto":
        return read_order(cfg.order, ids, partial=True)
    for folder in (audit_order, Path(cfg.out).expanduser() / "order"):
        try:
            if folder and (Path(folder) / "order.parquet").exists():
                return read_order(folder, ids, partial=True)
        except MlfixError as error:
            log.warning("%s; the images are sorted again", error.problem)
    return None


def _sort_meanwhile(session: ReviewSession, settings: dict[str, Any]) -> None:
    """Sorts the images of a session by their pixels, in a process of its own: this one stays small, without torch."""
    better = "set order=<output folder of mlfix sort> for a better order, or order=none"
    log.info("sorting the images by their pixels, once; the page shows them in the order of the files (%s)", better)
    remove_leftovers(Path(settings["out"]))
    command = [sys.executable, "-c", f"from {__name__} import sort_from_stdin; sort_from_stdin()"]
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, start_new_session=True, **options)
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(json.dumps(settings) + "\n")  # and stays open: the process ends when this one does
    process.stdin.flush()
    errors = process.stderr
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        process.terminate()

    def sort() -> pd.DataFrame | None:
        told = errors.read().strip().splitlines()
        if process.wait() and not stopped.is_set():
            log.warning("the images could not be sorted: %s", told[-1] if told else "the process was killed")
        elif not stopped.is_set():
            log.info("the images are sorted")
            return read_order(settings["out"], pd.Index(session.samples.ids), partial=True)
        return None

    session.sort_meanwhile(sort, stop)


def sort_from_stdin() -> None:
    """Sorts what standard input describes, with low priority, while it is open: the process's main function."""

    def exit_with_stdin() -> None:
        sys.stdin.read()
        os._exit(1)

    settings = json.loads(sys.stdin.readline())
    threading.Thread(target=exit_with_stdin, daemon=True).start()
    if hasattr(os, "nice"):  # not on Windows
        os.nice(10)
    try:
        sort_images(settings)
    except MlfixError as error:
        sys.exit(f"{error}")


def sort_images(settings: Mapping[str, Any]) -> None:
    """Runs ``mlfix sort`` with settings from JSON."""
    from mlfix_train.commands import sort
    from mlfix_train.config.sort import SortConfig

    sort.run(SortConfig(**{**settings, "pixels": PixelsConfig(**settings["pixels"])}))
