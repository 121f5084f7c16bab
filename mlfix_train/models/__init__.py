"""Networks: what is trained, and what turns images into vectors.

* ``classifier.py``: the classifier as a LightningModule; ``recipe_module.py``: what it shares with the sorting network
* ``recipes.py``: the settings of a training (no torch); ``schedules.py``: its optimizer, learning rates and seeds
* ``compile.py``: ``torch.compile`` where it is worth it, and the largest batch that fits
* ``backbones/``: timm backbones with a head, our small backbone, fast convolutions on CPUs
* ``ssl/``: the sorting network, which learns image similarity without labels
* ``embedding/``: embedders, from images to vectors whose distances measure how different they look
"""
