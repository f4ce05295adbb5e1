"""What the runner says: one JSON object a line on a standard output that nothing else writes to."""

import json
import os
import sys
from typing import Any

from .job import SCHEMA


class Events:
    """Takes standard output over: what runtimes print, from C++ too, goes to standard error from then on."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event, so that it is kept whatever comes after."""
        self._stream.write(json.dumps({"schema": SCHEMA, "event": event, **fields}) + "\n")
        self._stream.flush()
