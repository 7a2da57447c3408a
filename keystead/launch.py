"""What a server's process does before it becomes the server: it stops being root, and arranges to die with us.

A program of its own (`python -I -S launch.py PARENT_PID FOLDER_OR_EMPTY COMMAND …`) and not a function run between
fork and exec: forking a process that has threads may deadlock, and we restart servers from one that has many.
"""

import ctypes
import os
import signal
import stat
import struct
import sys
from pathlib import Path

NOBODY = 65534
CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE = 1


def leave_root(folder: Path) -> None:
    """PostgreSQL refuses to run as root. Who owns its folder tells which way out was taken before."""
    if folder.stat().st_uid == 0:
        if user_namespaces_work():
            enter_user_namespace()
            return
        give_away(folder, NOBODY)
    become(folder.stat().st_uid)


def user_namespaces_work() -> bool:
    """Try it in a child, for there is no way back: a container usually forbids it, some only at its second step."""
    child = os.fork()
    if child == 0:
        try:
            enter_user_namespace()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def enter_user_namespace() -> None:
    """Be called nobody from here on. To the kernel this process and its files stay root's: nothing is handed over."""
    _check(_libc().unshare(CLONE_NEWUSER))
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} 0 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} 0 1", encoding="ascii")


def give_away(folder: Path, owner: int) -> None:
    """Hand over all that is in a folder, and itself last, so that its owner tells that it was finished."""
    for parent, _, files in os.walk(folder, topdown=False):
        for path in (*(Path(parent, name) for name in files), Path(parent)):
            os.chown(path, owner, owner, follow_symlinks=False)


def become(user: int) -> None:
    """Change to that user, and keep of root's powers only the one to pass through folders closed to it.

    The checkout, the environment and the data folder may all be under root's home. Where the power was taken away
    before us, the change succeeds without it, and the server says what it can't reach.
    """
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        os.fchown(0, user, user)  # initdb reads the password from there, and opens it again by name
    libc = _libc()
    _check(libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    kept = 1 << CAP_DAC_OVERRIDE
    libc.capset(struct.pack("=Ii", CAPABILITY_VERSION_3, 0), struct.pack("=6I", kept, kept, kept, 0, 0, 0))
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)


def die_with(parent: int) -> None:
    """Be interrupted, which both servers take as an order to stop, when the parent is gone, also by kill -9.

    Called last, because a change of user or of powers cancels it.
    """
    _check(_libc().prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0))
    if os.getppid() != parent:
        sys.exit("the process that started this one is gone")


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    return libc


def _check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main() -> None:
    """Become the command that the arguments name."""
    parent, folder, *command = sys.argv[1:]
    if sys.platform == "linux":
        if folder and os.geteuid() == 0:
            leave_root(Path(folder))
        die_with(int(parent))
    os.execv(command[0], command)  # noqa: S606 - no shell is what we want


if __name__ == "__main__":
    main()
