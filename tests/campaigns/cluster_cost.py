"""Cost of a cluster at its store: BALANCERS (10) with BACKENDS (1000) each over one Redis.

Prints bytes a second that the store takes and sends, its commands and its CPU, and the CPU of one
balancer. Connections do not matter: a report has a number for each backend, however high.

    EVENKEEL    the program; default: the release build
"""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

from balancer import binary

BALANCERS = int(os.environ.get("BALANCERS", "10"))
BACKENDS = int(os.environ.get("BACKENDS", "1000"))
SECONDS = 10
PATIENCE = 60
SECRET = "a secret that all of them have"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def ask(port, command):
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as stream:
        stream.sendall(f"{command}\r\nQUIT\r\n".encode())
        answer = b""
        while part := stream.recv(65_536):
            answer += part
    return answer.decode()


def numbers(port):
    lines = ask(port, "INFO all").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    names = ["total_net_input_bytes", "total_net_output_bytes", "total_commands_processed"]
    found = [float(fields[name]) for name in names]
    return [*found, float(fields["used_cpu_sys"]) + float(fields["used_cpu_user"])]


def cpu(process):
    ticks = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")


def configuration(number, port):
    backends = "\n".join(
        f'  {{ name = "node-{index:04}", address = "10.9.{index // 250}.{index % 250 + 1}:8080" }},'
        for index in range(BACKENDS)
    )
    return f"""
[[listener]]
name = "tcp"
bind = "127.0.0.1:0"
protocol = "tcp"
pool = "chat"

[pool.chat]
backend = [
{backends}
]

[cluster]
store = "redis://127.0.0.1:{port}"
name = "edge"
id = "lb{number}"
secret_file = "cluster.key"
timeout = "5s"
expire = "30s"
"""


def main():
    children, port = [], free_port()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "cluster.key").write_text(SECRET)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        try:
            store = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no"]
            children.append(subprocess.Popen(store, **quiet))
            time.sleep(1)
            for number in range(BALANCERS):
                file = folder / f"lb{number}.toml"
                file.write_text(configuration(number, port))
                children.append(subprocess.Popen([os.path.abspath(binary()), "run", "--config", file], **quiet))
            end = time.monotonic() + PATIENCE
            while f":{BALANCERS}" not in ask(port, "SCARD ek:{edge}:members"):
                if time.monotonic() > end:
                    sys.exit("cluster_cost: the members do not come")
                time.sleep(0.2)
            time.sleep(3)
            before, own = numbers(port), cpu(children[1])
            time.sleep(SECONDS)
            after, spent = numbers(port), cpu(children[1]) - own
        finally:
            for child in children:
                child.send_signal(signal.SIGKILL)
                child.wait()
    taken, sent, commands, seconds = ((new - old) / SECONDS for old, new in zip(before, after))
    print(f"{BALANCERS} balancers, {BACKENDS} backends, an exchange a second")
    print(f"store: {taken / 1e3:.0f} kB/s in, {sent / 1e3:.0f} kB/s out, {commands:.0f} commands/s, {seconds * 1e3:.1f} ms CPU/s")
    print(f"balancer: {spent / SECONDS * 1e3:.1f} ms CPU/s")


if __name__ == "__main__":
    main()
