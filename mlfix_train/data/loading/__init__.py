"""From a pixel store to batches on the device that trains, by ``DataModule`` and ``ViewDataModule``.

Batches are drawn by ``sampling``, read from the store or picked on the device (``device_cache``), and changed at random
there, a whole batch at a time (``augment``, ``views``). The settings are in ``spec``, which imports no torch.
"""
