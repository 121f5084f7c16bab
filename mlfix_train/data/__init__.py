"""Data: from files to samples, and from samples to batches.

- :mod:`~mlfix_train.data.samples`: the sample table that everything else takes.
- :mod:`~mlfix_train.data.readers`: data as people have it, to a sample table; :mod:`~mlfix_train.data.annotations`
  and :mod:`~mlfix_train.data.crops`: photos with boxes, to crops and their table.
- :mod:`~mlfix_train.data.splits`, :mod:`~mlfix_train.data.arms`, :mod:`~mlfix_train.data.fixes`: which samples are held
  out, which train, and with which labels.
- :mod:`~mlfix_train.data.pixels`, :mod:`~mlfix_train.data.loading`: images decoded once, then batches on the device.
- :mod:`~mlfix_train.data.runs`: run directories. :mod:`~mlfix_train.data.cache`: what runs of one sweep share.
- :mod:`~mlfix_train.data.label_noise`, :mod:`~mlfix_train.data.synthetic`: planted errors and rendered signs.
- :mod:`~mlfix_train.data.files`: atomic writes, CSV, JSON, worker processes.
"""
