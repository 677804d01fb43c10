"""The cluster moves to another model under load: no job fails, each says which model made it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fakes.cluster import Cluster
from tests.fakes.weights import default_weights
from tests.integration.load import Load
from tests.shared import make_jpeg, wait_until

pytestmark = pytest.mark.integration

NEW = "shufflenet_v2_x0_5"


def _model(lookout: Cluster) -> str:
    with lookout.client() as http:
        return str(http.get("/model").json()["id"])


def test_swap_under_load_fails_nothing_and_outlives_the_core(
    cluster: Callable[..., Cluster],
) -> None:
    lookout = cluster(workers=2)
    lookout.wait_ready()
    old = _model(lookout)
    weights = default_weights(NEW, lookout.root)
    load = Load(lookout.url, [make_jpeg(n, (64, 64)) for n in range(600)], concurrency=16)
    thread = load.start()
    load.wait_finished(50, timeout_s=60)
    core = f"unix:{lookout.socket_path}"
    where = ("--data", str(lookout.data), "--core", core, "--token-file", str(lookout.token_file))
    swap = lookout.run_master("model", "set", NEW, "--weights", str(weights), *where)
    assert swap.returncode == 0, swap.stderr
    new = _model(lookout)
    assert new != old and new in swap.stdout
    thread.join()
    assert not load.errors, load.errors[:3]
    assert {job["state"] for job in load.finished.values()} == {"succeeded"}
    made_by = {job["model"] for job in load.finished.values()}
    assert made_by == {old, new}
    lookout.kill_core()
    lookout.restart_core()
    wait_until(lambda: len(lookout.ready_workers()) == 2, 60, "both workers to be back")
    assert _model(lookout) == new


def test_swap_to_what_is_not_there_changes_nothing(cluster: Callable[..., Cluster]) -> None:
    lookout = cluster(workers=1)
    lookout.wait_ready()
    old = _model(lookout)
    core = f"unix:{lookout.socket_path}"
    where = ("--data", str(lookout.data), "--core", core, "--token-file", str(lookout.token_file))
    refused = lookout.run_master("model", "set", NEW, "--weights", "/nowhere.pth", *where)
    assert refused.returncode == 2 and "/nowhere.pth" in refused.stderr
    assert _model(lookout) == old and len(lookout.ready_workers()) == 1


def test_swap_over_http_names_files_of_one_folder_only(cluster: Callable[..., Cluster]) -> None:
    lookout = cluster(workers=1)
    lookout.wait_ready()
    models = lookout.data / "models"
    models.mkdir()
    default_weights(NEW, models)
    with lookout.client() as http:
        for name in ("../token", "/etc/hostname", ".."):
            answer = http.put("/model", json={"model": NEW, "weights": name})
            assert (answer.status_code, answer.json()["code"]) == (422, "weights_not_allowed")
        wrong = http.put("/model", json={"model": "googlenet", "weights": f"{NEW}-random.pth"})
        assert (wrong.status_code, wrong.json()["code"]) == (422, "model_refused"), wrong.text
        swapped = http.put("/model", json={"model": NEW, "weights": f"{NEW}-random.pth"})
        assert swapped.status_code == 200, swapped.text
        assert swapped.json()["architecture"] == NEW
    wait_until(lambda: [w["model"] for w in lookout.ready_workers()] == [_model(lookout)], 60)
