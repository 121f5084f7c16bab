"""Images to pixels: every sample is decoded once, into one file of uint8 that all runs and commands share.

:mod:`~mlfix_train.data.pixels.store` opens that file, :mod:`~mlfix_train.data.pixels.build` makes it in worker
processes, which run :mod:`~mlfix_train.data.pixels.decode`. The settings are in :mod:`~mlfix_train.data.pixels.spec`.
"""
