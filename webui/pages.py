"""The page and its static files."""

from __future__ import annotations

from flask import Blueprint, Response, render_template

pages = Blueprint("pages", __name__)

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@pages.get("/")
def index() -> Response:
    """The one page."""
    response = Response(render_template("index.html"), mimetype="text/html")
    # Revalidated each time, so that a new version of the server is seen at once.
    response.headers["Cache-Control"] = "no-cache"
    return response


@pages.get("/favicon.ico")
def favicon() -> Response:
    """Browsers ask for it whatever the page says."""
    return Response(status=308, headers={"Location": "/static/favicon.svg"})
