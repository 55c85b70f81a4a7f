"""Alerts in words, in each language: sentences that a person can act on.

What is quoted of others (an error's text, a reason) is made safe by `conditions`, which puts it in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from reserve_listener.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """One language. Where a text takes values they are named in it."""

    second: str
    minute: str
    hour: str
    day: str

    disconnected: str
    disconnected_detail: str
    connected: str
    gap: str
    gap_time: str
    gap_reconciling: str
    gap_by_hand: str
    gap_over: str
    gap_not_read: str
    gap_left: str
    oldest_pending: str
    oldest_pending_detail: str
    oldest_delivered: str
    dead_letters: str
    dead_letters_detail: str
    no_dead_letters: str
    sink_down: dict[str, str]
    """By the sink's state."""
    sink_down_detail: str
    sink_gone_detail: str
    sink_up: str
    sink_removed: str
    sink_disabled: str
    store_filling: str
    store_filling_detail: str
    store_has_room: str
    commit_failing: str
    commit_failing_detail: str
    committing: str
    lasted: str
    page: str

    def gap_times(self, gaps: Iterable[tuple[int, int, int | None, int | None]]) -> str:
        """When each of them was, in their order."""
        times = [self.gap_time.format(start=rfc3339(gap[0]), end=rfc3339(gap[1])) for gap in gaps]
        return "; ".join(times)

    def span(self, ms: int) -> str:
        """A time of so many milliseconds in at most two units."""
        seconds = max(0, ms) // 1000
        units = ((DAY_S, self.day), (HOUR_S, self.hour), (MINUTE_S, self.minute), (1, self.second))
        first = next((number for number, (size, _) in enumerate(units) if seconds >= size), len(units) - 1)
        parts: list[str] = []
        for size, unit in units[first : first + 2]:
            if (count := seconds // size) or not parts:
                parts.append(unit.format(count))
            seconds %= size
        return " ".join(parts)


ENGLISH: Final = Words(
    second="{} s",
    minute="{} min",
    hour="{} h",
    day="{} d",
    disconnected="Changes are not being received: not connected to the platform for {span}.",
    disconnected_detail="{text}. {hint}Nothing is lost yet: the platform retries for 7.1 h. To retry now, run: reserve-listener reconnect",
    connected="Connected to the platform again.",
    gap="Changes may have been missed: offline for {span}, longer than the platform retries.",
    gap_time="from {start} to {end}",
    gap_reconciling="Offline {times}. All rooms and levels are now compared with the platform, and differences are delivered; this alert ends when that has finished.",
    gap_by_hand="Offline {times}. Nothing compares the rooms with the platform: rooms.reconcile is off, or there is no app secret to ask with. Turn it on, or look through the rooms by hand. This alert ends after a day.",
    gap_over="All rooms and levels have been compared with the platform since the gap. Changes found: {count}.",
    gap_not_read=" Rooms and levels that could not be read: {count}.",
    gap_left="The gap was a day ago. The rooms have not been compared with the platform since.",
    oldest_pending="Deliveries are late: an event has been waiting for the sink {sink} for {span}.",
    oldest_pending_detail="Events waiting for it: {count}. To see why, run: reserve-listener sinks list",
    oldest_delivered="No event has been waiting for too long any more.",
    dead_letters="Deliveries that were given up: {count}.",
    dead_letters_detail="By sink: {sinks}. To see why, run: reserve-listener dead-letters list; then retry or drop them.",
    no_dead_letters="There are no dead letters any more.",
    sink_down={
        "down": "The sink {sink} is down.",
        "misconfigured": "The sink {sink} is misconfigured.",
        "failing": "The sink {sink} has been failing for {span}.",
        "gone": "The sink {sink} was disabled: its receiver says that it is gone for good.",
    },
    sink_down_detail="{error}. Its deliveries wait and are retried. To see its answer, run: reserve-listener sinks test {sink}",
    sink_gone_detail="{error}. Its deliveries wait. Once the receiver is back, run: reserve-listener sinks enable {sink}",
    sink_up="The sink {sink} works again.",
    sink_removed="The sink {sink} is no longer configured.",
    sink_disabled="The sink {sink} was disabled by hand; its deliveries wait.",
    store_filling="The store is {percent} % full.",
    store_filling_detail="When it is full, changes are refused. Lower store.retention_days or raise store.max_size_mb; to see what is waiting, run: reserve-listener sinks list",
    store_has_room="The store has room again.",
    commit_failing="Changes cannot be stored: the platform is answered 500.",
    commit_failing_detail="{problem}. The platform retries after 15 s, 5 min, 1 h and 6 h: make the store writable before then.",
    committing="Changes are stored again.",
    lasted="It lasted {span}.",
    page="See {url}",
)

CHINESE: Final = Words(
    second="{} 秒",
    minute="{} 分钟",
    hour="{} 小时",
    day="{} 天",
    disconnected="未接收变更：与开放平台断开已 {span}。",
    disconnected_detail="{text}。{hint}目前没有丢失：平台会在 7.1 小时内重推。如需立即重连，请运行：reserve-listener reconnect",
    connected="已重新连接到开放平台。",
    gap="可能漏掉了变更：离线 {span}，超过了平台的重推时限。",
    gap_time="{start} 至 {end}",
    gap_reconciling="离线时间：{times}。正在与平台核对所有会议室和层级，差异会照常投递；核对完成后本告警结束。",
    gap_by_hand="离线时间：{times}。没有与平台核对：rooms.reconcile 已关闭，或没有可用的应用密钥。请开启它，或人工核对会议室。本告警一天后结束。",
    gap_over="离线之后，所有会议室和层级已与平台核对完毕：发现 {count} 处变更。",
    gap_not_read="未能读取的会议室或层级：{count} 个。",
    gap_left="离线已过去一天，此后未与平台核对过会议室。",
    oldest_pending="投递延迟：有事件等待投递到 {sink} 已 {span}。",
    oldest_pending_detail="共有 {count} 个事件在等待。查看原因请运行：reserve-listener sinks list",
    oldest_delivered="不再有等待过久的事件。",
    dead_letters="有 {count} 次投递已被放弃。",
    dead_letters_detail="按投递目标：{sinks}。查看原因请运行：reserve-listener dead-letters list，然后重试或丢弃。",
    no_dead_letters="已没有死信。",
    sink_down={
        "down": "投递目标 {sink} 无法送达。",
        "misconfigured": "投递目标 {sink} 配置有误。",
        "failing": "投递目标 {sink} 已连续失败 {span}。",
        "gone": "投递目标 {sink} 已停用：对方表示不再接收。",
    },
    sink_down_detail="{error}。投递会保留并重试。查看其应答请运行：reserve-listener sinks test {sink}",
    sink_gone_detail="{error}。投递会保留。对方恢复后请运行：reserve-listener sinks enable {sink}",
    sink_up="投递目标 {sink} 已恢复。",
    sink_removed="投递目标 {sink} 已从配置中移除。",
    sink_disabled="投递目标 {sink} 已被手动停用，投递会保留。",
    store_filling="存储已用 {percent}%。",
    store_filling_detail="存满后将拒收变更。请调低 store.retention_days 或调高 store.max_size_mb；查看积压请运行：reserve-listener sinks list",
    store_has_room="存储空间已充足。",
    commit_failing="变更无法存储：对平台的应答为 500。",
    commit_failing_detail="{problem}。平台会在 15 秒、5 分钟、1 小时和 6 小时后重推：请在此之前恢复存储。",
    committing="变更已可正常存储。",
    lasted="持续了 {span}。",
    page="详情：{url}",
)

LANGUAGES: Final = {"en": ENGLISH, "zh": CHINESE}
