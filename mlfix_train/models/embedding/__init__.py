"""Embedders: from images to vectors whose Euclidean distances measure how different images look; one per module."""
