"""From a pixel store to batches on the device that trains.

- :mod:`~mlfix_train.data.loading.spec`: the settings (sections ``loader``, ``augment`` and ``views``); no torch.
- :mod:`~mlfix_train.data.loading.datamodule`: ``DataModule`` for classifiers.
- :mod:`~mlfix_train.data.loading.view_datamodule`: ``ViewDataModule`` for self-supervised training.
- :mod:`~mlfix_train.data.loading.sampling`: which samples make up each batch.
- :mod:`~mlfix_train.data.loading.device_cache`: all images in device memory, batches picked there.
- :mod:`~mlfix_train.data.loading.augment`, :mod:`~mlfix_train.data.loading.views`: random changes of whole batches.
"""
