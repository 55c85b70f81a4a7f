"""What the daemon itself says of a delivery that failed, in Chinese.

What must stay true: only sentences that are ours are told in other words, by how they begin and end; what a receiver has
answered is quoted as it is, for whoever looks after that.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from reserve_listener.web.page.words import CHINESE

if TYPE_CHECKING:
    from reserve_listener.web.page.words import Words

# At the end, whatever it was that failed.
_ENDS: Final = (
    (r" \(given up after (\d+) attempts?\)", r"（尝试 \1 次后放弃）"),
    (r" \(given up after (\S+) s\)", r"（超过 \1 秒后放弃）"),
    (r" \(check the sink's url and credentials\)", "（请检查投递目标的地址和凭证）"),
    (r" \(check the sink's proxy and its credentials\)", "（请检查投递目标的代理及其凭证）"),
    (r" \(check the sink's login and its rights\)", "（请检查投递目标的账号和权限）"),
    (r" \(check the user, the password and their rights\)", "（请检查用户名、密码和权限）"),
    (
        r" \(redirects are not followed: set the sink's url to the final address\)",
        "（不跟随重定向：请将地址改为最终地址）",
    ),
)
# After the place where it was (the first group), and to the end.
_WHOLE: Final = (
    (r"disabled by hand", r"\1已手动停用"),
    (r"sink removed", r"\1投递目标已移除"),
    (r"no (?:answer|confirm|report|acknowledgement) within (\S+) s", r"\1\2 秒内无响应"),
    (r"the routing key is longer than (\d+) bytes", r"\1路由键超过 \2 字节"),
    (r"the event has (\d+) bytes, more than the server's (\S+)", r"\1事件有 \2 字节，超过服务器的 \3"),
    (r"the event is larger than the server's (\S+)", r"\1事件超过服务器的 \2"),
    (r"the event is larger than the server or the stream takes", r"\1事件超过服务器或流的上限"),
    (r"another event was larger than the broker takes", r"\1另一个事件超过服务器的上限"),
    (r"the queue refuses it; it may be full", r"\1队列拒绝接收，可能已满"),
    (r"too much waits for the brokers", r"\1等待发送的事件过多"),
)
# After the place, with somebody else's words behind.
_STARTS: Final = (
    (r"exit status (\d+)", r"\1退出码 \2"),
    (r"ended by (SIG\w+|signal \d+)", r"\1被 \2 终止"),
    (r"cannot be started(?=: )", r"\1无法启动"),
    (r"cannot connect(?=:|$)", r"\1无法连接"),
    (r"no proper answer(?=:|$)", r"\1响应无效"),
    (r"the connection broke off(?=:|$)", r"\1连接中断"),
    (r"the proxy refuses(?=:|$)", r"\1代理拒绝"),
    (r"not done within (\S+) s; it and all that it started are killed", r"\1\2 秒内未完成，已终止"),
    (r"the event is larger than the broker takes(?=: )", r"\1事件超过服务器的上限"),
)
_PLACE: Final = r"^(?!HTTP )(\S+(?:, \S+| through the proxy \S+)*: "
_RULES: Final = (
    *((re.compile(f"{ours}(?=（|$)"), chinese) for ours, chinese in _ENDS),
    *((re.compile(f"{_PLACE}|^){ours}(?=（|$)"), chinese) for ours, chinese in _WHOLE),
    *((re.compile(f"{_PLACE}){ours}"), chinese) for ours, chinese in _STARTS),
)


def told(text: str, words: Words) -> str:
    """An error for people."""
    if words is CHINESE:
        for rule, chinese in _RULES:
            text = rule.sub(chinese, text, count=1)
    return text
