"""A run that went through the spool has an id of its own on the server; its tag names the other one."""

from __future__ import annotations

from typing import Any

LOCAL = "spool_run"  # tag on the server: the id in the spool, which is the one that checkpoints name
NO_SUCH_RUN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def find_run(client: Any, run_id: str) -> str | None:
    """The id on the server of a run, given by either id; None where there is none, or a deleted one."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
        return run_id if run.info.lifecycle_stage == "active" else None
    except MlflowException as error:
        if error.error_code not in NO_SUCH_RUN:  # no answer is not a no
            raise
    experiments = [one.experiment_id for one in client.search_experiments()]
    found = (
        client.search_runs(experiments, f"tags.{LOCAL} = '{run_id}'", max_results=1) if experiments else []
    )
    return str(found[0].info.run_id) if found else None
