"""checkov finds no fault in what the chart makes, but for those with a reason here.

It has dependencies that clash with ours, so it lives in an environment of its own:
`make .venv-checkov`, or any that `CHECKOV` names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.charting import (
    EVERYTHING,
    ROOT,
    Json,
    combined,
    command,
    pods_within,
    ready_values,
    render,
)

pytestmark = pytest.mark.k8s

# Reasons why a check is not ours to pass.
REASONS = {
    "CKV_K8S_15": "image tags are versions and never moved; Always would make every start "
    "of a pod depend on the registry (image.pullPolicy sets it)",
    "CKV_K8S_43": "the digest is known to who builds the image: image.digest, as in "
    "values-airgapped.yaml",
    "CKV_K8S_38": "Ray's autoscaler, beside the head, needs the account's token; all other "
    "pods go without, which test_rendering.py shows",
    "CKV_K8S_8": "jobs, the test and the submitter end by themselves: nothing to revive",
    "CKV_K8S_9": "jobs, the test and the submitter take no requests",
    "CKV2_K8S_6": "one NetworkPolicy selects all pods of the release by label; checkov does "
    "not see it for pods that were taken out of templates",
}


def checkov() -> str:
    found = os.environ.get("CHECKOV") or shutil.which(
        "checkov", path=ROOT / ".venv-checkov" / "bin"
    )
    if found is None:
        message = "NOT RUN: checkov is not here; get it with `make .venv-checkov`, or set CHECKOV"
        if os.environ.get("TESTS_MUST_RUN"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def write_objects(folder: Path) -> None:
    rendered = render(combined(ready_values("many-gpus"), EVERYTHING))
    rendered += render(ready_values("airgapped"), name="airgapped")
    plain: Json = yaml.safe_load((ROOT / "deploy" / "ray-cluster.yaml").read_text("utf-8"))
    plain["metadata"]["namespace"] = "speech"
    rendered.append(plain)
    for number, item in enumerate(rendered):
        for index, each in enumerate([item, *pods_within(item)]):
            path = folder / f"{number:02d}-{index}-{each['kind'].lower()}.yaml"
            path.write_text(yaml.safe_dump(each), encoding="utf-8")


def test_no_check_fails_without_a_reason(tmp_path: Path) -> None:
    program = [checkov(), "--directory", str(tmp_path), "--framework", "kubernetes"]
    write_objects(tmp_path)
    done = subprocess.run(
        [*program, "--output", "json", "--quiet", "--compact", "--skip-download"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    report: Json = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 500
    failed = {
        f"{check['check_id']} {check['check_name']}: {check['resource']}"
        for check in report["results"]["failed_checks"]
        if check["check_id"] not in REASONS
    }
    assert sorted(failed) == []
    used = {check["check_id"] for check in report["results"]["failed_checks"]}
    assert set(REASONS) <= used, "a reason that is no longer needed"


def test_dockerfile_has_no_fault() -> None:
    done = subprocess.run(
        [command("hadolint"), str(ROOT / "deploy" / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    assert done.returncode == 0
