"""The interface of Pointcept d74c646 (2026-04-07), as far as adapters meet it; nothing of its code."""

FAKE = True
