"""OpenVINO without its telemetry.

On import OpenVINO sends an event to an analytics host and keeps a client number in ``~/intel``, unless the user
opted out beforehand (package openvino_telemetry).  This program sends nothing.  Where that package cannot be
imported OpenVINO takes a stub of its own; so it is hidden while OpenVINO is imported.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

__all__ = ["import_openvino"]

_TELEMETRY = "openvino_telemetry"

_lock = threading.Lock()


def import_openvino() -> Any:
    """The module ``openvino``; raises ImportError where it is not installed."""
    with _lock:
        before = sys.modules.get(_TELEMETRY)
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # None: importing it is an ImportError
        try:
            import openvino
        finally:
            del sys.modules[_TELEMETRY]
            if before is not None:
                sys.modules[_TELEMETRY] = before
    return openvino
