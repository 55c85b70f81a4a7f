"""The alerting rules for Prometheus, read and tried by Prometheus' own tool."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from reserve_listener.config import AlertsConfig
from reserve_listener.daemon.verdict import FILLING, LATE_MS
from reserve_listener.meters import ANSWER_S
from tests.deploy.expressions import asked_in_vain, names, needs_promtool, promtool, shown
from tests.web.test_health import watched

if TYPE_CHECKING:
    from reserve_listener.simulator import HttpServer, Simulator

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "deploy" / "prometheus"
RULES: Final = (FOLDER / "alerts.yml").read_text()
ALERTS: Final = re.findall(r"- alert: (\w+)", RULES)


@needs_promtool
def test_promtool_takes_the_rules() -> None:
    """They can be loaded, with templates and all."""
    code, said = promtool("check", "rules", str(FOLDER / "alerts.yml"))
    assert code == 0, said
    assert f"{len(ALERTS)} rules found" in said


@needs_promtool
def test_each_alert_fires_when_it_should_and_not_before() -> None:
    """With made-up series; what it says is compared, too."""
    code, said = promtool("test", "rules", str(FOLDER / "alerts_test.yml"))
    assert code == 0, said


@needs_promtool
@pytest.mark.parametrize("alert", ALERTS)
@pytest.mark.parametrize("expression", ["vector(0) > 1", "vector(1)"], ids=["never", "always"])
def test_the_made_up_series_notice_a_rule_that_is_wrong(tmp_path: Path, alert: str, expression: str) -> None:
    """One that never fires, and one that always does."""
    head, rule, rest = re.split(rf"(- alert: {alert}\n.*?)(?=\n +for:|\n +labels:)", RULES, flags=re.DOTALL)
    wrong = re.sub(r"expr: .*", f"expr: {expression}", rule, flags=re.DOTALL)
    (tmp_path / "alerts.yml").write_text(head + wrong + rest)
    (tmp_path / "alerts_test.yml").write_text((FOLDER / "alerts_test.yml").read_text())
    code, said = promtool("test", "rules", str(tmp_path / "alerts_test.yml"))
    assert (code, alert in said) == (1, True), said


async def test_what_the_rules_ask_for_is_there_before_anything_happens(
    tmp_path: Path, platform: Simulator, server: HttpServer
) -> None:
    """Each metric, and each value of a label: a rule that asks for another would be silent for ever."""
    async with watched(tmp_path, platform, server) as (_, client):
        exposition = (await client.get("/metrics")).text
    assert names(RULES) <= shown(exposition)
    assert list(asked_in_vain(RULES, exposition)) == []


def test_thresholds_are_the_daemons_own() -> None:
    """Prometheus and the daemon do not disagree on what is late, full or down."""
    settings = AlertsConfig()
    assert f"oldest_pending_timestamp_seconds > {settings.oldest_pending:g}" in RULES
    assert f"limit_bytes > {FILLING}" in RULES
    assert f'le="{float(ANSWER_S[-1])}"' in RULES
    rules = {rule.split()[0]: rule for rule in RULES.split("- alert: ")[1:]}
    assert f"for: {settings.disconnected_after / 60:g}m\n" in rules["ReserveListenerDisconnected"]
    assert f"for: {LATE_MS / 60_000:g}m\n" in rules["ReserveListenerSinkDown"]


def test_the_documentation_names_each_alert() -> None:
    """With what it means, in the table of docs/monitoring.md."""
    table = (ROOT / "docs" / "monitoring.md").read_text()
    assert set(re.findall(r"^\| `(ReserveListener\w+)` \|", table, re.MULTILINE)) == set(ALERTS)
