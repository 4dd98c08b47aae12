"""Holds a running balancer to its own description: schemathesis sends what OpenAPI allows and what it does not.

`.ci/long api` runs it. Every answer must have a status, a media type and a body that the description has, and no
request may be a server error. Requests that would end the run (an upgrade) or never answer (events) are left out.
"""

import os
import pathlib
import socket
import subprocess
import sys
import threading

from balancer import Balancer

TOKEN = "secret-of-the-campaign"
# Requests of each route, at random; raise it for a longer look.
EXAMPLES = os.environ.get("API_EXAMPLES", "50")
LEFT_OUT = ["/api/v1/events", "/api/v1/upgrade"]
# What the description cannot say: a filter names things that are there, a pace is a text of a certain form, tokens go
# in two ways, and a good request may find nothing to act on.
LEFT_OUT_CHECKS = "positive_data_acceptance,ignored_auth,negative_data_rejection,object_level_authorization"


def serve(listening):
    """Accepts and holds connections, as a backend that says nothing."""
    held = []
    while True:
        held.append(listening.accept())


def main():
    backend = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(backend,), daemon=True).start()
    port = backend.getsockname()[1]
    token = pathlib.Path("/proc/self/cwd").resolve() / ".peers" / "api.token"
    token.parent.mkdir(exist_ok=True)
    token.write_text(TOKEN)
    token.chmod(0o600)
    configuration = f"""
[global]
log_format = "json"
watch = false

[[listener]]
name = "main"
bind = "127.0.0.1:0"
protocol = "tcp"
pool = "nodes"

[pool.nodes]
backend = [{{ name = "n1", address = "127.0.0.1:{port}" }}]

[admin]
bind = "127.0.0.1:0"
token_file = "{token}"
"""
    with Balancer(configuration, ["main", "admin"]) as balancer:
        held = [socket.create_connection(("127.0.0.1", balancer.ports["main"])) for _ in range(20)]
        url = f"http://127.0.0.1:{balancer.ports['admin']}"
        command = [
            pathlib.Path(sys.executable).parent / "schemathesis", "run", f"{url}/api/v1/openapi.json", "--url", url,
            "--header", f"Authorization: Bearer {TOKEN}", "--max-examples", EXAMPLES, "--phases", "examples,coverage,fuzzing",
            "--exclude-checks", LEFT_OUT_CHECKS, "--generation-database", "none", "--seed", "1",
        ]
        for path in LEFT_OUT:
            command += ["--exclude-path", path]
        result = subprocess.run([str(word) for word in command], check=False)
        if balancer.process.poll() is not None:
            sys.exit("the balancer ended")
        del held
    sys.exit(result.returncode)


if __name__ == "__main__":
    main()
