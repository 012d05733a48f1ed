"""Whether a folder is the user's own: what is kept there is executed when it is loaded.

The rule is ssh's for its keys: the folder belongs to the user, nobody else may write to it, and nobody else may put
another in its place: each folder above it belongs to the user or to root and is writable by no one else, unless it is
sticky as /tmp is. Symbolic links are looked at where they stand and where they lead. A group of the user alone, which
some systems give to each user, is nobody else.
"""

import os
import stat
from pathlib import Path

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def objection(path: Path) -> str | None:
    """Return why what is kept at a path cannot be trusted, or None; what does not exist is judged by what is above it.

    >>> objection(Path("/tmp"))[:5]
    '/tmp '
    """
    if not hasattr(os, "getuid"):  # other systems have other rules, and homes that are the user's own
        return None
    path = Path(os.path.abspath(path))
    return _along(path) or _along(Path(os.path.realpath(path)))


def own_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, for the user alone.

    Raises:
        OSError: it cannot be made.
    """
    if not path.exists():
        own_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def _along(path: Path) -> str | None:
    for one in (path, *path.parents):
        try:
            status = os.lstat(one)
        except (FileNotFoundError, NotADirectoryError):  # nothing is there to be loaded
            continue
        except OSError as error:
            return f"{one} cannot be looked at: {error.strerror}"
        why = _of(one, status, is_last=one == path)
        if why:
            return why
    return None


def _of(path: Path, status: os.stat_result, is_last: bool) -> str | None:
    is_link = stat.S_ISLNK(status.st_mode)
    owners = (os.getuid(),) if is_last and not is_link else (os.getuid(), 0)
    if status.st_uid not in owners:
        return f"{path} belongs to {_name(status.st_uid)}, and not to {_name(os.getuid())}"
    is_sticky = not is_last and bool(status.st_mode & stat.S_ISVTX)
    if is_link or is_sticky or not status.st_mode & _OTHERS:
        return None
    if not status.st_mode & stat.S_IWOTH and _is_private(status.st_gid):
        return None
    return f"{path} may be written to by others"


def _name(user: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def _is_private(group: int) -> bool:
    """Return whether a group is that of the user alone, named like it."""
    import grp
    import pwd

    try:
        mine, members = pwd.getpwuid(os.getuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return mine.pw_gid == group and members.gr_name == mine.pw_name and not {*members.gr_mem} - {mine.pw_name}
