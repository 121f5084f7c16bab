"""The ``mlfix`` command line."""
