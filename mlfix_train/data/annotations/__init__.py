"""Photos with labelled boxes: ``base`` holds what every format implements, each other module a format.

To add a format, write a module like ``voc``, add its class to ``FORMATS`` in ``formats`` (which also detects the format
of a folder) and a preset to ``configs/data/``. One outside this package is named by ``data._target_=mine.MyFormat``.
``write_back`` writes fixed labels into copies of the annotations.
"""
