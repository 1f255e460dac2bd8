"""What fdiff tells through `logging`."""

import contextlib
import logging
import re


@contextlib.contextmanager
def listening(level=logging.WARNING):
    """The messages of that level or above that the logger fdiff is told within, as a list."""
    told, logger, handler = [], logging.getLogger("fdiff"), logging.Handler(level)
    handler.emit = lambda record: told.append(record.getMessage())
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield told
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@contextlib.contextmanager
def logged(match, level=logging.WARNING):
    """Within, the logger fdiff must be told something in which `match` is found."""
    with listening(level) as told:
        yield
    assert any(re.search(match, text) for text in told), told
