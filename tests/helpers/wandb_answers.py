"""What openwandb lacks of W&B's server: line numbers of history, resumed runs, alerts, and uploads of artifacts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

HISTORY, EVENTS, OUTPUT, SUMMARY = "wandb-history.jsonl", "wandb-events.jsonl", "output.log", "wandb-summary.json"
Variables = dict[str, Any]


class MissingAnswers:
    """Keeps the lines of runs, and answers the GraphQL operations that openwandb does not know or answers too simply.

    openwandb appends a chunk of rows that was sent twice and knows no line numbers. W&B's own server stores each line
    at the number that the client names, and tells a client that resumes a run how many lines there are.

    Attributes:
        lines: Accepted lines by run id, file and line number.
        alerts: Variables of the alerts: ``title``, ``text``, ``severity``, ``runName`` and others.
    """

    def __init__(self) -> None:
        self.url = ""
        self.lines: dict[str, dict[str, dict[int, str]]] = {}
        self.alerts: list[Variables] = []
        self._runs: dict[str, Variables] = {}
        self._ids = map(str, itertools.count(1))
        self._answers: dict[str, Callable[[Variables], dict[str, Any] | None]] = {
            "UpsertBucket": self._keep_run,
            "RunResumeStatus": self._resume_status,
            "NotifyScriptableRunAlert": self._alert,
            "ArtifactType": lambda _: {"project": {"artifact": None}},
            "FetchArtifactDigestAlgorithm": lambda _: {"project": {"artifactType": None}},
            "XXHashDigestsEnabled": lambda _: {"entity": {"xxhashDigestsEnabled": False}},
            "CreateArtifact": self._create_artifact,
            "CreateArtifactManifest": lambda variables: {"createArtifactManifest": self._manifest(variables)},
            "UpdateArtifactManifest": lambda variables: {"updateArtifactManifest": self._manifest(variables)},
            "CreateArtifactFiles": self._artifact_files,
            "CommitArtifact": lambda variables: {
                "commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": ""}}
            },
        }

    def answer(self, operation: str, variables: Variables) -> dict[str, Any] | None:
        """Returns the data of an answer; None if openwandb answers."""
        known = self._answers.get(operation)
        return None if known is None else known(variables)

    def accept(self, path: str, body: bytes) -> None:
        """Keeps the lines of an accepted request to the file stream."""
        if not path.endswith("/file_stream") or not body:
            return
        files = self.lines.setdefault(path.split("/")[-2], {})
        for name, chunk in (json.loads(body).get("files") or {}).items():
            files.setdefault(name, {}).update(enumerate(chunk["content"], chunk["offset"]))

    def _keep_run(self, variables: Variables) -> None:
        known = {name: value for name, value in variables.items() if value is not None}
        self._runs.setdefault(variables["name"], {}).update(known)

    def _resume_status(self, variables: Variables) -> dict[str, Any]:
        run_id, project, entity = variables["name"], variables.get("project"), variables.get("entity") or "default"
        model = {"id": "1", "name": project, "entity": {"id": "1", "name": entity}, "bucket": None}
        if run_id in self._runs:
            run, lines = self._runs[run_id], self.lines.get(run_id, {})
            summary = lines.get(SUMMARY) or {0: "{}"}
            config = json.loads(run.get("config", "{}"))
            model["bucket"] = {
                "id": run_id,
                "name": run_id,
                "displayName": run.get("displayName") or run_id,
                "summaryMetrics": summary[max(summary)],
                "logLineCount": _count(lines.get(OUTPUT)),
                "historyLineCount": _count(lines.get(HISTORY)),
                "eventsLineCount": _count(lines.get(EVENTS)),
                "historyTail": _tail(lines.get(HISTORY)),
                "eventsTail": _tail(lines.get(EVENTS)),
                "config": json.dumps(config),
                "tags": run.get("tags") or [],
                "notes": run.get("notes"),
                "wandbConfig": json.dumps({"t": config.get("_wandb", {}).get("value", {}).get("t", {})}),
            }
        return {"model": model}

    def _alert(self, variables: Variables) -> dict[str, Any]:
        self.alerts.append(variables)
        return {"notifyScriptableRunAlert": {"success": True}}

    def _create_artifact(self, variables: Variables) -> dict[str, Any]:
        sequence = {"id": next(self._ids), "latestArtifact": None}
        digest = variables.get("input", variables).get("digest", "")
        artifact = {"id": next(self._ids), "digest": digest, "state": "PENDING", "artifactSequence": sequence}
        return {"createArtifact": {"artifact": artifact}}

    def _manifest(self, variables: Variables) -> dict[str, Any]:
        manifest_id = variables.get("artifactManifestID") or next(self._ids)
        file = {"id": manifest_id, "uploadUrl": self._upload_url(f"manifest-{manifest_id}"), "uploadHeaders": []}
        return {"artifactManifest": {"id": manifest_id, "file": file}}

    def _artifact_files(self, variables: Variables) -> dict[str, Any]:
        arguments = variables.get("input", variables)  # wandb 0.21 passes them one by one
        edges = [
            {
                "node": {
                    "storagePath": file["name"],
                    "uploadUrl": self._upload_url(f"{file['artifactID']}/{file['name']}"),
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "artifact": {"id": file["artifactID"]},
                }
            }
            for file in arguments["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _upload_url(self, path: str) -> str:
        return f"{self.url}/artifacts/{path}"


def _count(lines: dict[int, str] | None) -> int:
    return max(lines) + 1 if lines else 0


def _tail(lines: dict[int, str] | None) -> str:
    return json.dumps([lines[max(lines)]] if lines else [])
