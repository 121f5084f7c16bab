"""Data: from files to samples, and from samples to batches.

``readers``, ``annotations`` and ``crops`` turn the usual file layouts into a sample table (``samples``). ``splits``,
``arms`` and ``fixes`` define which samples are held out, which train, and with which labels. ``pixels`` decodes images
once, ``loading`` makes batches of them. ``runs`` are run directories, ``cache`` what runs of one sweep share,
``label_noise`` and ``synthetic`` planted errors and rendered signs, ``files`` atomic writes and worker processes.
"""
