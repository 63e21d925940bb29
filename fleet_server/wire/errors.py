"""What a decoder says when bytes are not what the wire allows."""

from __future__ import annotations

from typing import NamedTuple


class PackIdentity(NamedTuple):
    """Who a pack says it is: at most one pack in the world has this identity."""

    node_id: str
    spool: int
    seq: int


class WireError(ValueError):
    """A payload is refused.

    Attributes:
        code: stable name of the reason, `snake_case`; what the quarantine stores and counts.
        sentence: one sentence for the person who looks into the quarantine.
        identity: the pack's identity where it could be read although the rest could not. Its sequence number
            has then arrived and must not hold a receipt up.
    """

    def __init__(self, code: str, sentence: str, identity: PackIdentity | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.identity = identity


class RepositoryWrong(ValueError):
    """Nodes would not take these releases; the text is one sentence that names the role and what is wrong with it.

    Attributes:
        template: the sentence as it is written out; `%(name)s` stands for a part. Without parts it is no template.
        parts: what stands in it, so that a page can say it in its reader's language.
    """

    def __init__(self, template: str, /, **parts: object) -> None:
        super().__init__(template % parts if parts else template)
        self.template, self.parts = template, parts
