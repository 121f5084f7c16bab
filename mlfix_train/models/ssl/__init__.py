"""Self-supervised learning of image similarity.

* ``sorting_network.py``: the LightningModule that is trained
* ``barlow_twins.py``: its loss
* ``encoder.py``: images to pooled features or feature maps, and the projector used in training alone
"""
