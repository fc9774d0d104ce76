"""A site that knows of content, workflows and a policy, as the feed would have told it."""

import hashlib
from typing import Any

from pureboot.core.lifecycle import Autonomy
from pureboot.core.node import InstallMethod
from pureboot.storage.sqlite import Transaction
from pureboot.wire.messages import ContentCategory, ContentDocument, WorkflowDocument
from tests.support.parts import EPOCH, Parts


def content_document(name: str, content: bytes, version: int = 1) -> ContentDocument:
    category, _, path = name.partition("/")
    return ContentDocument(
        category=ContentCategory(category),
        path=path,
        digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        size=len(content),
        version=version,
        updated_at=EPOCH,
    )


async def has_content(parts: Parts, files: dict[str, bytes]) -> None:
    documents = [content_document(name, content) for name, content in files.items()]

    def work(tx: Transaction) -> None:
        for document in documents:
            parts.site.set_content(tx, document)

    await parts.database.store.write(work)


async def has_workflow(parts: Parts, id: str, kernel: str, *initrd: str) -> None:
    document = WorkflowDocument(
        id=id,
        name=id,
        install_method=InstallMethod.KERNEL,
        kernel=kernel,
        initrd=list(initrd),
        version=1,
        created_at=EPOCH,
        updated_at=EPOCH,
    )
    await parts.database.store.write(lambda tx: parts.site.set_workflow(tx, document))


async def has_policy(parts: Parts, policy: str, **fields: Any) -> None:
    await parts.has_autonomy(Autonomy.LIMITED, cache_policy=policy, **fields)
