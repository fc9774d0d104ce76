"""`pureboot content`: the files that machines boot from."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from pureboot.cli import names, show
from pureboot.cli.options import AsJson, group
from pureboot.cli.remote import central
from pureboot.core.errors import Invalid, PureBootError

if TYPE_CHECKING:
    import httpx2
    from rich.progress import Progress

    from pureboot.cli.remote import Remote, Row

app = group("Content: the files that machines boot from.")

COLUMNS = {"CATEGORY": "category", "PATH": "path", "BYTES": "size", "DIGEST": "digest", "UPDATED": "updated_at"}
CHUNK = 256 * 1024

DEBIANS = Path("/usr/lib/ipxe")
# The name that DHCP gives to firmware, and where packages and builds of iPXE put it.
LOADERS = {
    "undionly.kpxe": ("undionly.kpxe",),
    "ipxe.efi": ("ipxe.efi", "x86_64/ipxe.efi"),
    "snponly.efi": ("snponly.efi", "x86_64/snponly.efi"),
    "ipxe-arm64.efi": ("ipxe-arm64.efi", "arm64/ipxe.efi", "bin-arm64-efi/ipxe.efi"),
    "snponly-arm64.efi": ("snponly-arm64.efi", "arm64/snponly.efi", "bin-arm64-efi/snponly.efi"),
}

Name = Annotated[
    str, typer.Argument(metavar="CATEGORY/PATH", help="Categories: bootloaders, scripts, templates, images.")
]


@app.command()
def put(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to upload.")],
    json: AsJson = False,
) -> None:
    """Upload a file; one that is there already is replaced."""
    with central() as remote, _progress() as progress:
        row = _upload(remote, progress, name, file)
    show.said(row, f"{name} is at central: {row['size']} bytes, {row['digest']}.", json=json)
    if fault := _template_fault(name, file):
        show.tell(f"As a template it cannot be used: {fault}", err=True)


@app.command("import-ipxe")
def import_ipxe(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where they lie; default: where Debian's package puts them.")
    ] = DEBIANS,
    json: AsJson = False,
) -> None:
    """Upload iPXE's boot loaders, for BIOS and UEFI, under the names that firmware asks for.

    Those of Debian's package `ipxe`, or of a folder: undionly.kpxe, ipxe.efi, snponly.efi, ipxe-arm64.efi,
    snponly-arm64.efi, as many as there are.
    """
    found = {name: file for name, places in LOADERS.items() if (file := _first(folder, places))}
    if not found:
        raise PureBootError(
            f"There is no boot loader of iPXE in {folder}.",
            hint=f"Install Debian's package `ipxe`, or name a folder that has one of: {', '.join(LOADERS)}.",
        )
    with central() as remote, _progress() as progress:
        rows = [_upload(remote, progress, f"bootloaders/{name}", file) for name, file in found.items()]
    lines = [f"bootloaders/{name} is at central: {row['size']} bytes." for name, row in zip(found, rows, strict=True)]
    if json:
        show.as_json(rows)
    else:
        for line in lines:
            show.tell(line)


def _first(folder: Path, places: tuple[str, ...]) -> Path | None:
    return next((folder / place for place in places if (folder / place).is_file()), None)


def _upload(remote: "Remote", progress: "Progress", name: str, file: Path) -> "Row":
    try:
        with file.open("rb") as data:
            size = os.fstat(data.fileno()).st_size
            blocks = _counted(data, progress, f"Uploading {name}", size)
            row: Row = remote.send("PUT", _path(name), content=blocks, headers={"Content-Length": str(size)})
    except OSError as error:
        raise PureBootError(f"{file} cannot be read: {error.strerror}.") from None
    return row


def _template_fault(name: str, file: Path) -> str:
    """What would keep installers from getting it; empty for what is no template."""
    from pureboot.rendering.language import FILE_BYTES, check_file

    if not name.startswith("templates/") or file.stat().st_size > FILE_BYTES:
        return ""
    try:
        check_file(file.read_text("utf-8"))
    except UnicodeDecodeError:
        return "it is no UTF-8 text."
    except Invalid as error:
        return error.message
    return ""


@app.command("list")
def list_(json: AsJson = False) -> None:
    """List all content."""
    with central() as remote:
        show.listing(remote.listing("content"), COLUMNS, json=json, empty="There is no content yet.")


@app.command()
def get(
    name: Name,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to; default: its own file name.")] = None,
    json: AsJson = False,
) -> None:
    """Download a file."""
    target = output or Path(name.rpartition("/")[2])
    part = target.with_name(f".{target.name}.part")
    try:
        with central() as remote, remote.stream(_path(name)) as answer:
            _save(answer, part, f"Downloading {name}")
        part.replace(target)
    except OSError as error:
        raise PureBootError(f"{target} cannot be written: {error.strerror}.") from None
    finally:
        part.unlink(missing_ok=True)
    size = target.stat().st_size
    show.said({"name": name, "file": str(target), "size": size}, f"{name} is in {target}: {size} bytes.", json=json)


@app.command()
def delete(name: Name, json: AsJson = False) -> None:
    """Delete a file: no site fetches it any more, and installs that need it boot their disk."""
    with central() as remote:
        remote.send("DELETE", _path(name))
    show.said({"deleted": name}, f"{name} is deleted.", json=json)


def _save(answer: "httpx2.Response", part: Path, title: str) -> None:
    size = int(answer.headers.get("Content-Length", 0))
    with part.open("wb") as file, _progress() as progress:
        bar = progress.add_task(title, total=size or None)
        for block in answer.iter_bytes(CHUNK):
            file.write(block)
            progress.advance(bar, len(block))


def _path(name: str) -> str:
    if not all(name.partition("/")):
        raise typer.BadParameter(f"{name!r} is not the name of content. Write CATEGORY/PATH, such as images/vmlinuz.")
    return f"content/{names.parts(name)}"


def _counted(data: BinaryIO, progress: "Progress", title: str, size: int) -> Iterator[bytes]:
    bar = progress.add_task(title, total=size)
    while block := data.read(CHUNK):
        yield block
        progress.advance(bar, len(block))


def _progress() -> "Progress":
    """On stderr, and only where somebody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
