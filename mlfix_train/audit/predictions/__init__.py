"""Held-out predictions, where every audit starts.

- :mod:`~mlfix_train.audit.predictions.table`: from logits to a table of predictions, and its Parquet file.
- :mod:`~mlfix_train.audit.predictions.files`: predictions in files that others wrote, CSV or Parquet.
- :mod:`~mlfix_train.audit.predictions.held_out`: predictions of several runs, averaged sample by sample.
- :mod:`~mlfix_train.audit.predictions.dynamics`: training dynamics, the area under the margin.
- :mod:`~mlfix_train.audit.predictions.runs`: what finished runs left on disk, and the data they were trained on.
"""
