"""Embedders: from images to vectors whose Euclidean distances say how different the images look; one a module."""
