"""Samples, readers, fixes, splits, pixels, augmentation, sampling and the DataModule."""
