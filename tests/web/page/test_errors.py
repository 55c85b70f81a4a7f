"""What the daemon says of failed deliveries, on the Chinese page."""

from __future__ import annotations

import pytest

from reserve_listener.web.page.errors import told
from reserve_listener.web.page.words import CHINESE, ENGLISH

OURS = {
    "sink removed": "投递目标已移除",
    "disabled by hand": "已手动停用",
    "HTTP 503: busy (given up after 12 attempts)": "HTTP 503: busy（尝试 12 次后放弃）",
    "HTTP 401 (check the sink's url and credentials) (given up after 259200 s)": "HTTP 401（请检查投递目标的地址和凭证）（超过 259200 秒后放弃）",
    "nats://a:4222, nats://b:4222: no acknowledgement within 5 s": "nats://a:4222, nats://b:4222: 5 秒内无响应",
    "redis://a:6379: the event has 9 bytes, more than the server's proto-max-bulk-len": "redis://a:6379: 事件有 9 字节，超过服务器的 proto-max-bulk-len",
    "kafka:9092: the event is larger than the broker takes: Broker: Message size too large": "kafka:9092: 事件超过服务器的上限: Broker: Message size too large",
    "crm.corp: cannot connect: Connection refused": "crm.corp: 无法连接: Connection refused",
    "crm.corp: no proper answer: illegal status line": "crm.corp: 响应无效: illegal status line",
    "crm.corp: the connection broke off": "crm.corp: 连接中断",
    "crm.corp through the proxy http://p:3128: the proxy refuses: 503": "crm.corp through the proxy http://p:3128: 代理拒绝: 503",
    "crm.corp through the proxy http://p:3128: no answer within 5 s": "crm.corp through the proxy http://p:3128: 5 秒内无响应",
    "/usr/local/bin/on-change: exit status 3: no such room": "/usr/local/bin/on-change: 退出码 3: no such room",
    "/bin/x: ended by SIGKILL (given up after 2 attempts)": "/bin/x: 被 SIGKILL 终止（尝试 2 次后放弃）",
    "/bin/x: not done within 30 s; it and all that it started are killed: half": "/bin/x: 30 秒内未完成，已终止: half",
}
THEIRS = (
    "HTTP 400: exit status 3",
    "HTTP 400: no answer within 5 s",
    "HTTP 400: sink removed",
    "exit status 3",
    "410 Gone: no calendar for this room",
    "HTTP 500: (given up after 3 s) and more",
    "",
)


@pytest.mark.parametrize(("text", "chinese"), OURS.items())
def test_what_is_ours_is_chinese_on_the_chinese_page(text: str, chinese: str) -> None:
    """By the kind of what went wrong; on the English page it is as it was."""
    assert told(text, CHINESE) == chinese
    assert told(text, ENGLISH) == text


@pytest.mark.parametrize("text", THEIRS)
def test_what_a_receiver_answers_stays(text: str) -> None:
    """Whoever looks after it looks for its own words."""
    assert told(text, CHINESE) == text
