"""A unix socket in the middle of a connection: passes bytes on, and, when told, flips some, cuts the connection, holds bytes back, or
swallows them as a broken network does: both sides believe that they are connected."""
import os
import random
import selectors
import socket
import threading
import time

# Of the pieces that pass while bits are flipped: seldom enough that connections come up between.
GARBLED_SHARE = 0.1


class Proxy:
    def __init__(self, listen, target, seed=0):
        self.target, self.random = target, random.Random(seed)
        self.garble = self.swallow = False
        self.delay = 0.0
        self.flipped = 0
        self.pairs, self.lock, self.over = [], threading.Lock(), False
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(listen)
        self.listener.listen(64)
        self.path = listen
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        while not self.over:
            try:
                near = self.listener.accept()[0]
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(self.target)
            except OSError:
                near.close()
                continue
            with self.lock:
                self.pairs.append((near, far))
            threading.Thread(target=self.pump, args=(near, far), daemon=True).start()

    def changed(self, data):
        if self.delay:
            time.sleep(self.delay)
        if self.garble and self.random.random() < GARBLED_SHARE:
            data = bytearray(data)
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
            self.flipped += 1
        return bytes(data)

    def pump(self, near, far):
        with selectors.DefaultSelector() as s:
            s.register(near, selectors.EVENT_READ, far)
            s.register(far, selectors.EVENT_READ, near)
            try:
                while True:
                    for key, _ in s.select():
                        data = key.fileobj.recv(65536)
                        if not data:
                            return
                        if not self.swallow:
                            key.data.sendall(self.changed(data))
            except OSError:
                pass
            finally:
                for end in (near, far):
                    try:
                        end.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass

    def cut(self):
        with self.lock:
            for pair in self.pairs:
                for end in pair:
                    try:
                        end.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
            self.pairs.clear()

    def close(self):
        self.over = True
        self.listener.close()
        self.cut()
        os.unlink(self.path)
