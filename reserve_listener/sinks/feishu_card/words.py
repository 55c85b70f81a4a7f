"""What a card says beside the sentence and the limits, in each language. `{}`: see `intake.words.fill`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class CardWords:
    """One language."""

    limit: str
    before: str
    after: str
    nothing: str
    """In a cell: nobody was added, or removed."""
    what_changed: str
    column: dict[str, str]
    """By the type of the scopes, "" for several types."""
    and_more: str
    unnamed: dict[str, str]
    """By the type of the scope; `{}` is its id."""
    unreadable: str

    first: str
    late: str
    late_note: str
    found: str
    found_note: str
    test: str
    level: str

    one_place: dict[str, str]
    """By the type of the scopes, "" for several types: `{}` changes of one of them."""
    places: dict[str, str]
    """The same: `{}` of them, each with one change."""
    places_and_changes: dict[str, str]
    """The same: `{}` of them, with `{}` changes."""
    span: str
    open_place: str
    open_page: str
    open_more: str

    colon: str
    firing: str
    resolved: str
    since: str
    alerts: dict[str, str]
    """The title of each alert."""
    alert: str


ENGLISH: Final = CardWords(
    limit="Limit",
    before="Before",
    after="After",
    nothing="–",
    what_changed="What changed",
    column={"room": "Room", "level": "Level", "": "Room or level"},
    and_more="and {} more",
    unnamed={"room": "Room {}", "level": "Level {}"},
    unreadable="This event cannot be read.",
    first="first seen",
    late="arrived late",
    late_note="As of {}. Something newer was known already, so nothing changes now.",
    found="found by asking",
    found_note="Found by asking the platform at {}; the change was made some time before.",
    test="test",
    level="level",
    one_place={"room": "{} changes of one room", "level": "{} changes of one level", "": "{} changes"},
    places={"room": "{} rooms changed", "level": "{} levels changed", "": "{} rooms and levels changed"},
    places_and_changes={
        "room": "{} rooms, {} changes",
        "level": "{} levels, {} changes",
        "": "{} rooms and levels, {} changes",
    },
    span="{} to {}",
    open_place="Show history",
    open_page="Show all changes",
    open_more="Show more",
    colon=": ",
    firing="firing",
    resolved="resolved",
    since="Since {}",
    alerts={
        "disconnected": "Changes are not being received",
        "gap": "Changes may have been missed",
        "oldest_pending": "Deliveries are late",
        "dead_letters": "Deliveries were given up",
        "sink_down": "A sink does not deliver",
        "store_filling": "The store is filling up",
        "commit_failing": "Changes cannot be stored",
        "test": "Test of alerts",
    },
    alert="Alert {}",
)

CHINESE: Final = CardWords(
    limit="变更项",
    before="变更前",
    after="变更后",
    nothing="–",
    what_changed="变更内容",
    column={"room": "会议室", "level": "层级", "": "会议室或层级"},
    and_more="还有{}项",
    unnamed={"room": "会议室 {}", "level": "层级 {}"},
    unreadable="无法读取此事件。",
    first="首次收到",
    late="延迟到达",
    late_note="截至 {}。此前已收到更新的变更，当前限制不变。",
    found="核对时发现",
    found_note="{} 与平台核对时发现，实际变更时间更早。",
    test="测试",
    level="层级",
    one_place={"room": "1 个会议室有{}项变更", "level": "1 个层级有{}项变更", "": "{}项变更"},
    places={"room": "{}个会议室有变更", "level": "{}个层级有变更", "": "{}个会议室和层级有变更"},
    places_and_changes={
        "room": "{}个会议室，共{}项变更",
        "level": "{}个层级，共{}项变更",
        "": "{}个会议室和层级，共{}项变更",
    },
    span="{} 至 {}",
    open_place="查看变更历史",
    open_page="查看全部变更",
    open_more="查看详情",
    colon="：",
    firing="告警中",
    resolved="已恢复",
    since="自 {} 起",
    alerts={
        "disconnected": "未接收变更",
        "gap": "可能漏掉了变更",
        "oldest_pending": "投递延迟",
        "dead_letters": "有投递被放弃",
        "sink_down": "投递目标无法送达",
        "store_filling": "存储空间即将用完",
        "commit_failing": "变更无法存储",
        "test": "告警测试",
    },
    alert="告警 {}",
)

LANGUAGES: Final = {"en": ENGLISH, "zh": CHINESE}
