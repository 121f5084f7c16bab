"""Composes the configuration of a command from YAML presets and ``key=value`` overrides."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir, version
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from packaging.version import Version

from mlfix_train.config.explain import explain
from mlfix_train.config.overrides import normalize_overrides
from mlfix_train.config.paths import config_dir
from mlfix_train.config.schemas import register_schema, to_object
from mlfix_train.errors import ConfigError


def compose(command: str, overrides: Sequence[str] = (), with_hydra: bool = False) -> DictConfig:
    """Composes the configuration of a command as the command line does.

    A Hydra application that calls this keeps its own Hydra state; ``with_hydra`` keeps Hydra's own section.

    Raises:
        ConfigError: An unknown command or key, or an invalid value; the hint names the closest one.
    """
    for override in overrides:
        if override.startswith("="):
            raise ConfigError(f"{override!r} has no key", "write overrides as key=value")
    register_schema(command)
    try:
        with private_hydra(), initialize_config_dir(config_dir(), job_name="mlfix", version_base="1.3"):
            return hydra_compose(command, normalize_overrides(list(overrides)), return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
        raise explain(command, error) from error


def load(command: str, overrides: Sequence[str] = ()) -> Any:
    """Composes the configuration of a command and returns it as the command's dataclass, validated.

    Raises:
        ConfigError: An unknown key, an invalid value, or a required key that is missing.
    """
    return to_object(command, compose(command, overrides))


@contextmanager
def private_hydra() -> Iterator[None]:
    """Sets the caller's Hydra aside, so that composing neither uses nor changes it."""
    hydra, job, base = GlobalHydra.instance().hydra, HydraConfig.instance().cfg, version.getbase()
    GlobalHydra.instance().hydra = None
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = hydra
        HydraConfig.instance().cfg = job
        if isinstance(base, Version):  # else the caller never set one
            version.VersionBase.instance().setbase(base)
