"""From a push to what the store keeps."""

from reserve_listener.intake.intake import Intake

__all__ = ["Intake"]
