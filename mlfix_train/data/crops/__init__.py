"""Boxes cut out of photos: crops, their sample table, and the folder that holds both.

``folder`` crops a whole data set, by ``build`` (all photos, in parallel, resumable) and ``photo`` (one photo, in a
worker process). What a crop shows is decided by ``spec`` and ``geometry``, its file name by ``names``.
"""
