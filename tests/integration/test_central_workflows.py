"""Workflows and the content they name."""

import asyncio
import base64
import hashlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.central import RunningCentral

KERNEL = b"kernel" * 1000
DIGEST = hashlib.sha256(KERNEL).hexdigest()


async def code(central: RunningCentral, method: str, path: str, status: int, **arguments: Any) -> str:
    return str((await central.ask(method, path, status, **arguments))["error"]["code"])


async def test_a_workflow_is_found_by_id_and_by_name_and_changes_in_part(central: RunningCentral) -> None:
    made = await central.ask(
        "POST", "/workflows", 201, json={"name": "debian", "kernel": "images/vmlinuz", "initrd": ["images/initrd.gz"]}
    )
    assert await central.ask("GET", "/workflows/debian") == await central.ask("GET", f"/workflows/{made['id']}") == made
    changed = await central.ask("PATCH", "/workflows/debian", json={"cmdline": "quiet"})
    assert (changed["cmdline"], changed["kernel"], changed["version"]) == ("quiet", "images/vmlinuz", 2)
    stale = {"cmdline": "loud", "version": 1}
    assert await code(central, "PATCH", "/workflows/debian", 409, json=stale) == "stale_version"
    assert (await central.ask("PATCH", "/workflows/debian", json=stale | {"version": 2}))["version"] == 3
    assert [row["name"] for row in (await central.ask("GET", "/workflows"))["items"]] == ["debian"]


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x"},
        {"name": "", "kernel": "images/k"},
        {"name": "x", "kernel": "k"},
        {"name": "x", "kernel": "music/k"},
        {"name": "x", "kernel": "images/../k"},
        {"name": "x", "kernel": "images/k", "initrd": ["/etc/passwd"]},
        {"name": "x", "kernel": "images/k", "templates": {"user-data": "nowhere"}},
        {"name": "x", "install_method": "sanboot"},
        {"name": "x", "install_method": "floppy", "kernel": "images/k"},
        {"name": "x", "kernel": "images/k", "colour": "red"},
    ],
)
async def test_a_workflow_that_cannot_work_is_422(central: RunningCentral, body: dict[str, Any]) -> None:
    await central.ask("POST", "/workflows", 422, json=body)


@pytest.mark.parametrize(
    "patch",
    [{"architecture": "x" * 40}, {"cmdline": "a && b"}, {"boot_url": "a || b"}, {"kernel": "k"}],
    ids=lambda patch: next(iter(patch)),
)
async def test_a_change_that_cannot_work_is_422_and_changes_nothing(
    central: RunningCentral, patch: dict[str, Any]
) -> None:
    made = await central.ask("POST", "/workflows", 201, json={"name": "w", "kernel": "images/k"})
    await central.ask("PATCH", "/workflows/w", 422, json=patch)
    assert await central.ask("GET", "/workflows/w") == made


async def test_an_assigned_workflow_stays(central: RunningCentral) -> None:
    await central.new_site("attic")
    await central.ask("POST", "/workflows", 201, json={"name": "w", "kernel": "images/k"})
    assert await code(central, "POST", "/workflows", 409, json={"name": "w", "kernel": "images/k"}) == "name_taken"
    body = {"mac_address": "525400aabb01", "home_site_id": "attic", "workflow_id": "w"}
    node = await central.ask("POST", "/nodes", 201, json=body)
    assert await code(central, "DELETE", "/workflows/w", 409) == "workflow_assigned"
    await central.ask("DELETE", f"/nodes/{node['id']}", 204)
    await central.ask("DELETE", "/workflows/w", 204)
    assert await code(central, "GET", "/workflows/w", 404) == "unknown_workflow"


# Content


async def put(central: RunningCentral, path: str, content: bytes = KERNEL, **arguments: Any) -> dict[str, Any]:
    document: dict[str, Any] = await central.ask("PUT", f"/content/{path}", content=content, **arguments)
    return document


async def test_content_comes_back_as_it_was_put(central: RunningCentral) -> None:
    document = await put(central, "images/debian-13/vmlinuz")
    assert (document["digest"], document["size"], document["version"]) == (f"sha256:{DIGEST}", len(KERNEL), 1)
    answer = await central.admin.get("/api/v1/content/images/debian-13/vmlinuz")
    assert (answer.content, answer.headers["etag"]) == (KERNEL, f'"sha256:{DIGEST}"')


async def test_a_part_a_head_and_an_unchanged_file_cost_little(central: RunningCentral) -> None:
    await put(central, "images/k")
    path = "/api/v1/content/images/k"
    part = await central.admin.get(path, headers={"Range": "bytes=6-11"})
    assert (part.status_code, part.content) == (206, b"kernel")
    assert part.headers["content-range"] == f"bytes 6-11/{len(KERNEL)}"
    head = await central.admin.head(path)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(KERNEL)))
    same = await central.admin.get(path, headers={"If-None-Match": head.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    beyond = await central.admin.get(path, headers={"Range": "bytes=999999-"})
    assert beyond.status_code == 416


async def test_an_agent_may_read_content_but_not_write_it(central: RunningCentral) -> None:
    await put(central, "images/k")
    await central.new_site("attic")
    agent = await central.speaking_agent("attic")
    assert (await agent.client.get("/api/v1/content/images/k")).content == KERNEL
    assert (await agent.client.put("/api/v1/content/images/k", content=b"x")).status_code == 403


@pytest.mark.parametrize(
    "header",
    [
        {"Content-SHA256": DIGEST},
        {"Content-SHA256": f"sha256:{DIGEST.upper()}"},
        {"Digest": "SHA-256=" + base64.b64encode(bytes.fromhex(DIGEST)).decode()},
    ],
)
async def test_the_sender_may_say_what_must_arrive(central: RunningCentral, header: dict[str, str]) -> None:
    assert (await put(central, "images/k", headers=header))["digest"] == f"sha256:{DIGEST}"


async def test_what_arrives_otherwise_is_not_kept(central: RunningCentral, tmp_path: Path) -> None:
    headers = {"Content-SHA256": "0" * 64}
    assert await code(central, "PUT", "/content/images/k", 422, content=KERNEL, headers=headers) == "digest_mismatch"
    for name, value in ((b"Digest", b"sha-256=nonsense"), (b"Digest", b"sha-256=\xe9"), (b"Content-SHA256", b"\xe9")):
        refused = await code(central, "PUT", "/content/images/k", 400, content=KERNEL, headers=[(name, value)])
        assert refused == "malformed_digest"
    assert await code(central, "GET", "/content/images/k", 404) == "unknown_content"
    assert [path for path in (tmp_path / "central" / "content").rglob("*") if path.is_file()] == []


async def test_content_larger_than_a_body_may_be_is_welcome(central: RunningCentral) -> None:
    assert (await put(central, "images/big", bytes(9 * 1024**2)))["size"] == 9 * 1024**2


async def test_the_same_again_is_no_change_and_another_file_is(central: RunningCentral) -> None:
    assert [(await put(central, "images/k"))["version"] for _ in range(2)] == [1, 1]
    assert (await put(central, "images/k", b"new"))["version"] == 2
    assert (await central.admin.get("/api/v1/content/images/k")).content == b"new"


async def test_equal_files_share_their_bytes_and_outlive_each_other(central: RunningCentral, tmp_path: Path) -> None:
    await put(central, "images/a")
    await put(central, "images/b")
    files = [path for path in (tmp_path / "central" / "content" / "sha256").rglob("*") if path.is_file()]
    assert [path.name for path in files] == [DIGEST]
    await central.ask("DELETE", "/content/images/a", 204)
    assert (await central.admin.get("/api/v1/content/images/b")).content == KERNEL
    assert await code(central, "DELETE", "/content/images/a", 404) == "unknown_content"


async def test_content_is_listed_by_category(central: RunningCentral) -> None:
    for name in ("images/b", "images/a", "scripts/x"):
        await put(central, name)

    async def names(**query: Any) -> list[str]:
        page = await central.ask("GET", "/content", params=query)
        return [f"{row['category']}/{row['path']}" for row in page["items"]]

    assert await names() == ["images/a", "images/b", "scripts/x"]
    assert await names(category="images") == ["images/a", "images/b"]
    assert await names(limit=1, cursor="images/a") == ["images/b"]
    await central.ask("GET", "/content", 422, params={"category": "music"})


@pytest.mark.parametrize(
    "path",
    ["images/a%2F..%2F..%2Fadmin-token", "images/%2E%2E/x", "images//x", "images/", "images/a%00b", "images/a%20b"],
)
async def test_no_path_leads_out_of_the_store(central: RunningCentral, path: str) -> None:
    answer = await central.admin.put(f"/api/v1/content/{path}", content=b"x")
    assert answer.status_code in (404, 422), answer.text
    assert (await central.admin.get(f"/api/v1/content/{path}")).status_code == 404


async def test_files_can_be_put_after_their_folder_went_and_came_back_empty(
    central: RunningCentral, tmp_path: Path
) -> None:
    await put(central, "images/k")
    shutil.rmtree(tmp_path / "central" / "content")
    assert await code(central, "GET", "/content/images/k", 404) == "content_lost"
    await put(central, "images/k")
    assert (await central.admin.get("/api/v1/content/images/k")).status_code == 200


async def test_no_name_stands_for_an_upload_that_went_with_the_folder(central: RunningCentral, tmp_path: Path) -> None:
    async def cut_off() -> AsyncIterator[bytes]:
        yield b"half of "
        await asyncio.sleep(0)
        shutil.rmtree(tmp_path / "central" / "content")
        yield b"a file"

    answer = await central.admin.put("/api/v1/content/images/k", content=cut_off())
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "busy")
    assert (await central.ask("GET", "/content"))["items"] == []


async def test_a_file_that_is_gone_from_the_disk_is_said_to_be(central: RunningCentral, tmp_path: Path) -> None:
    await put(central, "images/k")
    for path in (tmp_path / "central" / "content" / "sha256").rglob(DIGEST):
        path.unlink()
    assert await code(central, "GET", "/content/images/k", 404) == "content_lost"
    await put(central, "images/k")
    assert (await central.admin.get("/api/v1/content/images/k")).content == KERNEL
