"""Boxes cut out of photos: crops, their sample table, and the folder that holds both.

- ``spec``: :class:`~mlfix_train.data.crops.spec.CropSpec`, everything that decides what a crop shows.
- ``geometry``: where a box lies in its photo: margins, clipping, panoramas.
- ``photo``: one photo decoded and its crops written; runs in worker processes.
- ``names``: file names of crops.
- ``build``: all photos, in parallel, resumed where an earlier call stopped (``journal``); tables of what came out.
- ``folder``: a whole data set cropped into a folder with ``samples.parquet``, ``dropped.csv`` and ``crop.json``.
"""
