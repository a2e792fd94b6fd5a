"""Everything that is fuzzed."""

from __future__ import annotations

from fuzz.target import Target
from fuzz.targets import codes, engine, ice, mailbox, messages, relay, rendezvous, seal, session, stun, texts, turn

TARGETS: tuple[Target, ...] = (
    *stun.TARGETS,
    *turn.TARGETS,
    *ice.TARGETS,
    *messages.TARGETS,
    *session.TARGETS,
    *mailbox.TARGETS,
    *rendezvous.TARGETS,
    *seal.TARGETS,
    *texts.TARGETS,
    *codes.TARGETS,
    *engine.TARGETS,
    *relay.TARGETS,
)
"""A new target is added to the `TARGETS` of the module that fits, or of a new one."""
