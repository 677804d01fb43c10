"""The client against a real cluster whose processes are killed: one result for each image."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from client import AsyncLookout, Limits, Lookout, Outcome
from tests.fakes.cluster import Cluster
from tests.integration.load import query
from tests.shared import REPOSITORY, make_jpeg, wait_until

pytestmark = pytest.mark.integration
IMAGES = 200
CONCURRENCY = 16
SLOW = {"LOOKOUT_FAULTS": "delay-ms=40"}


def slow_cluster(cluster: Callable[..., Cluster]) -> Cluster:
    """One worker that needs some seconds for `IMAGES` images."""
    lookout = cluster(workers=1, worker_args=["--enable-fault-hooks", "--batch", "1"], env=SLOW)
    lookout.wait_ready()
    return lookout


def folder_of_images(folder: Path, count: int) -> Path:
    """`count` small JPEG files, half of them a level deeper."""
    (folder / "deeper").mkdir(parents=True)
    for number in range(count):
        where = folder / "deeper" if number % 2 else folder
        (where / f"{number:03d}.jpg").write_bytes(make_jpeg(number, (96, 96)))
    return folder


def jobs_in_table(lookout: Cluster) -> int:
    """How many jobs there are, read from the job table itself."""
    count: int = query(lookout.data, "SELECT count(*) FROM jobs")[0][0]
    return count


def successes_by_job(lookout: Cluster) -> Counter[str]:
    """Attempts that brought a result, of each job."""
    rows = query(lookout.data, "SELECT job FROM attempts WHERE outcome = 'succeeded'")
    return Counter(row[0] for row in rows)


def restart_web(lookout: Cluster) -> None:
    """`kill -9` of the web and of the process that serves for it; a new one on its port.

    The one that serves would see its parent's death, and give its answers before it ends.
    """
    assert lookout.web is not None
    serving = psutil.Process(lookout.web.pid).children(recursive=True)
    for process in serving:
        process.kill()
    lookout.web.kill9()
    psutil.wait_procs(serving, timeout=10)
    lookout.start_web()


def restart_core(lookout: Cluster) -> None:
    """`kill -9` of the core, and a new one on its data."""
    lookout.kill_core()
    lookout.restart_core()


def test_every_image_has_one_result_while_web_and_core_are_killed(
    cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    lookout = slow_cluster(cluster)
    folder = folder_of_images(tmp_path / "images", IMAGES)
    outcomes: list[Outcome] = []
    reasons: list[str] = []
    reached = {count: threading.Event() for count in (40, 100)}

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if (event := reached.get(len(outcomes))) is not None:
            event.set()

    def classify() -> None:
        # Answers are lost while they are waited for, which a wait of seconds makes certain.
        with Lookout(lookout.url, limits=Limits(wait_s=5.0)) as client:
            for outcome in client.classify(
                folder,
                recursive=True,
                concurrency=CONCURRENCY,
                on_retry=lambda retry: reasons.append(retry.reason),
            ):
                note(outcome)

    thread = threading.Thread(target=classify)
    thread.start()
    try:
        assert reached[40].wait(60)
        restart_web(lookout)
        assert reached[100].wait(60)
        restart_core(lookout)
    finally:
        thread.join(120)
    assert not thread.is_alive()
    assert [o.error for o in outcomes if not o.ok] == []
    names = sorted(str(path) for path in folder.rglob("*.jpg"))
    assert sorted(outcome.image for outcome in outcomes) == names
    jobs = {outcome.job.id for outcome in outcomes if outcome.job is not None}
    assert len(jobs) == IMAGES
    assert jobs_in_table(lookout) == IMAGES
    assert max(successes_by_job(lookout).values()) == 1
    repeated = [outcome for outcome in outcomes if outcome.tries > 1]
    assert len(repeated) >= CONCURRENCY / 2, (reasons, "hardly anything was lost: no test")


def run_classify(
    lookout: Cluster, *arguments: str | Path, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """The command, as a script runs it."""
    return subprocess.run(
        [sys.executable, "-m", "client", *map(str, arguments)],
        env=environment(lookout),
        cwd=REPOSITORY,
        input=stdin,
        capture_output=True,
        timeout=120,
        check=False,
    )


def environment(lookout: Cluster) -> dict[str, str]:
    """What a script's environment holds."""
    return {**os.environ, "LOOKOUT_URL": lookout.url, "NO_PROXY": "127.0.0.1"}


def test_the_command_classifies_files_folders_and_stdin(
    cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    lookout = cluster(workers=1)
    lookout.wait_ready()
    folder = folder_of_images(tmp_path / "images", 6)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no more of a photograph")
    done = run_classify(lookout, folder, "-", "--json", "--in-order", stdin=make_jpeg(99))
    assert done.returncode == 0, done.stderr
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(shown) == 4 and shown[-1]["image"] == "stdin"
    assert all(len(one["top"]) == 5 and one["worker"] == "w1" for one in shown)
    done = run_classify(lookout, folder, broken, "--recursive", "--csv", "--quiet")
    assert done.returncode == 1 and done.stderr == b""
    rows = done.stdout.decode().splitlines()
    assert len(rows) == 1 + 6 + 1
    assert next(row for row in rows if str(broken) in row).split(",")[1] == "failed"
    private = run_classify(lookout, "http://127.0.0.1/fox.jpg", "--json")
    assert private.returncode == 1
    assert json.loads(private.stdout)["error"]["code"] == "url_refused"
    assert jobs_in_table(lookout) == 4 + 7


def test_a_deadline_and_an_interrupt_end_the_command(
    cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    lookout = slow_cluster(cluster)
    folder = folder_of_images(tmp_path / "images", IMAGES)
    late = run_classify(lookout, folder, "-r", "--deadline", "2", "--json")
    assert late.returncode == 4, late.stderr
    assert b"--deadline" in late.stderr
    states = Counter(json.loads(line)["state"] for line in late.stdout.splitlines())
    assert 0 < states["succeeded"] < IMAGES
    running = subprocess.Popen(
        [sys.executable, "-m", "client", str(folder), "-r", "--json"],
        env=environment(lookout),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout is not None
    first = running.stdout.readline()
    running.send_signal(signal.SIGINT)
    rest, said = running.communicate(timeout=20)
    assert running.returncode == 130, said
    assert b"interrupted" in said and b"Traceback" not in said
    lines = [first, *rest.splitlines()]
    assert 0 < len(lines) < IMAGES
    assert {json.loads(line)["state"] for line in lines} == {"succeeded"}


async def classify_async(url: str, images: list[bytes]) -> list[Outcome]:
    """Outcomes by way of `AsyncLookout`, in order."""
    async with AsyncLookout(url) as client:
        run = await client.classify(images, in_order=True, concurrency=4)
        return [outcome async for outcome in run]


def test_async_programs_have_the_same(cluster: Callable[..., Cluster]) -> None:
    import asyncio

    lookout = cluster(workers=1)
    lookout.wait_ready()
    outcomes = asyncio.run(classify_async(lookout.url, [make_jpeg(n, (64, 64)) for n in range(10)]))
    assert [outcome.index for outcome in outcomes] == list(range(10))
    assert all(outcome.ok for outcome in outcomes)
    wait_until(lambda: jobs_in_table(lookout) == 10, 10, "the table to show 10 jobs")
