from uos import chdir, getcwd, listdir, mkdir, mount, remove, rename, rmdir, stat, umount, unlink, urandom
from _board import call as _call


def sync():
    pass


def statvfs(path):
    size, blocks, free = [int(n) for n in _call("statvfs").split()]
    return (size, size, blocks, free, free, 0, 0, 0, 0, 255)


def ilistdir(path=""):
    for name in listdir(path) if path else listdir():
        info = stat((path.rstrip("/") + "/" + name) if path else name)
        yield (name, info[0] & 0xF000, 0, info[6])
