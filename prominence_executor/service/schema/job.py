"""What a job description may contain, and the sentences that refuse it.

The sentences and their order are the service's own. Where it would answer with an HTML page, or accept something that
then breaks without a word, a sentence of this service's own stands. Nothing here looks at stored state.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import shlex
from collections.abc import Callable
from string import Template
from typing import Any

JOB_ITEMS = {
    "name", "labels", "tasks", "resources", "inputs", "artifacts", "outputFiles", "outputDirs", "policies",
    "notifications", "storage",
}  # fmt: skip
RESOURCE_ITEMS = {
    "cpus", "memory", "memoryPerCpu", "disk", "nodes", "walltime", "cpusRange", "cpusOptions", "totalCpusRange",
}  # fmt: skip
TASK_ITEMS = {"image", "runtime", "cmd", "env", "workdir", "type", "procsPerNode", "stdout", "stderr"}
POLICY_ITEMS = {
    "maximumRetries", "maximumTaskRetries", "maximumTimeInQueue", "leaveInQueue", "priority", "preemptible",
    "ignoreTaskFailures", "reportJobSuccessOnTaskFailure", "runSerialTasksOnAllNodes",
}  # fmt: skip
FLAGS = {"leaveInQueue", "preemptible", "ignoreTaskFailures", "reportJobSuccessOnTaskFailure",
         "runSerialTasksOnAllNodes"}  # fmt: skip
WORKERS_OWN_NAMES = {"logs", "json", "promlet.py", ".job.json"}
PARALLEL_TYPES = {"openmpi", "intelmpi", "mpich"}
MOST_NODES = 128  # that this service emulates
LONGEST_WORD = 128 * 1024  # the kernel's limit for one argument (MAX_ARG_STRLEN)


class Refused(ValueError):
    """A description that the service does not accept; the message is its sentence."""


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def check_job(job: Any) -> None:
    """Refuse a job description that cannot run. Names of uploaded objects are looked up by the caller."""
    if not isinstance(job, dict):
        # The service looks for the word "resources" in whatever it gets, a list too.
        raise Refused("a job must contain resources")
    json.dumps(job, ensure_ascii=False).encode()  # half a surrogate pair fails here, not later in the worker
    for item in job:
        if item not in JOB_ITEMS:
            raise Refused(f'invalid item "{item}" in job description')
    check_name(job.get("name", ""))
    check_labels(job.get("labels", {}))
    if "resources" not in job:
        raise Refused("a job must contain resources")
    _check_resources(job["resources"])
    if "tasks" not in job:
        raise Refused("a job must contain tasks")
    _check_tasks(job["tasks"])
    _check_inputs(job.get("inputs", []))
    _check_artifacts(job.get("artifacts", []))
    for item in ("outputFiles", "outputDirs"):
        _check_outputs(item, job.get(item, []))
    check_policies(job.get("policies", {}))
    _check_notifications(job.get("notifications", []))
    _check_storage(job)


def check_name(name: Any) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z0-9\-_ ./]*", name):
        raise Refused("invalid job name")
    if len(name) >= 512:
        raise Refused("job name must be less than 512 characters in length")


def check_labels(labels: Any) -> None:
    if not isinstance(labels, dict):
        raise Refused("labels must be defined as a dict")
    for key, value in labels.items():
        if not re.fullmatch(r"[a-zA-Z0-9]+", key):
            raise Refused(f'label name "{key}" is invalid')
        if not isinstance(value, str) or not re.fullmatch(r"[\w./\-]+", value):
            raise Refused(f'label value "{value}" is invalid')
        if len(value) >= 512:
            raise Refused("label values must be less than 512 characters in length")


def _check_resources(resources: Any) -> None:
    if not isinstance(resources, dict):
        raise Refused("resources must be defined as a dict")
    for item in resources:
        if item not in RESOURCE_ITEMS:
            raise Refused(f'invalid item "{item}" in resources')
    if not {"cpus", "cpusRange", "cpusOptions"} & resources.keys():
        raise Refused("one of cpus, cpusRange, cpusOptions must be defined")
    if "memory" not in resources and "memoryPerCpu" not in resources:
        raise Refused("memory or memoryPerCpu (in GB) must be defined")
    if "memory" in resources and "memoryPerCpu" in resources:
        raise Refused("memory and memoryPerCpu cannot both be defined")
    if "disk" not in resources:
        raise Refused("disk (in GB) must be defined")
    for item, must, least in (
        ("nodes", "number of nodes must be an integer", "number of nodes must be at least 1"),
        ("cpus", "number of cpus must be an integer", "number of cpus must be at least 1"),
        ("memory", "memory must be an integer", "memory must be at least 1"),
        ("memoryPerCpu", "memoryPerCpu must be an integer", "memoryPerCpu must be at least 1"),
        ("disk", "disk must be an integer", "disk must be at least 1"),
        ("walltime", "required walltime must be an integer", "walltime must be at least 1 minute"),
    ):
        if item in resources:
            if not is_whole(resources[item]):
                raise Refused(must)
            if resources[item] < 1:
                raise Refused(least)
    for item in ("cpusRange", "cpusOptions", "totalCpusRange"):
        if item in resources:
            _check_pair(item, resources[item])
    if len({"cpus", "cpusRange", "cpusOptions"} & resources.keys()) > 1:
        raise Refused("only one of cpus, cpusRange, cpusOptions can be defined")
    if resources.get("nodes", 1) > MOST_NODES:
        raise Refused(f"this service has at most {MOST_NODES} nodes")
    if "nodes" in resources and "totalCpusRange" in resources:
        raise Refused("nodes and totalCpusRange cannot both be defined")


def _check_pair(item: str, pair: Any) -> None:
    if not isinstance(pair, list) or len(pair) != 2 or not all(is_whole(number) and number >= 1 for number in pair):
        raise Refused(f"{item} must be an array of two integers of at least 1")
    if pair[0] > pair[1]:
        raise Refused(f"the first number of {item} must not be above the second")


def _check_tasks(tasks: Any) -> None:
    if not isinstance(tasks, list):
        raise Refused("an array of tasks must be provided")
    for task in tasks:
        _check_task(task)
    if all(task.get("type") == "sidecar" for task in tasks):
        raise Refused("a job cannot contain only sidecar tasks")


def _check_task(task: Any) -> None:
    if not isinstance(task, dict):
        raise Refused("each task must be defined as a dict")
    for item in task:
        if item not in TASK_ITEMS:
            raise Refused(f'invalid item "{item}" in task')
    if not isinstance(task.get("image"), str) or not task["image"].strip():
        raise Refused("each task must specify a container image")
    if "runtime" not in task:
        raise Refused("a container runtime must be defined")
    if task["runtime"] not in ("udocker", "singularity"):
        raise Refused("the container runtime must be either udocker or singularity")
    if not isinstance(task.get("cmd", ""), str):
        raise Refused("cmd must be a string")
    _check_command(task.get("cmd", ""))
    env = task.get("env", {})
    if not isinstance(env, dict):
        raise Refused("environment variables must be defined as a dict")
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or not isinstance(value, (str, int, float)) or "\0" in str(value):
            raise Refused(f'environment variable "{name}" is invalid')
    for item in ("workdir", "stdout", "stderr"):
        if not isinstance(task.get(item, ""), str) or "\0" in task.get(item, ""):
            raise Refused(f"{item} must be a string")
    kind = task.get("type", "basic")
    if kind not in ("basic", "sidecar", *PARALLEL_TYPES):
        raise Refused("invalid task type")
    if "procsPerNode" in task and (not is_whole(task["procsPerNode"]) or task["procsPerNode"] < 1):
        raise Refused("number of processes per node must be an integer of at least 1")


def _check_command(command: str) -> None:
    """The service accepts these and then its worker crashes without a word."""
    if "\0" in command:
        raise Refused("cmd must not contain null characters")
    try:
        words = shlex.split(command.replace("\n", " "))
    except ValueError as error:
        raise Refused(f"cmd cannot be split into words: {str(error).lower()}") from error
    if any(len(word.encode()) >= LONGEST_WORD for word in words):
        raise Refused("a word of cmd must be less than 131072 bytes in length")


def _check_inputs(inputs: Any) -> None:
    if not isinstance(inputs, list):
        raise Refused("an array of inputs must be provided")
    for item in inputs:
        if not isinstance(item, dict):
            raise Refused("each input must be defined as a dict")
        for key in item:
            if key not in ("filename", "content", "executable"):
                raise Refused(f"invalid item {key} in input")
        if "filename" not in item:
            raise Refused("each input must contain a filename")
        if "content" not in item:
            raise Refused("each input must contain base64 encoded content")
        _check_input_name(item["filename"])
        decoded(item)


def decoded(item: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(item["content"])
    except (binascii.Error, TypeError, ValueError) as error:
        raise Refused(f'content of input "{item["filename"]}" is not valid base64') from error


def _check_input_name(name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise Refused("the filename of an input must be a string")
    base = name.rsplit("/", 1)[-1]
    if name.startswith("/") or ".." in name.split("/") or base in ("", ".") or "\0" in name:
        raise Refused(f'input filename "{name}" leaves the job\'s directory')
    if "," in name:
        raise Refused(f'input filename "{name}" must not contain a comma')
    if base in WORKERS_OWN_NAMES:
        raise Refused(f'input filename "{name}" is one of the worker\'s own')
    if len(base.encode()) > 255:
        raise Refused("the filename of an input must be shorter")


def _check_artifacts(artifacts: Any) -> None:
    if not isinstance(artifacts, list):
        raise Refused("an array of artifacts must be provided")
    for item in artifacts:
        if not isinstance(item, dict):
            raise Refused("each artifact must be defined as a dict")
        for key in item:
            if key not in ("url", "mountpoint", "executable"):
                raise Refused(f"invalid item {key} in artifact")
        if not isinstance(item.get("url"), str) or not item["url"]:
            raise Refused("an artifact must contain a URL")
        mountpoint = item.get("mountpoint", "a:/home/user/a")
        if not isinstance(mountpoint, str) or mountpoint.count(":") != 1 or not all(mountpoint.split(":")):
            raise Refused("invalid mountpoint for artifact")
        source, target = mountpoint.split(":")
        if source.startswith("/") or ".." in source.split("/") or ".." in target.split("/"):
            raise Refused("invalid mountpoint for artifact")


def check_mounts(job: dict[str, Any]) -> None:
    """Refuse what only a container can have, where tasks are plain processes."""
    for item in job.get("artifacts", []):
        target = item.get("mountpoint", "a:/home/user/a").split(":")[1]
        if not target.startswith(("/home/user/", "/tmp/")):  # noqa: S108
            raise Refused(
                "tasks of this service are plain processes: an artifact can be mounted in /home/user or /tmp only"
            )


def _check_outputs(item: str, names: Any) -> None:
    if not isinstance(names, list):
        raise Refused(f"an array of {item} must be provided")
    for name in names:
        if not isinstance(name, str):
            raise Refused(f"{item} must be a list of strings")
        base = name.rstrip("/").rsplit("/", 1)[-1]
        if base in ("", ".", "..") or "\0" in name or len(base.encode()) > 240:
            raise Refused(f'"{name}" cannot be the name of an output')


def check_policies(policies: Any) -> None:
    if not isinstance(policies, dict):
        raise Refused("policies must be defined as a dict")
    for item, value in policies.items():
        if item not in POLICY_ITEMS:
            raise Refused(f'invalid item "{item}" in policies')
        if item in FLAGS and not isinstance(value, bool):
            raise Refused(f"{item} must be either true or false")
        if item not in FLAGS and (not isinstance(value, int) or isinstance(value, bool)):
            raise Refused(f"{item} must be an integer")
        if item in ("maximumRetries", "maximumTaskRetries"):
            if value < 1:
                raise Refused("the number of retries must be greater than 0")
            if value > 6:
                raise Refused("the number of retries must be less than 6")


def _check_notifications(notifications: Any) -> None:
    if not isinstance(notifications, list):
        raise Refused("an array of notifications must be provided")
    for item in notifications:
        if not isinstance(item, dict):
            raise Refused("each notification must be defined as a dict")
        if item.get("event") != "jobFinished":
            raise Refused(f'invalid notification event "{item.get("event", "")}"')
        if item.get("type") != "email":
            raise Refused(f'invalid notification type "{item.get("type", "")}"')


def _check_storage(job: dict[str, Any]) -> None:
    if "storage" not in job:
        return
    if not isinstance(job["storage"], dict) or job["storage"].get("type") != "onedata":
        raise Refused("storage type must be onedata")
    raise Refused("storage cannot be mounted by this service")


def substituted(text: str, values: dict[str, str]) -> str:
    """`$name`, `${name}` and `$$` as the service's worker replaces them; names it does not know stay as they are."""
    return Template(text).safe_substitute(values)


def check_objects(job: dict[str, Any], exists: Callable[[str], bool], values: dict[str, str] | None = None) -> None:
    """Refuse names of artifacts and images that should be uploaded objects and are not."""
    for item in job.get("artifacts", []):
        name = substituted(item["url"], values or {})
        if "://" not in name and not exists(name):
            raise Refused(f"Artifact {name} does not exist")
    for task in job["tasks"]:
        image = task["image"]
        if "://" not in image and image.endswith((".sif", ".tar", ".tgz")) and not exists(image):
            raise Refused(f"Image {image} does not exist")
