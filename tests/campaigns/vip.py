"""One address of two balancers by keepalived: how long new connections wait when it moves.

Between network namespaces that it makes itself, which takes root: `lb1` and `lb2` have a balancer
and keepalived by packaging/keepalived.conf each, `client` connects to their common address without
a pause. First the holder's link dies: new connections are to come through within a second. Then a
planned stop: with `shutdown_delay` none is to be refused.

    EVENKEEL    the program; default: the release build
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("EVENKEEL", str(ROOT / "target/release/evenkeel"))
NET, VIP, PORT = "10.94.0", "10.94.0.10", 8080
MOST_GAP = 1.0
# Between two tries of a client, and the longest that one waits.
TICK, LONGEST = 0.02, 0.3
DELAY = 6
PATIENCE = 30

CONFIGURATION = f"""
[global]
log_format = "json"
watch = false
shutdown_delay = "{DELAY}s"

[[listener]]
name = "tcp"
bind = "0.0.0.0:{PORT}"
protocol = "tcp"
pool = "node"

[pool.node]
backend = [{{ address = "127.0.0.1:9000" }}]

[metrics]
bind = "127.0.0.1:9901"
"""

# Greets and closes.
NODE = """
import socket
listening = socket.create_server(("127.0.0.1", 9000), backlog=256)
while True:
    client, _ = listening.accept()
    client.sendall(b"hello")
    client.close()
"""

# Connects again and again, and says when and how each try ended.
CLIENT = f"""
import socket, sys, time
while True:
    began = time.monotonic()
    try:
        with socket.create_connection(("{VIP}", {PORT}), timeout={LONGEST}) as stream:
            end = "served" if stream.recv(9) == b"hello" else "cut"
    except ConnectionRefusedError:
        end = "refused"
    except ConnectionResetError:
        end = "reset"
    except OSError:
        end = "waited"
    print(time.monotonic(), end, flush=True)
    time.sleep(max(0, began + {TICK} - time.monotonic()))
"""


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


class Namespaces:
    """A bridge, and three namespaces at it."""

    def __init__(self):
        self.names = {}

    def __enter__(self):
        own = f"ek{os.getpid()}"
        self.bridge = self.add(f"{own}-lan")
        run("ip", "-n", self.bridge, "link", "add", "lan", "type", "bridge")
        run("ip", "-n", self.bridge, "link", "set", "lan", "up")
        for index, name in enumerate(["lb1", "lb2", "client"]):
            space, port = self.add(f"{own}-{name}"), f"port{index}"
            run("ip", "-n", self.bridge, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            run("ip", "-n", self.bridge, "link", "set", port, "master", "lan", "up")
            run("ip", "-n", space, "address", "add", f"{NET}.{11 + index}/24", "dev", "eth0")
            for device in ["lo", "eth0"]:
                run("ip", "-n", space, "link", "set", device, "up")
            self.names[name] = space
        return self

    def add(self, space):
        run("ip", "netns", "add", space)
        self.names.setdefault(space, space)
        return space

    def cut(self, index):
        run("ip", "-n", self.bridge, "link", "set", f"port{index}", "down")

    def mend(self, index):
        run("ip", "-n", self.bridge, "link", "set", f"port{index}", "up")

    def start(self, name, *words, **options):
        words = ["ip", "netns", "exec", self.names[name], *words]
        return subprocess.Popen(words, start_new_session=True, **options)

    def holds(self, name):
        shown = subprocess.run(["ip", "-n", self.names[name], "address"], check=True, capture_output=True, text=True)
        return f"{VIP}/" in shown.stdout

    def __exit__(self, *_):
        for space in set(self.names.values()):
            subprocess.run(["ip", "netns", "delete", space], check=False)


def keepalived(index):
    """The packaged file for a balancer, with the addresses of this network."""
    text = (ROOT / "packaging/keepalived.conf").read_text()
    own, other = f"{NET}.{10 + index}", f"{NET}.{13 - index}"
    for before, after in [
        ("192.0.2.11", own),
        ("192.0.2.12", other),
        ("192.0.2.10/24", f"{VIP}/24"),
        ("priority 150", f"priority {160 - 10 * index}"),
    ]:
        assert before in text, before
        text = text.replace(before, after)
    return text


class Client:
    """Tries of a client, as they end."""

    def __init__(self, spaces):
        self.tries = []
        self.child = spaces.start("client", sys.executable, "-c", CLIENT, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.child.stdout:
            at, end = line.split()
            self.tries.append((float(at), end))

    def since(self, began):
        return [one for one in self.tries if one[0] >= began]

    def gap(self, began):
        """The longest time between two that were served."""
        served = [at for at, end in self.tries if end == "served" and at >= began - 1]
        return max((later - earlier for earlier, later in zip(served, served[1:])), default=float("inf"))


def until(what, holds):
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            sys.exit(f"vip: {what}: not within {PATIENCE} s")
        time.sleep(0.02)


def start(spaces, name, folder, children):
    index = int(name[-1])
    (folder / f"{name}.toml").write_text(CONFIGURATION)
    (folder / f"{name}.conf").write_text(keepalived(index))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    children.append(spaces.start(name, sys.executable, "-c", NODE, **quiet))
    balancer = spaces.start(name, PROGRAM, "run", "--config", str(folder / f"{name}.toml"), **quiet)
    pids = [f"--pid={folder}/{name}.pid", f"--vrrp_pid={folder}/{name}.vrrp"]
    file = f"--use-file={folder}/{name}.conf"
    vrrp = spaces.start(name, "keepalived", "--dont-fork", "--log-console", "--vrrp", file, *pids, **quiet)
    children += [balancer, vrrp]
    return balancer


def main():
    if not shutil.which("keepalived"):
        print("SKIPPED: keepalived is not installed")
        return
    children = []
    with tempfile.TemporaryDirectory() as folder, Namespaces() as spaces:
        folder = pathlib.Path(folder)
        try:
            balancers = {name: start(spaces, name, folder, children) for name in ["lb1", "lb2"]}
            until("an address", lambda: spaces.holds("lb1") or spaces.holds("lb2"))
            client = Client(spaces)
            children.append(client.child)
            until("a client", lambda: len([end for _, end in client.tries if end == "served"]) > 50)
            check(spaces, client, balancers)
        finally:
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def check(spaces, client, balancers):
    holder, other = ("lb1", "lb2") if spaces.holds("lb1") else ("lb2", "lb1")
    began = time.monotonic()
    spaces.cut(int(holder[-1]) - 1)
    until("the address at the other one", lambda: spaces.holds(other))
    until("clients", lambda: len([1 for _, end in client.since(began) if end == "served"]) > 100)
    gap = client.gap(began)
    print(f"the holder's link dies: {gap:.2f} s without a new connection, at most {MOST_GAP}")

    spaces.mend(int(holder[-1]) - 1)
    # The one that is back leaves the address where it is.
    until("one holder", lambda: spaces.holds(other) and not spaces.holds(holder))
    time.sleep(2)
    began = time.monotonic()
    balancers[other].send_signal(signal.SIGTERM)
    until("the address back", lambda: spaces.holds(holder) and not spaces.holds(other))
    balancers[other].wait(PATIENCE)
    tries = client.since(began)
    refused = [end for _, end in tries if end in ("refused", "reset", "cut")]
    planned = client.gap(began)
    print(f"a planned stop: {len(refused)} of {len(tries)} refused, {planned:.2f} s without a new connection")
    if gap > MOST_GAP or refused:
        sys.exit("vip: failed")


if __name__ == "__main__":
    main()
