"""The verbs of the ``mlfix`` command: each takes a composed configuration, does its work and says what came of it."""
