"""Torch modules from images to logits or features, apart from Lightning.

* ``network.py``: a timm backbone and a head; pretrained weights and weights files
* ``small.py``: ``mlfix_small``, a backbone for small images, registered with timm
* ``fast_convs.py``: convolutions as matrix products, faster on CPUs with AMX
"""
