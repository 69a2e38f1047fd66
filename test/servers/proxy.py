#!/usr/bin/env python3
"""A TCP proxy in front of a MongoDB, which does what networks and servers do.

    proxy.py [--port N] [--control N] [--stdin] HOST:PORT

Prints "control M" and then "port N"; ports are free ones where 0 is asked
for (the default).  With --stdin it ends when standard input does.

It knows the 16-byte header of MongoDB's wire protocol and so the boundaries
of messages; a *write* below is an OP_MSG whose command is insert, update,
delete, findAndModify, createIndexes or create, optionally only on one collection.  (A connection
that speaks TLS is passed as bytes: commands about writes do not see it.)
Commands, one a line on the control port, each answered by "ok", "ok VALUE" or
"error REASON":

    pass                     back to normal; connections that lost bytes are cut
    cut                      cut all connections now (what is held stays); new ones work
    refuse                   cut them, and refuse new ones
    blackhole                accept connections, swallow what both sides send
    delay MS                 hold each request back so long
    cut-request N [COLL]     cut within the next write, N bytes of it forwarded
    cut-reply N [COLL]       forward the next write; cut N bytes into its reply
    cut-if TEXT              cut within every write that holds these bytes, until pass
    hold [COLL]              keep the next write back, though its client leaves
    release                  send what is held, on the connection it came for
    drop-held                forget what is held
    answer JSON [COLL]       answer the next write so, without forwarding it
    answer-all JSON [COLL]   the same for every write until pass
    answer-after JSON [COLL] forward the next write, answer it so
    stats                    counters, as JSON
"""

import argparse
import asyncio
import json
import os
import socket
import struct
import sys
import threading

OP_MSG = 2013
WRITES = (b"insert", b"update", b"delete", b"findAndModify", b"findandmodify",
          b"createIndexes", b"create")
MAX_MESSAGE = 100 * 1024 * 1024


def write_target(message):
    """The collection a write message is for; None for any other message."""
    if struct.unpack_from("<i", message, 12)[0] != OP_MSG:
        return None
    at = 20
    while at < len(message) - 5:
        kind = message[at]
        size = struct.unpack_from("<i", message, at + 1)[0]
        if kind == 0:
            # int32 length, type of the first element, its name, its value
            name_at = at + 6
            name_end = message.index(b"\0", name_at)
            if message[name_at:name_end] not in WRITES or message[name_at - 1] != 2:
                return None
            length = struct.unpack_from("<i", message, name_end + 1)[0]
            return message[name_end + 5:name_end + 4 + length].decode()
        at += 1 + size
    return None


def make_reply(request, text):
    """An OP_MSG that answers a request with a document, given as extended JSON."""
    import bson
    from bson import json_util

    body = bson.encode(json_util.loads(text))
    request_id = struct.unpack_from("<i", request, 4)[0]
    return struct.pack("<iiiiIB", 21 + len(body), 0, request_id, OP_MSG, 0, 0) + body


def abort(writer):
    """Closes a connection at once, the other side sees a reset."""
    if writer is None:
        return
    sock = writer.get_extra_info("socket")
    if sock is not None:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
    writer.transport.abort()


class Link:
    """One client's connection and ours to the server."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.server_reader = self.server_writer = None
        self.lossy = False          # bytes were swallowed: never to be used again
        self.client_gone = False
        self.held = []              # messages kept back
        self.orphans = 0            # released messages whose client has left
        self.replies = {}           # request id -> what to do with the reply

    def cut(self):
        abort(self.writer)
        abort(self.server_writer)


class Proxy:
    def __init__(self, host, port):
        self.target = (host, port)
        self.mode = "pass"
        self.delay = 0.0
        self.rules = []             # (what, argument, collection or None), first match counts
        self.links = set()
        self.server = None
        self.port = 0
        self.counters = dict(connections=0, requests=0, writes=0, bytes_up=0, bytes_down=0,
                             cuts=0, held=0, released=0, injected=0)

    async def listen(self, port):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", port)
        self.port = self.server.sockets[0].getsockname()[1]

    # ---- one connection ---------------------------------------------------
    async def serve(self, reader, writer):
        link = Link(reader, writer)
        self.links.add(link)
        self.counters["connections"] += 1
        try:
            if self.mode == "blackhole":
                link.lossy = True
                while await reader.read(65536):
                    pass
                return
            link.server_reader, link.server_writer = await asyncio.open_connection(*self.target)
            down = asyncio.ensure_future(self.pump_down(link))
            try:
                await self.pump_up(link)
            except (OSError, asyncio.IncompleteReadError):
                pass                # it left without a word
            link.client_gone = True
            if link.held or link.orphans:
                await down
            else:
                down.cancel()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            link.cut()
            self.links.discard(link)

    async def read(self, link, reader):
        """The next message, or some bytes of a TLS connection; b'' at the end."""
        head = await reader.read(16)
        if not head or head[:2] == b"\x16\x03" or link.replies is None:
            link.replies = None
            return head + (await reader.read(65536) if len(head) == 16 else b"")
        if len(head) < 16:
            head += await reader.readexactly(16 - len(head))
        length = struct.unpack_from("<i", head)[0]
        if not 16 <= length <= MAX_MESSAGE:
            raise OSError("not a MongoDB message")
        return head + await reader.readexactly(length - 16)

    async def pump_up(self, link):
        while True:
            try:
                if link.replies is None:
                    message = await link.reader.read(65536)
                else:
                    message = await self.read(link, link.reader)
            except asyncio.IncompleteReadError:
                return
            if not message:
                return
            self.counters["requests"] += 1
            if self.delay:
                await asyncio.sleep(self.delay)
            if self.mode == "blackhole":
                link.lossy = True
            elif link.replies is None:
                await self.send_up(link, message)
            else:
                await self.request(link, message)

    async def request(self, link, message):
        target = write_target(message)
        rule = None
        if target is not None:
            self.counters["writes"] += 1
            rule = self.take_rule(target, message)
        if rule is None:
            await self.send_up(link, message)
            return
        what, argument, _ = rule
        request_id = struct.unpack_from("<i", message, 4)[0]
        if what == "hold":
            link.held.append(message)
            self.counters["held"] += 1
        elif what == "cut-request":
            await self.send_up(link, message[:argument])
            # Let the bytes leave before the reset would throw them away.
            await asyncio.sleep(0.05)
            self.cut_link(link)
        elif what == "cut-reply" or what == "answer-after":
            link.replies[request_id] = (what, argument, message)
            await self.send_up(link, message)
        else:
            self.counters["injected"] += 1
            link.writer.write(make_reply(message, argument))
            await link.writer.drain()

    def take_rule(self, target, message):
        for rule in self.rules:
            if rule[0] == "cut-if":
                if rule[1] in message:
                    return ("cut-request", 16, None)
            elif rule[2] is None or rule[2] == target:
                if rule[0] != "answer-all":
                    self.rules.remove(rule)
                return rule
        return None

    async def send_up(self, link, data):
        self.counters["bytes_up"] += len(data)
        link.server_writer.write(data)
        await link.server_writer.drain()

    async def pump_down(self, link):
        try:
            while True:
                if link.replies is None:
                    message = await link.server_reader.read(65536)
                else:
                    message = await self.read(link, link.server_reader)
                if not message:
                    break
                await self.reply(link, message)
                if link.client_gone and not link.held and link.orphans <= 0:
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        if not link.client_gone:
            link.cut()

    async def reply(self, link, message):
        if self.mode == "blackhole":
            link.lossy = True
            return
        if link.orphans > 0:
            link.orphans -= 1
        if link.client_gone:
            return
        rule = None
        if link.replies:
            rule = link.replies.pop(struct.unpack_from("<i", message, 8)[0], None)
        if rule is not None and rule[0] == "answer-after":
            self.counters["injected"] += 1
            message = make_reply(rule[2], rule[1])
        elif rule is not None:
            link.writer.write(message[:rule[1]])
            await asyncio.sleep(0.05)
            self.cut_link(link)
            return
        self.counters["bytes_down"] += len(message)
        link.writer.write(message)
        await link.writer.drain()

    def cut_link(self, link):
        self.counters["cuts"] += 1
        link.cut()

    # ---- commands ---------------------------------------------------------
    async def command(self, line):
        name, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if name == "pass":
            self.mode, self.delay, self.rules = "pass", 0.0, []
            for link in [l for l in self.links if l.lossy]:
                self.cut_link(link)
            if self.server is None:
                await self.listen(self.port)
        elif name == "cut":
            for link in list(self.links):
                if link.held:
                    self.counters["cuts"] += 1
                    abort(link.writer)
                else:
                    self.cut_link(link)
        elif name == "refuse":
            self.mode = "refuse"
            if self.server is not None:
                self.server.close()
                self.server = None
            for link in list(self.links):
                self.cut_link(link)
        elif name == "blackhole":
            self.mode = "blackhole"
        elif name == "delay":
            self.delay = float(rest) / 1000
        elif name in ("cut-request", "cut-reply"):
            count, _, collection = rest.partition(" ")
            self.rules.append((name, int(count), collection or None))
        elif name == "cut-if":
            self.rules.append((name, rest.encode(), None))
        elif name == "hold":
            self.rules.append((name, None, rest or None))
        elif name in ("answer", "answer-all", "answer-after"):
            end = rest.rindex("}") + 1
            json.loads(rest[:end])
            self.rules.append((name, rest[:end], rest[end:].strip() or None))
        elif name == "release":
            return str(await self.release())
        elif name == "drop-held":
            for link in list(self.links):
                if link.held:
                    link.held = []
                    self.cut_link(link)
        elif name == "stats":
            return json.dumps(dict(self.counters, mode=self.mode, open=len(self.links),
                                   holding=sum(len(l.held) for l in self.links)))
        else:
            raise ValueError("unknown command " + repr(name))
        return ""

    async def release(self):
        released = 0
        for link in list(self.links):
            messages, link.held = link.held, []
            if link.client_gone:
                link.orphans += len(messages)
            for message in messages:
                await self.send_up(link, message)
                released += 1
        self.counters["released"] += released
        return released

    async def control(self, reader, writer):
        while True:
            line = await reader.readline()
            if not line:
                break
            try:
                value = await self.command(line.decode())
                answer = "ok " + value if value else "ok"
            except Exception as error:  # whatever it was, the caller must hear of it
                answer = "error %s: %s" % (type(error).__name__, error)
            writer.write(answer.encode() + b"\n")
            await writer.drain()
        writer.close()


def end_with_stdin():
    sys.stdin.buffer.read()
    os._exit(0)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control", type=int, default=0)
    parser.add_argument("--stdin", action="store_true")
    parser.add_argument("target")
    options = parser.parse_args()
    host, _, port = options.target.rpartition(":")
    proxy = Proxy(host, int(port))
    control = await asyncio.start_server(proxy.control, "127.0.0.1", options.control)
    await proxy.listen(options.port)
    print("control %d\nport %d" % (control.sockets[0].getsockname()[1], proxy.port), flush=True)
    if options.stdin:
        threading.Thread(target=end_with_stdin, daemon=True).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
