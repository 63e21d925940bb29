from _board import call as _call

POLLIN = 1
POLLOUT = 4
POLLERR = 8
POLLHUP = 16


class poll:
    def __init__(self):
        self._objects = {}

    def register(self, obj, eventmask=POLLIN | POLLOUT):
        self._objects[obj._id] = (obj, eventmask)

    def unregister(self, obj):
        del self._objects[obj._id]

    def modify(self, obj, eventmask):
        if obj._id not in self._objects:
            raise OSError(2)
        self._objects[obj._id] = (obj, eventmask)

    def poll(self, timeout=-1):
        asked = " ".join(["%s:%d" % (i, mask) for i, (_, mask) in self._objects.items()])
        found = []
        for item in _call("sock_poll", "%d %s" % (timeout, asked)).split():
            number, events = item.split(":")
            found.append((self._objects[number][0], int(events)))
        return found

    def ipoll(self, timeout=-1, flags=0):
        return iter(self.poll(timeout))
