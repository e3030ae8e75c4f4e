"""Machines in network namespaces, joined by a cable, or by links of a given rate and delay. Needs root.

    python benchmarks/link.py [--rate 1gbit] [--delay 5]

The second is for kernels without `netem`: each machine has a TUN device, on which the kernel's `tbf` limits the rate, and one
process forwards the packets between the devices, each after the delay. Packets of a stream cross it in pieces of up to 64 KB
(TSO), which a network card would cut, so that Python keeps up; TCP sees a link of 1,500 bytes. Run as a command, this file
measures both kinds of link with a socket: the round trip of one byte, and the rate of a transfer.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from types import TracebackType

FILE = str(Path(__file__).resolve())
ADDRESS, PORT = "10.78.0.{}", 29530
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4 = 1, 2
HEADER = 10  # bytes of struct virtio_net_hdr, which says where the network card would cut a packet
LARGEST = 65_535 + HEADER


def tun(name: str) -> int:
    """Make a TUN device whose packets carry offload headers."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(descriptor, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)
    return descriptor


def forward(delay: float, names: list[str]) -> None:
    """Make the devices, say so, and forward IPv4 packets between them, each `delay` seconds after it came, until stdin ends."""
    devices = [tun(name) for name in names]
    to = {socket.inet_aton(ADDRESS.format(number)): device for number, device in enumerate(devices, 1)}
    print("ready", flush=True)
    waiting: deque[tuple[float, int, bytes]] = deque()  # by time, since all wait equally long
    while True:
        while waiting and waiting[0][0] <= time.perf_counter():
            _, device, packet = waiting.popleft()
            os.write(device, packet)
        timeout = max(0.0, waiting[0][0] - time.perf_counter()) if waiting else None
        for device in select.select([sys.stdin, *devices], [], [], timeout)[0]:
            if device is sys.stdin:
                return  # whoever started this process has ended
            packet = os.read(device, LARGEST)
            target = to.get(packet[HEADER + 16 : HEADER + 20])
            if packet[HEADER] >> 4 == 4 and target is not None:
                waiting.append((time.perf_counter() + delay, target, packet))


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Network:
    """Machines `10.78.0.1`, `10.78.0.2`, ...: namespaces whose device `cable` leads to all others, and which are gone at exit.

    Without a rate they are joined by virtual cables and a bridge. With a rate, as `tc` writes it, each sends no faster than
    that, and its packets arrive after `delay` seconds. TCP uses CUBIC, the default of Linux.
    """

    def __init__(self, machines: int, rate: str = "", delay: float = 0.0) -> None:
        self.rate, self.delay = rate, delay
        self.names = [f"mienlink{os.getpid()}n{number}" for number in range(machines)]
        self.bridge = f"mienlink{os.getpid()}bridge"
        self.forwarder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Network:
        try:
            for name in self.names:
                ip("netns", "add", name)
            devices = self._slow() if self.rate else self._fast()
            for number, (name, device) in enumerate(zip(self.names, devices, strict=True), 1):
                self._join(name, device, ADDRESS.format(number))
        except BaseException:
            self.close()
            raise
        return self

    def _slow(self) -> list[str]:
        devices = [f"ml{os.getpid() % 10**6}t{number}" for number in range(len(self.names))]
        line = [sys.executable, FILE, "--forward", str(self.delay), *devices]
        self.forwarder = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.forwarder.stdout and self.forwarder.stdout.readline() == "ready\n", "no TUN devices here"
        return devices

    def _fast(self) -> list[str]:
        ip("netns", "add", self.bridge)
        ip("-n", self.bridge, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.bridge, "link", "set", "bridge", "up")
        devices = [f"ml{os.getpid() % 10**6}v{number}" for number in range(len(self.names))]
        for device in devices:
            ip("-n", self.bridge, "link", "add", f"{device}b", "type", "veth", "peer", "name", device)
            ip("-n", self.bridge, "link", "set", f"{device}b", "master", "bridge", "up")
            ip("-n", self.bridge, "link", "set", device, "netns", str(os.getpid()))
        return devices

    def _join(self, name: str, device: str, address: str) -> None:
        ip("link", "set", device, "netns", name)
        ip("-n", name, "link", "set", device, "name", "cable")
        ip("-n", name, "link", "set", "cable", "mtu", "1500", "txqueuelen", "10000")
        ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
        for each in ("lo", "cable"):
            ip("-n", name, "link", "set", each, "up")
        if self.rate:
            shape = ["tbf", "rate", self.rate, "burst", "128kb", "limit", "32mb"]
            subprocess.run(["tc", "-n", name, "qdisc", "add", "dev", "cable", "root", *shape], check=True)
        # By route, since a namespace may not choose an algorithm that its machine does not offer to everybody.
        network = ADDRESS.format(0) + "/24"
        ip("-n", name, "route", "replace", network, "dev", "cable", "src", address, "congctl", "cubic")

    @staticmethod
    def inside(name: str) -> list[str]:
        """What a command begins with to run in that machine."""
        return ["ip", "netns", "exec", name]

    def close(self) -> None:
        if self.forwarder is not None:
            self.forwarder.terminate()
            self.forwarder.wait()
        for name in (*self.names, self.bridge):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def exactly(connection: socket.socket, count: int) -> None:
    """Receive so many bytes, and forget them."""
    while count:
        count -= len(connection.recv(min(count, 1 << 20)))


def serve(size: int, rounds: int) -> None:
    """Return single bytes, then acknowledge transfers of `size`, as often as `measure` asks."""
    with socket.create_server((ADDRESS.format(1), PORT)) as server:
        print("ready", flush=True)
        connection = server.accept()[0]
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for count in [1] * 50 + [size] * rounds:
            exactly(connection, count)
            connection.sendall(b"x")


def measure(size: int, rounds: int) -> None:
    """Print the round trips in milliseconds and the rates in megabits a second."""
    with socket.create_connection((ADDRESS.format(1), PORT)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        spent = []
        for payload in [b"x"] * 50 + [bytes(size)] * rounds:
            started = time.perf_counter()
            connection.sendall(payload)
            exactly(connection, 1)
            spent.append(time.perf_counter() - started)
    print(json.dumps({"round trip": spent[:50], "transfer": spent[50:]}))


def socket_test(network: Network, size: int, rounds: int) -> tuple[list[float], list[float]]:
    """Round trips in seconds, and seconds of transfers, between two machines of a network."""
    words = [str(size), str(rounds)]
    first, second = network.names[:2]
    line = [*network.inside(first), sys.executable, FILE, "--serve", *words]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout and server.stdout.readline() == "ready\n"
        line = [*network.inside(second), sys.executable, FILE, "--measure", *words]
        found = json.loads(subprocess.run(line, stdout=subprocess.PIPE, check=True).stdout)
    return found["round trip"], found["transfer"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--delay", type=float, default=5.0, help="milliseconds, one way")
    parser.add_argument("--size", type=int, default=50_000_000, help="bytes of a transfer")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    print("| link | round trip, median (least to most) | transfer, median (best) |\n|---|---|---|")
    links = {"virtual cable": ("", 0.0), f"{options.rate}, {options.delay:g} ms": (options.rate, options.delay / 1000)}
    for name, (rate, delay) in links.items():
        with Network(2, rate, delay) as network:
            trips, transfers = socket_test(network, options.size, options.rounds)
        trips = [1000 * trip for trip in trips]
        rates = [8e-6 * options.size / seconds for seconds in transfers]
        spread = f"{statistics.median(trips):.2f} ms ({min(trips):.2f} to {max(trips):.2f})"
        print(f"| {name} | {spread} | {statistics.median(rates):,.0f} Mbit/s ({max(rates):,.0f}) |", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--forward", delay, *names]:
            forward(float(delay), names)
        case ["--serve", size, rounds]:
            serve(int(size), int(rounds))
        case ["--measure", size, rounds]:
            measure(int(size), int(rounds))
        case _:
            main()
