"""Predictions, rankings, panels, the training callback and the comparison of arms: arrays and tables in, files out."""
