"""Photos with labelled boxes: one module per annotation format, and what the formats share.

- ``base``: :class:`~mlfix_train.data.annotations.base.AnnotationFormat`, which every format implements, the
  :class:`~mlfix_train.data.annotations.base.Annotations` that reading returns, and helpers for readers.
- ``mtsd``, ``coco``, ``yolo``, ``voc``: a format each: how it is recognised, read, and patched with new labels.
- ``detect``: the list of formats, and finding the one that a folder holds.
- ``write_back``: fixed labels written into copies of the annotations, read back and compared.

To add a format, write a module like ``voc`` and add its class to ``FORMATS`` in ``detect``. A format outside this
package is named by ``data._target_=my_package.MyFormat``.
"""
