"""Photos cropped in processes of their own (``python -m`` this module)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from mlfix_train.data.crops.geometry import CropSpec, crop_photo
from mlfix_train.data.files.worker_pool import Answer, Job, run_jobs, serve


def crop_photos(
    photos: Iterable[list[dict[str, Any]]], spec: CropSpec, workers: int
) -> Iterator[tuple[list[dict[str, Any]], list[list[list[Any]]]]]:
    """Crops photos, some at a time, in ``workers`` processes (in this one if it is 1).

    Args:
        photos: lists of jobs as :func:`mlfix_train.data.crops.geometry.crop_photo` takes them.
        spec: how.
        workers: number of processes.

    Yields:
        The list of jobs, and for each what ``crop_photo`` returned.

    Raises:
        OSError: a crop can't be written.
        DataError: a process died; it names the photos that it was at.
    """
    jobs: Iterator[Job] = ({"photos": some, "spec": asdict(spec)} for some in photos)
    for job, answer in run_jobs(__name__, _work, jobs, workers, _names):
        yield job["photos"], answer["found"]


def _names(job: Job) -> str:
    return f"between {job['photos'][0]['path']} and {job['photos'][-1]['path']}"


def _work(job: Job) -> Answer:
    spec = CropSpec(**job["spec"])
    return {"found": [crop_photo(photo, spec) for photo in job["photos"]]}


if __name__ == "__main__":
    serve(_work)
