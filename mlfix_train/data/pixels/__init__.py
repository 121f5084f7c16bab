"""Images to pixels: every sample is decoded once, into one file of uint8 that all runs and commands share.

- :mod:`~mlfix_train.data.pixels.spec`: the settings (section ``pixels`` of the configuration).
- :mod:`~mlfix_train.data.pixels.decode`: an image file to a square of RGB pixels; what worker processes run.
- :mod:`~mlfix_train.data.pixels.store`: ``open_store`` and ``PixelStore``, which reads rows of the file.
- :mod:`~mlfix_train.data.pixels.build`: decodes a table's images into a store, in parallel, resumable.
"""
