"""Where the YAML presets are."""

from pathlib import Path

from mlfix_train.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[1]


def config_dir() -> str:
    """Returns the folder of the YAML presets: next to the package in a checkout, inside it in an installed wheel."""
    for folder in (PACKAGE / "configs", PACKAGE.parent / "configs"):
        if (folder / "train.yaml").is_file():
            return str(folder)
    raise ConfigError("the configs of mlfix_train are missing", "reinstall the package")
