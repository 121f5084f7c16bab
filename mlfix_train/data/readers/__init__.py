"""Readers: from data as people have it to a sample table (see :mod:`mlfix_train.data.samples`).

Each module holds one reader, a function that takes the keys of section ``data`` and returns the table:

- :mod:`~mlfix_train.data.readers.folder`: a folder of class folders, or of unsorted images.
- :mod:`~mlfix_train.data.readers.table`: a CSV or Parquet file with one row per sample.
- :mod:`~mlfix_train.data.readers.crops`: what ``mlfix crop`` wrote.
- :mod:`~mlfix_train.data.readers.gtsrb`: the German Traffic Sign Recognition Benchmark.

They share :mod:`~mlfix_train.data.readers.files` (finding images, groups by a regular expression). A reader of your own
is a function anywhere on the Python path: ``data._target_=my_module.read_my_data data.root=...``.
"""
