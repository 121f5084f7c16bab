"""Overrides ``key=value`` as a person types them, made into what Hydra's grammar reads."""

from __future__ import annotations

import re

from mlfix_train.errors import ConfigError

PATHS = ("root", "file", "path", "out", "outputs", "runs", "original", "fixed", "control", "cache", "weights",
         "network", "embeddings", "start", "order", "audit", "url", "images", "crops")  # fmt: skip
"""Keys whose values are paths; a comma in one is no sweep."""
OPEN = ("trainer.", "model.", "data.", "slices.", "hydra")
"""Sections that take keys which their YAML doesn't name."""


def normalize_overrides(overrides: list[str], sweep: bool = False) -> list[str]:
    """Returns overrides as Hydra's grammar wants them.

    A value that it can't read, such as a regular expression, is put in quotes, and so is a path with a comma (outside
    a sweep); ``slices.<name>`` may be a new key.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    result = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if key.startswith("+") and not key.lstrip("+").startswith(OPEN):
            raise ConfigError(
                f"{key.lstrip('+')} is no key that can be added",
                f"leave out the +; only keys below {', '.join(OPEN)} can be added",
            )
        if key.startswith("slices."):
            key = f"++{key}"
        override = f"{key}{equals}{value}"
        if equals and not override.startswith("-"):
            try:
                comma = parser.parse_override(override).is_choice_sweep() and key.split(".")[-1] in PATHS and not sweep
            except HydraException:
                comma = True
            override = f"{key}={quoted(value)}" if comma else override
        result.append(override)
    return result


def quoted(value: str) -> str:
    """Returns a value in quotes, so that Hydra's grammar takes it as it is (backslashes count only before a quote)."""
    body = re.sub(r"(\\*)'", r"\1\1\\'", value)
    body = re.sub(r"(\\+)$", r"\1\1", body)
    return f"'{body}'"


def assign(key: str, value: object) -> str:
    """Returns ``key='value'``, an override that survives whatever characters the value holds."""
    return f"{key}={quoted(str(value))}"
