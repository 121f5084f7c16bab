"""Photos with labelled boxes: ``base`` holds what every format implements, each other module a format.

To add a format, write a module like ``voc`` and add its class to ``FORMATS`` in ``detect``, which finds the format of a
folder. One outside this package is named by ``data._target_=my_package.MyFormat``. ``write_back`` writes fixed labels
into copies of the annotations.
"""
