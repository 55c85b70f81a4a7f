"""The container's files, as far as they can be tried without a container daemon."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from reserve_listener import __version__
from reserve_listener.config import load
from reserve_listener.simulator import patience
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
    assert "127.0.0.1:9464/livez" in CONTAINER
    assert re.findall(r"path: (\S+),", DEPLOYMENT) == ["/livez", "/readyz"]


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
