"""Visual similarity of images.

* ``pipeline.py``: from images to embeddings, neighbours and orders; start here
* ``neighbours.py``: nearest neighbours (``refine_graph.py``: its compiled part)
* ``seriation.py``: ``seriate`` orders embeddings, ``outlier_score`` (``path_search.py``: the compiled search)
* ``near_duplicates.py``: groups of identical and almost identical images
* ``order_files.py``: reads and writes ``order.parquet`` and ``embeddings.npy``
* ``callback.py``: shows the neighbours while a sorting network trains
"""
