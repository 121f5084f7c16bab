"""mlfix-train: find wrong labels in image data, fix them, and measure the gain.

The public names below load when first used, so that ``import mlfix_train`` and ``mlfix --help`` are quick.

* :class:`Audit`: labels ranked by how likely they are wrong, from predictions or runs
* :class:`AuditCallback`: collects held-out predictions in ``trainer.fit`` and ranks them
* :func:`compare_arms`: models before and after, with evaluation and training effects kept apart
* :func:`seriate`: an order in which neighbours are similar
* :func:`run_command`: a command of ``mlfix`` with its keys
* :class:`MlfixError`: an error the user can fix
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlfix_train.audit.audit import Audit
    from mlfix_train.audit.callback import AuditCallback
    from mlfix_train.audit.comparison.arms import compare_arms
    from mlfix_train.audit.similarity.seriation import seriate
    from mlfix_train.commands import run_command
    from mlfix_train.errors import MlfixError

__version__ = "0.1.0"
COMMANDS = ("crop", "train", "sort", "audit", "review", "plan", "compare", "rerun", "export", "demo")
__all__ = [
    "COMMANDS",
    "Audit",
    "AuditCallback",
    "MlfixError",
    "__version__",
    "compare_arms",
    "run_command",
    "seriate",
]
_MODULES = {
    "Audit": "mlfix_train.audit.audit",
    "AuditCallback": "mlfix_train.audit.callback",
    "MlfixError": "mlfix_train.errors",
    "compare_arms": "mlfix_train.audit.comparison.arms",
    "run_command": "mlfix_train.commands",
    "seriate": "mlfix_train.audit.similarity.seriation",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
