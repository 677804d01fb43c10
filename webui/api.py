"""The Flask application: pages, and every call that is one question to the core.

Calls that wait, stream or take images are listed here too, so that one URL map
has all of them, but `webui.gateway` answers those in the event loop (`NATIVE`).
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, urlencode

import msgspec
from flask import Blueprint, Flask, Request, Response, current_app, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import BaseConverter

from webui import openapi, parameters, views
from webui.config import Config
from webui.core import Core, Reply
from webui.pages import SECURITY_HEADERS, pages
from webui.problems import Problem
from webui.thumbnails import Thumbnails
from wire import messages

api = Blueprint("api", __name__, url_prefix="/api/v1")

# (rule, method, endpoint): answered by the gateway, not by Flask.
NATIVE = (
    ("/api/v1/jobs", "POST", "post_jobs"),
    ("/api/v1/jobs/<job:job_id>", "GET", "get_job"),
    ("/api/v1/classify", "GET", "classify"),
    ("/api/v1/events", "GET", "events"),
    ("/api/v1/results.csv", "GET", "results_csv"),
    ("/api/v1/results.json", "GET", "results_json"),
    ("/healthz", "GET", "healthz"),
    ("/readyz", "GET", "readyz"),
    ("/metrics", "GET", "metrics"),
)
IMAGE_TYPES = frozenset({f"image/{kind}" for kind in ("jpeg", "png", "webp", "gif", "bmp", "tiff")})
IDS_MAX = 10_000
# Weights may have to be downloaded first.
MODEL_CALL_S = 120.0


class ModelBody(msgspec.Struct, frozen=True):
    """The body that names a model."""

    model: messages.Name | None = None
    weights: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None


class IdsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of the calls on many jobs."""

    jobs: list[messages.JobId]


class JobId(BaseConverter):
    """`<job:…>` of a rule: what is no job id leads to another rule, or nowhere."""

    regex = parameters.JOB_ID.pattern


class LookoutFlask(Flask):
    """Flask with what the views need, typed."""

    core: Core
    config_of_process: Config
    thumbnails: Thumbnails


def make_app(config: Config, core: Core) -> LookoutFlask:
    """Build the application of one process."""
    app = LookoutFlask(__name__)
    app.url_map.converters["job"] = JobId
    app.core = core
    app.config_of_process = config
    app.thumbnails = Thumbnails(config.limits)
    app.register_blueprint(pages)
    app.register_blueprint(api)
    for rule, method, endpoint in NATIVE:
        app.add_url_rule(rule, endpoint, _native_only, methods=[method])
    app.register_error_handler(Problem, _answer_problem)
    app.register_error_handler(HTTPException, _answer_http_exception)
    app.register_error_handler(Exception, _answer_bug)
    app.after_request(_harden)
    return app


# --- jobs -------------------------------------------------------------------------------------


@api.get("/jobs")
def list_jobs() -> Response:
    """A page of jobs, newest first."""
    states, submission = _filters()
    asked = messages.ListJobs(
        request=0,
        states=states,
        submission=submission,
        limit=parameters.limit(request.args.get("limit")),
        cursor=request.args.get("cursor"),
    )
    reply = _ask(asked, messages.Jobs)
    response = _json({"jobs": [views.job(job) for job in reply.jobs], "cursor": reply.cursor})
    if reply.cursor is not None:
        query = urlencode({**request.args.to_dict(), "cursor": reply.cursor})
        response.headers["Link"] = f'</api/v1/jobs?{query}>; rel="next"'
    return response


@api.delete("/jobs/<job:job_id>")
def delete_job(job_id: str) -> Response:
    """Cancel a job where needed, then delete it and its image."""
    job_id = parameters.job_id(job_id)
    done = _ask(messages.RemoveJobs(request=0, jobs=[job_id]), messages.Done)
    if done.count == 0:
        raise _no_job(job_id)
    return Response(status=204)


@api.delete("/jobs")
def delete_jobs() -> Response:
    """Delete all jobs, or those of the filters, or those of the body."""
    ids = _chosen_ids()
    if ids is None:
        done = _ask(messages.RemoveJobs(request=0, jobs=None), messages.Done)
        return _json({"removed": done.count})
    return _json({"removed": sum(_remove(ids[i : i + 1000]) for i in range(0, len(ids), 1000))})


@api.post("/jobs/cancel")
def cancel_jobs() -> Response:
    """Cancel the jobs of the body, or of the filters, that aren't terminal."""
    ids = _chosen_ids()
    done = _ask(messages.CancelJobs(request=0, jobs=ids), messages.Done)
    return _json({"cancelled": done.count})


@api.post("/jobs/<job:job_id>/cancel")
def cancel_job(job_id: str) -> Response:
    """Cancel one job; it stays, as `cancelled`. A terminal job stays as it is."""
    job_id = parameters.job_id(job_id)
    _job(job_id)
    _ask(messages.CancelJobs(request=0, jobs=[job_id]), messages.Done)
    return _json(views.job(_job(job_id)))


@api.post("/jobs/retry")
def retry_jobs() -> Response:
    """Try the failed or cancelled jobs of the body again, as new jobs."""
    ids = _body_ids()
    if not 1 <= len(ids) <= 1000:
        raise Problem("invalid_parameter", "give 1 to 1000 jobs to retry")
    return _retry(ids)


@api.post("/jobs/<job:job_id>/retry")
def retry_job(job_id: str) -> Response:
    """Try one failed or cancelled job again, as a new job."""
    job_id = parameters.job_id(job_id)
    _job(job_id)
    return _retry([job_id])


@api.get("/jobs/<job:job_id>/image")
def get_image(job_id: str) -> Response:
    """The image, as uploaded. Never as anything that a browser would run."""
    image = _ask(messages.GetImage(request=0, job=parameters.job_id(job_id)), messages.Image)
    shown = image.media_type in IMAGE_TYPES
    response = Response(
        image.data, mimetype=image.media_type if shown else "application/octet-stream"
    )
    kind = "inline" if shown else "attachment"
    response.headers["Content-Disposition"] = f"{kind}; filename*=UTF-8''{quote(image.name)}"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.headers["Cache-Control"] = "private, no-cache"
    return _with_etag(response)


@api.get("/jobs/<job:job_id>/thumbnail")
def get_thumbnail(job_id: str) -> Response:
    """A small WebP of the image."""
    job_id = parameters.job_id(job_id)
    app = _app()
    # Ids begin anew with a new data directory; `v` (any text) keeps the two apart.
    key = f"{job_id} {request.args.get('v', '')[:64]}"
    thumbnail = app.thumbnails.get(key)
    if thumbnail is None:
        image = _ask(messages.GetImage(request=0, job=job_id), messages.Image)
        thumbnail = app.thumbnails.make(key, image.data)
    response = Response(thumbnail.data, mimetype="image/webp")
    response.set_etag(thumbnail.etag)
    lasting = "max-age=86400, immutable" if "v" in request.args else "no-cache"
    response.headers["Cache-Control"] = f"private, {lasting}"
    response.make_conditional(request)
    return response


@api.get("/submissions/<submission_id>")
def get_submission(submission_id: str) -> Response:
    """Counts by state and progress of one submission."""
    submission_id = parameters.submission_id(submission_id)
    asked = messages.GetSubmission(request=0, submission=submission_id)
    return _json(views.submission(_ask(asked, messages.Submission)))


# --- the cluster --------------------------------------------------------------------------------


@api.get("/workers")
def list_workers() -> Response:
    """All workers known."""
    reply = _ask(messages.GetWorkers(request=0), messages.Workers)
    return _json({"workers": [views.worker(worker) for worker in reply.workers]})


@api.post("/workers/<path:worker_id>/drain")
def drain_worker(worker_id: str) -> Response:
    """Ask a worker to finish and leave."""
    if not 1 <= len(worker_id) <= 128:
        raise Problem("not_found", "there is no such worker")
    done = _ask(messages.DrainWorker(request=0, worker=worker_id), messages.Done)
    if done.count == 0:
        raise Problem("not_found", f"there is no connected worker {worker_id!r}")
    return _json({"draining": worker_id}, 202)


@api.get("/model")
def get_model() -> Response:
    """What the cluster serves."""
    reply = _ask(messages.GetModel(request=0), messages.ModelView)
    response = _json(views.model(reply))
    response.headers["Cache-Control"] = "private, no-cache"
    return _with_etag(response)


@api.put("/model")
def put_model() -> Response:
    """Move the cluster to another model; answered when the master has found its weights."""
    try:
        body = msgspec.json.decode(request.data, type=ModelBody)
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise Problem("bad_request", f'{fault}; send {{"model": "googlenet"}}') from None
    if body.model is None and body.weights is None:
        raise Problem("invalid_parameter", "name a `model`, `weights`, or both")
    asked = messages.SetModel(request=0, model=body.model, weights=body.weights)
    return _json(views.model(_app().core.call(asked, messages.ModelView, MODEL_CALL_S)))


@api.get("/stats")
def get_stats() -> Response:
    """Counters and gauges of the core."""
    return _json(views.stats(_ask(messages.GetStats(request=0), messages.Stats)))


@api.get("/openapi.json")
def get_openapi() -> Response:
    """The OpenAPI 3.1 document."""
    return _json(openapi.document())


# --- inside -------------------------------------------------------------------------------------


def _app() -> LookoutFlask:
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    assert isinstance(app, LookoutFlask)
    return app


def _ask(message: messages.Message, expect: type[Reply]) -> Reply:
    app = _app()
    return app.core.call(message, expect, app.config_of_process.limits.core_call_s)


def _job(job_id: str) -> messages.JobView:
    reply = _ask(messages.GetJobs(request=0, jobs=[job_id]), messages.Jobs)
    if not reply.jobs:
        raise _no_job(job_id)
    return reply.jobs[0]


def _no_job(job_id: str) -> Problem:
    return Problem("not_found", f"there is no job {job_id}; it may have been removed")


def _remove(ids: list[str]) -> int:
    return _ask(messages.RemoveJobs(request=0, jobs=ids), messages.Done).count


def _retry(ids: list[str]) -> Response:
    reply = _ask(messages.RetryJobs(request=0, jobs=ids), messages.Submitted)
    body = {"submission": reply.submission, "jobs": [views.job(job) for job in reply.jobs]}
    response = _json(body, 202)
    response.headers["Location"] = f"/api/v1/submissions/{reply.submission}"
    return response


def _chosen_ids() -> list[str] | None:
    """Return the ids of the body, else of the filters; None where there is neither."""
    states, submission = _filters()
    return _body_ids() if request.data else _filtered_ids(states, submission)


def _filters() -> tuple[list[messages.JobState], str | None]:
    states = parameters.states(request.args.getlist("state"))
    return states, parameters.submission_filter(request.args.get("submission"))


def _body_ids() -> list[str]:
    try:
        ids = msgspec.json.decode(request.data, type=IdsBody).jobs
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise Problem("bad_request", f'{fault}; send {{"jobs": ["j1", "j2"]}}') from None
    if len(ids) > IDS_MAX:
        raise Problem("invalid_parameter", f"at most {IDS_MAX} jobs at once")
    return ids


def _filtered_ids(states: list[messages.JobState], submission: str | None) -> list[str] | None:
    if not states and submission is None:
        return None
    ids: list[str] = []
    cursor: str | None = None
    while True:
        asked = messages.ListJobs(
            request=0, states=states, submission=submission, limit=1000, cursor=cursor
        )
        reply = _ask(asked, messages.Jobs)
        ids += [job.id for job in reply.jobs]
        cursor = reply.cursor
        if cursor is None or len(ids) >= IDS_MAX:
            return ids[:IDS_MAX]


def _json(value: Any, status: int = 200) -> Response:
    if not parameters.accepts(request.headers.get("Accept"), "application/json"):
        raise Problem("not_acceptable", "the answer is application/json")
    response = Response(msgspec.json.encode(value), status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


def _with_etag(response: Response) -> Response:
    response.add_etag()
    response.make_conditional(request)
    return response


def _native_only(**_: str) -> Response:
    raise Problem("internal_error", "this address is answered by the gateway")


def _answer_problem(problem: Problem) -> Response:
    return Response(problem.body(), problem.status, problem.headers())


def _answer_http_exception(fault: HTTPException) -> Response:
    if fault.code is not None and fault.code < 400:
        return Response(status=fault.code, headers=fault.get_headers())
    return _answer_problem(_translated(fault, request))


def _translated(fault: HTTPException, asked: Request) -> Problem:
    if isinstance(fault, MethodNotAllowed):
        allowed = ", ".join(sorted(fault.valid_methods or ()))
        return Problem(
            "method_not_allowed",
            f"{asked.method} isn't for {asked.path}; it takes {allowed}",
            headers=(("Allow", allowed),),
        )
    codes = {404: "not_found", 406: "not_acceptable", 413: "request_too_large"}
    code = codes.get(fault.code or 500, "bad_request" if (fault.code or 500) < 500 else None)
    return Problem(code or "internal_error", f"{asked.path}: {fault.description or fault.name}")


def _answer_bug(fault: Exception) -> Response:
    current_app.logger.error("%s %s failed", request.method, request.path, exc_info=fault)
    return _answer_problem(Problem("internal_error", "the log of the web process says more"))


def _harden(response: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response
