"""Files and processes: what the rest of the package uses to read, write and work in parallel.

- :mod:`~mlfix_train.data.files.atomic`: files that are written completely or not at all, and a lock on a folder.
- :mod:`~mlfix_train.data.files.csv_rows`, :mod:`~mlfix_train.data.files.json_files`: reading with good errors, and
  changes to JSON that leave everything else byte for byte.
- :mod:`~mlfix_train.data.files.process_pool`: worker processes.
- :mod:`~mlfix_train.data.files.system`: cores and memory that this process may use.
"""
