"""Fixes: new labels for samples, or ``invalid`` to exclude them.

- :mod:`~mlfix_train.data.fixes.table`: our CSV; read, checked against the samples, applied, written.
- :mod:`~mlfix_train.data.fixes.importers`: files of FiftyOne, Label Studio and cleanlab.
"""
