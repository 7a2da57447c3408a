"""The folder in which `keystead up` keeps what must outlive it: the servers' data, and the secrets it made."""

import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


class FolderUnusable(Exception):
    """Someone else uses the folder, or it can't be used at all; the message is for the person at the terminal."""


class DataFolder:
    """Made and locked on construction; `close`, or the end of the process however it comes, gives it back."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.postgres = self.path / "postgres"
        self.nats = self.path / "nats"
        self.logs = self.path / "logs"
        self._secrets = self.path / "secrets"
        try:
            self._lock = _take(self.path)
            for folder in (self.nats, self.logs, self._secrets):
                folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        except OSError as error:
            in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
            reason = f"{error.filename} is no folder" if in_the_way else error.strerror
            raise FolderUnusable(
                f"The data folder {path} can't be used: {reason}. Choose another with --data."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let another `keystead up` have the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def secret(self, name: str, make: Callable[[], str]) -> str:
        """The secret of that name: read if the folder has it, else made, and kept before it is used."""
        path = self._secrets / name
        if not path.exists():
            write_private(path, make() + "\n")
        secret = path.read_text(encoding="utf-8").strip()
        if not secret:
            raise FolderUnusable(f"{path} is empty. Put the secret back, or delete the file to have a new one made.")
        path.chmod(PRIVATE_FILE)  # a copy restored from a backup may have come back wider
        return secret


def write_private(path: Path, text: str) -> None:
    """Replace a file that its owner alone may read; it is on the disk, and a crash leaves the old one or the new."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    rename_durably(draft, path)


def rename_durably(old: Path, new: Path) -> None:
    """Rename within a folder, and bring that folder's entries to the disk."""
    old.replace(new)
    descriptor = os.open(new.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take(folder: Path) -> int:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        raise FolderUnusable(
            f"The data folder {folder} belongs to user {owner}, and this is user {os.geteuid()}."
            " Start as that user, or choose another folder with --data."
        )
    return _lock(folder)


def _lock(folder: Path) -> int:
    """Take the folder's lock, which the kernel gives back when this process ends, also by kill -9."""
    descriptor = os.open(folder / "up.lock", os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode().strip() or "unknown"
        os.close(descriptor)
        raise FolderUnusable(
            f"Another keystead up (process {holder}) runs on the data folder {folder}."
            " Stop it, or choose another folder with --data."
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
