"""The container's files, as far as they can be tried without a container daemon."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from reserve_listener import __version__
from reserve_listener.config import DeliveryConfig, load
from reserve_listener.daemon.app import STOP_MARGIN_S
from reserve_listener.simulator import HttpServer, Receiver, patience
from reserve_listener.sinks.kinds import KINDS

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "deploy" / "kubernetes"
CONFIG: Final = FOLDER / "config.toml"
CONTAINER: Final = (ROOT / "Containerfile").read_text()
DEPLOYMENT: Final = (FOLDER / "deployment.yaml").read_text()
COMPOSE: Final = (ROOT / "deploy" / "compose.yaml").read_text()


def test_the_configuration_is_valid_and_names_the_secrets_that_are_mounted() -> None:
    """Its keys are known, and compose gives each secret that it reads."""
    load(KINDS, CONFIG, environ={"RESERVE_LISTENER_LARK__APP_ID": "cli_0123456789abcdef"}, secrets=False)
    names = set(re.findall(r"/run/secrets/(\w+)", CONFIG.read_text()))
    assert names == set(re.findall(r"\./secrets/(\w+)", COMPOSE))
    assert "mountPath: /run/secrets" in DEPLOYMENT


def test_the_command_lines_parse() -> None:
    """The image's command and the pod's arguments are options that `run` has."""
    given = re.findall(r"^CMD (\[.*\])$", CONTAINER, re.MULTILINE)
    pod = re.findall(r"args: \[(.*)\]", DEPLOYMENT)
    assert [json.loads(line) for line in given] == [line.split(", ") for line in pod]
    line = [sys.executable, "-m", "reserve_listener", *json.loads(given[0]), "--help"]
    assert subprocess.run(line, check=False, capture_output=True, timeout=patience(30)).returncode == 0


def test_the_probes_ask_where_the_daemon_answers() -> None:
    """The port is the configuration's, in the image and in the pod."""
    assert 'listen = "0.0.0.0:9464"' in CONFIG.read_text()
    assert "containerPort: 9464" in DEPLOYMENT
    assert re.findall(r"path: (\S+),", DEPLOYMENT) == ["/livez", "/readyz"]


@pytest.mark.parametrize("status", [200, 503])
async def test_the_image_asks_the_daemon_and_no_proxy(
    server: HttpServer, receiver: Receiver, status: int
) -> None:
    """The image's own check succeeds with 200 alone, whatever proxy the container has for reaching the platform."""
    (line,) = re.findall(r"HEALTHCHECK .*\\\n\s+CMD (\[.*\])", CONTAINER)
    assert "127.0.0.1', 9464" in line
    (_, *arguments) = json.loads(line.replace("9464", str(server.port)))
    receiver.answer = status
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=os.environ | {"http_proxy": "http://127.0.0.1:1", "no_proxy": ""}
    )
    assert await process.wait() == (status != 200)
    assert [one.path for one in receiver.received] == ["/livez"]


def test_a_stop_is_given_the_time_that_it_takes() -> None:
    """Whoever kills earlier has deliveries repeated; systemd is told the same by the daemon itself."""
    needed_s = DeliveryConfig().drain_timeout + STOP_MARGIN_S
    given = re.findall(r"(?:stop_grace_period|terminationGracePeriodSeconds): (\d+)", COMPOSE + DEPLOYMENT)
    assert len(given) == 2
    assert all(int(seconds) > needed_s for seconds in given)


def test_the_files_that_belong_together_name_each_other() -> None:
    """What `kubectl apply -k` reads is there, and the pod mounts what that makes of it."""
    kustomization = (FOLDER / "kustomization.yaml").read_text()
    (resources,) = re.findall(r"resources: \[(.*)\]", kustomization)
    (files,) = re.findall(r"files: \[(.*)\]", kustomization)
    assert {*resources.split(", "), files, "kustomization.yaml"} == {each.name for each in FOLDER.iterdir()}
    assert re.findall(r"configMap: { name: (\S+) }", DEPLOYMENT) == re.findall(
        r"- name: (\S+)", kustomization
    )


def test_kubernetes_takes_the_files() -> None:
    """Each by the schema of its kind, unknown keys refused."""
    tool = Path(sys.executable).with_name("kubernetes-validate")
    files = [FOLDER / "deployment.yaml", FOLDER / "disruption.yaml"]
    done = subprocess.run(
        [tool, "--strict", *files], check=False, capture_output=True, text=True, timeout=patience(60)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed for resource ") == len(files), done.stdout


def test_compose_takes_its_file() -> None:
    """By the schema of the compose specification."""
    tool = Path(sys.executable).with_name("check-jsonschema")
    line: list[str | Path] = [
        tool,
        "--builtin-schema",
        "vendor.compose-spec",
        ROOT / "deploy" / "compose.yaml",
    ]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=patience(60))
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_installed_is_pinned() -> None:
    """Images by a version, packages by the hashed files, psycopg as in the tests' own pins."""
    for image in re.findall(r"(?:^FROM|image:) (\S+)", CONTAINER + COMPOSE + DEPLOYMENT, re.MULTILINE):
        assert re.search(r":\d+\.\d+", image), image
    assert f"image: reserve-listener:{__version__}\n" in DEPLOYMENT
    named = re.findall(r"-r (requirements/\S+)", CONTAINER)
    assert CONTAINER.count("--require-hashes") == 2
    assert all("--hash=" in (ROOT / name).read_text() for name in named)
    assert (ROOT / "requirements" / "postgres.txt").read_text() in (
        ROOT / "requirements" / "dev.txt"
    ).read_text()
