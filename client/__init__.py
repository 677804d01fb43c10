"""Classify images on a Lookout server: the library `client`, and the command `classify`.

Speaks the REST API over HTTP and needs nothing else of Lookout. Promises that an
image is classified and counted once, however many answers get lost on the way,
and that memory doesn't grow with the number of images.
"""

from __future__ import annotations

from client.aio import AsyncLookout
from client.blocking import Lookout, Results
from client.config import Clock, Limits
from client.errors import BadInput, ClientError, FailedImage, Refused, TimedOut, Unreachable
from client.job import Guess, Job, JobError, Result
from client.journey import Retry
from client.run import Outcome, Run
from client.sources import Data, File, Url
from client.video import Video

__all__ = [
    "AsyncLookout",
    "BadInput",
    "ClientError",
    "Clock",
    "Data",
    "FailedImage",
    "File",
    "Guess",
    "Job",
    "JobError",
    "Limits",
    "Lookout",
    "Outcome",
    "Refused",
    "Result",
    "Results",
    "Retry",
    "Run",
    "TimedOut",
    "Unreachable",
    "Url",
    "Video",
]
