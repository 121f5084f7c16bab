"""Fixes, new labels for samples or ``invalid``: our CSV (``table``), and other tools' files (``importers``)."""
