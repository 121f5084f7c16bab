"""Configuration: one dataclass per command, composed by Hydra from the YAML presets in ``configs/``.

* ``<command>.py``: the dataclass of a command; its docstring is the text of ``mlfix <command> --help``
* ``sections.py``: sections that several commands share
* ``schemas.py``: which dataclass belongs to which command; from a composed configuration to an object of it
* ``compose.py``: YAML and overrides to a configuration; ``load`` returns the typed object
* ``instantiate.py``: builds what a ``_target_`` names
* ``overrides.py``, ``explain.py``, ``help.py``: what people type, errors in plain words, help
"""
