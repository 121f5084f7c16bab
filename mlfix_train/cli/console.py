"""The package's log messages as plain lines on standard error."""

import logging
import sys


class _Console(logging.Handler):
    """Prints messages as plain lines to whatever standard error is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def configure_logging() -> None:
    """Sends the package's log messages to standard error as plain lines."""
    logger = logging.getLogger("mlfix_train")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _Console) for handler in logger.handlers):
        logger.addHandler(_Console())
