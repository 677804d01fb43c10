"""The OpenAPI 3.1 document of the REST API, written by hand and held to the URL map by a test."""

from __future__ import annotations

from functools import cache
from typing import Any

from webui import views
from webui.problems import CODES, MEDIA_TYPE

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
NULLABLE_STRING: Schema = {"type": ["string", "null"]}
TIME: Schema = {"type": "string", "format": "date-time"}
NULLABLE_TIME: Schema = {"type": ["string", "null"], "format": "date-time"}
JOB_ID: Schema = {"type": "string", "pattern": "^j[0-9]{1,18}$"}
SUBMISSION_ID: Schema = {"type": "string", "pattern": "^s[0-9]{1,18}$"}
STATE: Schema = {"type": "string", "enum": list(views.STATES)}
BINARY: Schema = {"type": "string", "format": "binary"}
SECONDS: Schema = {"type": "number", "minimum": 0, "maximum": 1e9}
JOBS_RETRIED_MAX = 1000


@cache
def document() -> Schema:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lookout",
            "version": "1",
            "summary": "Image classification on the machines you have",
            "description": "Errors are RFC 9457 problems with a stable `code`. Unknown query "
            "parameters are ignored. See docs/api.md.",
        },
        "servers": [{"url": "/"}],
        "paths": _paths(),
        "components": {"schemas": _schemas()},
    }


def _paths() -> Schema:
    return {
        "/api/v1/jobs": {"get": _list_jobs(), "post": _post_jobs(), "delete": _delete_jobs()},
        "/api/v1/jobs/{job_id}": {
            "get": _operation(
                "One job, at once or after a wait",
                _json("Job"),
                [404, 406, 422, 503],
                [_path("job_id", JOB_ID), WAIT, PREFER],
            ),
            "delete": _operation(
                "Cancel where needed, then remove",
                {"204": {"description": "Removed"}},
                [404, 503],
                [_path("job_id", JOB_ID)],
            ),
        },
        "/api/v1/jobs/{job_id}/cancel": {
            "post": _operation(
                "Cancel; a terminal job stays as it is",
                _json("Job"),
                [404, 503],
                [_path("job_id", JOB_ID)],
            )
        },
        "/api/v1/jobs/{job_id}/retry": {
            "post": _operation(
                "Try a failed or cancelled job again, as a new job",
                _json("Accepted", "202"),
                [404, 409, 429, 503, 507],
                [_path("job_id", JOB_ID)],
            )
        },
        "/api/v1/jobs/cancel": {
            "post": _operation(
                "Cancel the jobs of the body or the filters; all without either",
                _json("Cancelled"),
                [400, 422, 503],
                [STATES, SUBMISSION],
                _body("Ids", required=False),
            )
        },
        "/api/v1/jobs/retry": {
            "post": _operation(
                "Try jobs again, as one new submission",
                _json("Accepted", "202"),
                [400, 404, 409, 422, 429, 503, 507],
                [],
                _body("RetryIds"),
            )
        },
        "/api/v1/jobs/{job_id}/image": {
            "get": _operation(
                "The image, as uploaded",
                {"200": {"description": "The bytes", "content": {"*/*": {"schema": BINARY}}}},
                [404, 503],
                [_path("job_id", JOB_ID)],
            )
        },
        "/api/v1/jobs/{job_id}/thumbnail": {
            "get": _operation(
                "A small WebP",
                {"200": _content("A picture", "image/webp", BINARY)},
                [404, 422, 503],
                [_path("job_id", JOB_ID), _query("v", STRING, "any text; makes it cacheable")],
            )
        },
        "/api/v1/submissions/{submission_id}": {
            "get": _operation(
                "Counts by state, progress",
                _json("Submission"),
                [404, 503],
                [_path("submission_id", SUBMISSION_ID)],
            )
        },
        "/api/v1/workers": {
            "get": _operation("The cluster", _json("Workers"), [406, 503], []),
        },
        "/api/v1/workers/{worker_id}/drain": {
            "post": _operation(
                "Let a worker finish and leave",
                _json("Draining", "202"),
                [404, 409, 503],
                [_path("worker_id", STRING)],
            )
        },
        "/api/v1/model": {
            "get": _operation("What is served", _json("Model"), [406, 503], []),
            "put": _operation(
                "Move the cluster to another model",
                _json("Model"),
                [400, 403, 406, 409, 413, 422, 503],
                [],
                _model_body(),
            ),
        },
        "/api/v1/stats": {
            "get": _operation("Counters and gauges", _json("Stats"), [406, 503], []),
        },
        "/api/v1/events": {"get": _events()},
        "/api/v1/results.csv": {"get": _results("text/csv", STRING)},
        "/api/v1/results.json": {
            "get": _results("application/json", {"type": "array", "items": _ref("Job")})
        },
        "/api/v1/classify": {"get": _classify()},
        "/api/v1/openapi.json": {
            "get": _operation(
                "This document",
                {"200": _content("OpenAPI 3.1", "application/json", {"type": "object"})},
                [406],
                [],
            )
        },
        "/healthz": {"get": _operation("This process lives", _json("Health"), [], [])},
        "/readyz": {"get": _operation("A worker is ready", _json("Ready"), [503], [])},
        "/metrics": {
            "get": _operation(
                "Prometheus, text format 0.0.4",
                {"200": _content("Metrics", "text/plain", STRING)},
                [503],
                [],
            )
        },
    }


# --- the larger operations ------------------------------------------------------------------


def _list_jobs() -> Schema:
    limit = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
    return _operation(
        "A page of jobs, newest first",
        _json("Jobs"),
        [400, 406, 422, 503],
        [
            STATES,
            SUBMISSION,
            _query("limit", limit),
            _query("cursor", STRING, "of the page before"),
        ],
    )


def _delete_jobs() -> Schema:
    return _operation(
        "Remove the jobs of the body or the filters; all without either",
        _json("Removed"),
        [400, 422, 503],
        [STATES, SUBMISSION],
        _body("Ids", required=False),
    )


def _post_jobs() -> Schema:
    images = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "array", "minItems": 1, "items": BINARY}},
    }
    content = {
        "multipart/form-data": {"schema": images},
        "application/octet-stream": {"schema": BINARY},
        "image/*": {"schema": BINARY},
        "application/json": {"schema": _ref("Url")},
    }
    responses = {
        "200": _content("All jobs ended within the wait", "application/json", _ref("Accepted")),
        **_json("Accepted", "202"),
    }
    for answer in responses.values():
        answer["links"] = _links_of_a_submission()
    return _operation(
        "Submit images",
        responses,
        [400, 406, 408, 413, 415, 422, 429, 502, 503, 504, 507],
        [
            WAIT,
            PREFER,
            _query("timeout", {"type": "number", "minimum": 0, "maximum": 604800}, "deadline, s"),
            _query("name", STRING, "file name of a raw image; also X-Filename"),
            _header("Idempotency-Key", {"type": "string", "pattern": "^[!-~]{1,255}$"}),
        ],
        {"required": True, "content": content},
    )


def _classify() -> Schema:
    responses = {
        "200": _content("The job has ended", "application/json", _ref("Job")),
        "202": _content("It goes on; see Location", "application/json", _ref("Job")),
    }
    return _operation(
        "Fetch one URL, classify it, answer within 120 s",
        responses,
        [403, 406, 422, 429, 502, 503, 504, 507],
        [
            _query("url", {"type": "string", "format": "uri"}, required=True),
            _query("timeout", SECONDS, "deadline, s; 120 at most"),
        ],
    )


def _events() -> Schema:
    return _operation(
        "Server-sent events: job, removed, worker, workers, stats, model, core, reset",
        {"200": _content("The stream", "text/event-stream", STRING)},
        [406, 503],
        [_header("Last-Event-ID", STRING), _query("after", STRING, "instead of Last-Event-ID")],
    )


def _results(media_type: str, schema: Schema) -> Schema:
    return _operation(
        "All results, newest first",
        {"200": _content("The results", media_type, schema)},
        [422, 503],
        [STATES, SUBMISSION],
    )


def _links_of_a_submission() -> Schema:
    """Where the ids of the answer lead."""
    job = {"job_id": "$response.body#/jobs/0/id"}
    submission = {"submission_id": "$response.body#/submission"}
    return {
        "job": _link("jobs/{job_id}", "get", job),
        "image": _link("jobs/{job_id}/image", "get", job),
        "thumbnail": _link("jobs/{job_id}/thumbnail", "get", job),
        "cancel": _link("jobs/{job_id}/cancel", "post", job),
        "retry": _link("jobs/{job_id}/retry", "post", job),
        "remove": _link("jobs/{job_id}", "delete", job),
        "submission": _link("submissions/{submission_id}", "get", submission),
    }


def _link(path: str, method: str, parameters: dict[str, str]) -> Schema:
    # A JSON pointer into this document: a slash of the path is written ~1 (RFC 6901).
    pointer = f"/api/v1/{path}".replace("/", "~1")
    return {"operationRef": f"#/paths/{pointer}/{method}", "parameters": parameters}


# --- pieces --------------------------------------------------------------------------------


def _operation(
    summary: str,
    responses: Schema,
    problems: list[int],
    parameters: list[Schema],
    body: Schema | None = None,
) -> Schema:
    # Host and Origin are checked everywhere; a bug may happen everywhere.
    refused = {str(status): _problem(status) for status in sorted({400, 403, 500, *problems})}
    operation: Schema = {"summary": summary, "responses": {**responses, **refused}}
    if parameters:
        operation["parameters"] = parameters
    if body is not None:
        operation["requestBody"] = body
    return operation


def _model_body() -> Schema:
    name: Schema = {"type": ["string", "null"], "minLength": 1}
    properties = {"model": {**name, "maxLength": 128}, "weights": {**name, "maxLength": 255}}
    schema: Schema = {"type": "object", "properties": properties}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _problem(status: int) -> Schema:
    codes = ", ".join(f"`{code}`" for code, (of, _) in CODES.items() if of == status)
    described = _content(f"Problem: {codes}", MEDIA_TYPE, _ref("Problem"))
    if status in {429, 503}:
        described["headers"] = {"Retry-After": {"schema": INTEGER}}
    return described


def _content(description: str, media_type: str, schema: Schema) -> Schema:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def _json(name: str, status: str = "200") -> Schema:
    return {status: _content(name, "application/json", _ref(name))}


def _body(name: str, *, required: bool = True) -> Schema:
    return {"required": required, "content": {"application/json": {"schema": _ref(name)}}}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _query(name: str, schema: Schema, text: str = "", *, required: bool = False) -> Schema:
    return _parameter("query", name, schema, text, required)


def _path(name: str, schema: Schema) -> Schema:
    return _parameter("path", name, schema, "", True)


def _header(name: str, schema: Schema) -> Schema:
    return _parameter("header", name, schema, "", False)


def _parameter(place: str, name: str, schema: Schema, text: str, required: bool) -> Schema:
    parameter = {"name": name, "in": place, "required": required, "schema": schema}
    return parameter | ({"description": text} if text else {})


WAIT = _query("wait", SECONDS, "answer when all have ended, or after so many seconds, 120 at most")
PREFER = _header("Prefer", STRING)
STATES = _query("state", {"type": "array", "items": STATE}, "several times, or with commas")
SUBMISSION = _query("submission", SUBMISSION_ID)
CURSOR = _query("cursor", STRING, "of the page before")


def _object(required: Schema, **optional: Schema) -> Schema:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
    }


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _schemas() -> Schema:
    guess = {"label": STRING, "class_id": {"type": "integer"}, "confidence": NUMBER}
    fault = _object({"code": STRING, "message": STRING})
    counts = {"type": "object", "additionalProperties": INTEGER}
    return {
        "Problem": _object(
            {"type": STRING, "title": STRING, "status": INTEGER, "code": STRING, "detail": STRING}
        ),
        "Guess": _object(guess),
        "Result": _object(
            {
                **guess,
                "top5": _list(_ref("Guess")),
                "timings_ms": {"type": "object", "additionalProperties": NUMBER},
            }
        ),
        "Error": fault,
        "Job": _object(
            {
                "id": JOB_ID,
                "submission": SUBMISSION_ID,
                "name": STRING,
                "state": STATE,
                "submitted_at": TIME,
                "started_at": NULLABLE_TIME,
                "finished_at": NULLABLE_TIME,
                "attempts": INTEGER,
                "worker": NULLABLE_STRING,
                "model": NULLABLE_STRING,
                "size_bytes": INTEGER,
                "media_type": STRING,
                "result": {"anyOf": [_ref("Result"), {"type": "null"}]},
                "error": {"anyOf": [_ref("Error"), {"type": "null"}]},
            }
        ),
        "Jobs": _object({"jobs": _list(_ref("Job")), "cursor": NULLABLE_STRING}),
        "Accepted": _object({"submission": SUBMISSION_ID, "jobs": _list(_ref("Job"))}),
        "Ids": {**_object({"jobs": _list(JOB_ID)}), "additionalProperties": False},
        "RetryIds": {
            **_object({"jobs": {**_list(JOB_ID), "minItems": 1, "maxItems": JOBS_RETRIED_MAX}}),
            "additionalProperties": False,
        },
        "Url": {
            **_object({"url": {"type": "string", "format": "uri"}}, name=NULLABLE_STRING),
            "additionalProperties": False,
        },
        "Removed": _object({"removed": INTEGER}),
        "Cancelled": _object({"cancelled": INTEGER}),
        "Draining": _object({"draining": STRING}),
        "Submission": _object(
            {
                "id": SUBMISSION_ID,
                "submitted_at": TIME,
                "total": INTEGER,
                "done": INTEGER,
                "progress": NUMBER,
                "counts": counts,
            }
        ),
        "Worker": _object(
            {
                "id": STRING,
                "name": STRING,
                "address": STRING,
                "liveness": {"enum": ["alive", "suspect", "dead"]},
                "admission": {"enum": ["accepting", "draining", "quarantined"]},
                "ready": {"type": "boolean"},
                "slots": INTEGER,
                "held": INTEGER,
                "executing": INTEGER,
                "rate_per_s": NUMBER,
                "phi": NUMBER,
                "fault": {"anyOf": [_ref("Error"), {"type": "null"}]},
            }
        ),
        "Workers": _object({"workers": _list(_ref("Worker"))}),
        "Model": _object(
            {
                "id": STRING,
                "architecture": STRING,
                "classes": _list(STRING),
                "sha256": STRING,
                "warning": NULLABLE_STRING,
                "ready_workers": INTEGER,
            }
        ),
        "Stats": _object(
            {
                "counts": counts,
                "workers_ready": INTEGER,
                "drain_rate_per_s": NUMBER,
                "storage_fault": NULLABLE_STRING,
            }
        ),
        "Health": _object({"status": STRING, "core": {"type": "boolean"}}),
        "Ready": _object({"status": STRING, "workers_ready": INTEGER}),
    }
