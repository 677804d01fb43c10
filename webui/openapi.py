"""The OpenAPI 3.1 document of the REST API."""

from __future__ import annotations

from typing import Any


def document() -> dict[str, Any]:
    """Return the document."""
    return {"openapi": "3.1.0", "info": {"title": "Lookout", "version": "1"}, "paths": {}}
