"""What labelled files are asked for, by the commands that read them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Which properties of the points are labels."""

    instance: str | None = None
    """clouds: property with the instance of each point; by default the first usual name, such as instance, tree_id,
    label"""
    semantic: str | None = None
    """clouds: property with the class of each point; by default the first usual name, such as semantic, class"""
    background: tuple[int | str, ...] = ()
    """clouds: values of the instance property that mean no instance, as 0 or a word often does; -1 always does;
    evaluate takes those of the training"""
    ignored: tuple[int | str, ...] = ()
    """clouds: values of both properties on points that nobody labelled; -100 always is; evaluate takes those of the
    training"""
    channel: int | None = None
    """images: of those with several channels, from 0"""
