"""Embedders: from images to vectors whose Euclidean distances say how different the images look.

* ``base.py``: ``Embedder``, the interface; ``TorchEmbedder``, a base class for your own
* ``pixels.py``, ``network.py``, ``visual_words.py``, ``lpips.py``: one embedder each
* ``build.py``: ``build_embedder``, which picks one by name
* ``settings.py``: their settings (no torch)
* ``pca.py``: projection to fewer dimensions, and its error
"""
