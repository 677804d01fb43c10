"""The OpenAPI document and the docs say what the server does."""

from __future__ import annotations

import re
from pathlib import Path

from webui.api import make_app
from webui.config import Config
from webui.core import Core
from webui.openapi import document
from webui.problems import CODES, from_refused
from wire import messages

DOCS = Path(__file__).resolve().parents[3] / "docs" / "api.md"
# Addresses of the page, which aren't the API.
PAGES = {"/", "/favicon.ico", "/static/{filename}"}


def unreachable() -> object:
    raise OSError("no core in this test")


def served() -> set[tuple[str, str]]:
    core = Core(unreachable)  # type: ignore[arg-type]
    app = make_app(Config(host="x", port=0, core="x"), core)
    rules = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    return {(path, method) for path, method in rules if path not in PAGES}


def documented() -> set[tuple[str, str]]:
    return {(path, method) for path, item in document()["paths"].items() for method in item}


def test_every_address_is_in_the_openapi_document() -> None:
    assert served() == documented()


def test_every_reference_leads_somewhere() -> None:
    schemas = document()["components"]["schemas"]
    references = set(re.findall(r"#/components/schemas/(\w+)", str(document())))
    assert references <= set(schemas)
    assert set(schemas) - references <= {"Problem"}


def test_the_docs_list_every_problem_code_with_its_status() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \|", DOCS.read_text(), re.MULTILINE))
    assert rows == {code: str(status) for code, (status, _) in CODES.items()}


def test_the_docs_list_every_address() -> None:
    text = DOCS.read_text()
    for path, method in documented():
        assert f"`{method.upper()} {path}" in text, (method, path)


def test_whoever_may_come_back_is_told_when() -> None:
    """429 and 503, whoever raises them and whether or not the core has named a time."""
    for code, (status, _) in CODES.items():
        if status in (429, 503):
            headers = dict(
                from_refused(messages.Refused(request=1, code=code, message="")).headers()
            )
            assert int(headers["Retry-After"]) >= 1, code
