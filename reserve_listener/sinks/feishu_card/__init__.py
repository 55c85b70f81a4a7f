"""The feishu_card sink: settings (`kind`), the sink (`sink`), its two ways to a group (`bot`, `app`), the cards (`cards`)."""

from reserve_listener.sinks.feishu_card.kind import KIND

__all__ = ["KIND"]
