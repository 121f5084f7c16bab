"""Readers: from the usual file layouts to a sample table (see :mod:`mlfix_train.data.samples`).

Each module but ``files``, which they share, holds one reader: a function that takes the keys of section ``data`` and
returns the table. A reader of your own is such a function anywhere on the Python path:
``data._target_=my_module.read_my_data data.root=...``.
"""
