#!/usr/bin/env python3
"""Lists what is inside the binary, from `cargo metadata` and Cargo.lock.

usage: inventory.py licences|sbom|check TARGET
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from datetime import datetime, timezone
from pathlib import Path

# File names of licences and notices, in the package or in the C sources that it carries.
NOTICE = re.compile(r"^(licen[cs]e|copying|notice|copyright|unlicense)([-._].*)?$", re.IGNORECASE)
NOTICE_DEPTH = 3


def metadata(target):
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def tree(target, edges):
    """Names and versions that a default build has, which `cargo metadata` does not tell: it adds the tests' features."""
    command = ["cargo", "tree", "--locked", "--target", target, "--edges", edges, "--prefix", "none", "--format", "{p}"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return {tuple(line.replace(" v", " ").split(" ")[:2]) for line in lines if line}


def inventory(meta, target):
    """Packages whose code is in the binary, and those that are only run while it is built."""
    packages = {package["id"]: package for package in meta["packages"]}
    root = packages[meta["resolve"]["root"]]
    linked = tree(target, "normal,no-proc-macro")
    used = tree(target, "normal,build")
    ordered = sorted(packages.values(), key=lambda p: (p["name"], p["version"]))
    ordered = [package for package in ordered if package != root]
    inside = [p for p in ordered if (p["name"], p["version"]) in linked]
    tools = [p for p in ordered if (p["name"], p["version"]) in used - linked]
    return root, inside, tools


def dependencies(meta, known):
    """Edges between the packages that are known, in the order of their names."""
    for node in sorted(meta["resolve"]["nodes"], key=lambda node: known.get(node["id"], "")):
        if node["id"] in known:
            edges = [edge for edge in node["deps"] if {kind["kind"] for kind in edge["dep_kinds"]} != {"dev"}]
            needed = sorted(known[edge["pkg"]] for edge in edges if edge["pkg"] in known)
            yield {"ref": known[node["id"]], "dependsOn": needed}


def notices(package):
    """Texts of licences, each once."""
    folder = Path(package["manifest_path"]).parent
    found = {}
    for path in sorted(folder.rglob("*")):
        depth = len(path.relative_to(folder).parts)
        if depth <= NOTICE_DEPTH and path.is_file() and NOTICE.match(path.name):
            text = path.read_text(encoding="utf-8", errors="replace").strip()
            found.setdefault(text, path.relative_to(folder))
    return [(str(path), text) for text, path in found.items()]


def dashboard():
    """Names and packages of npm whose code is in the dashboard, and so in the binary."""
    lock = json.loads(Path("dashboard/package-lock.json").read_text())["packages"]
    return [(name, lock[f"node_modules/{name}"]) for name in sorted(lock[""]["dependencies"])]


def licences(target):
    root, linked, _ = inventory(metadata(target), target)
    print(f"Evenkeel is licensed under {root['license']}. Its binaries contain the packages below.")
    print("The standard library of Rust, too: MIT OR Apache-2.0, https://www.rust-lang.org/policies/licenses.")
    print("The static binary contains the GNU C library: LGPL-2.1-or-later; its source is that of Debian's package glibc.\n")
    for package in linked:
        print(f"{package['name']} {package['version']}: {package['license'] or 'see its text'}")
    for name, package in dashboard():
        print(f"{name} {package['version']}: {package['license']}, in the dashboard")
    # Most packages have the same few texts: each is printed once, under the names of all that carry it.
    texts = {}
    for package in linked:
        for path, text in notices(package):
            texts.setdefault(text, []).append(f"{package['name']} {package['version']} ({path})")
    for text, owners in texts.items():
        print("\n" + "=" * 100)
        print("\n".join(owners))
        print("-" * 100)
        print(text)
    # Its build writes the texts.
    print("\n" + "=" * 100)
    print(Path("dashboard/LICENSES.txt").read_text(encoding="utf-8"))


def missing(target):
    """Packages that name a licence and carry no text of one."""
    _, linked, _ = inventory(metadata(target), target)
    return [package for package in linked if not notices(package)]


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums, scope):
    made = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "scope": scope,
        "purl": purl(package),
    }
    if package["license"]:
        # Older packages separate alternatives by a slash, which is no SPDX expression.
        made["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    if package["description"]:
        made["description"] = " ".join(package["description"].split())
    if checksum := checksums.get((package["name"], package["version"])):
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["repository"]:
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return made


def npm_component(name, package):
    reference = f"pkg:npm/{name}@{package['version']}"
    return {
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": package["version"],
        "scope": "required",
        "purl": reference,
        "licenses": [{"expression": package["license"]}],
        "hashes": [{"alg": "SHA-512", "content": base64.b64decode(package["integrity"].removeprefix("sha512-")).hex()}],
    }


def sbom(target):
    meta = metadata(target)
    root, linked, tools = inventory(meta, target)
    known = {package["id"]: purl(package) for package in [root, *linked, *tools]}
    lock = tomllib.loads((Path(meta["workspace_root"]) / "Cargo.lock").read_text())
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}
    components = [component(p, checksums, "required") for p in linked]
    components += [component(p, checksums, "excluded") for p in tools]
    components += [npm_component(name, package) for name, package in dashboard()]
    commit = os.environ.get("EVENKEEL_COMMIT", "unknown")
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    seed = hashlib.sha256(json.dumps([components, commit, target]).encode()).hexdigest()
    bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, seed)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application",
                "bom-ref": purl(root),
                "name": root["name"],
                "version": root["version"],
                "purl": purl(root),
                "licenses": [{"expression": root["license"]}],
            },
            "properties": [
                {"name": "evenkeel:commit", "value": commit},
                {"name": "evenkeel:target", "value": target},
            ],
        },
        "components": components,
        "dependencies": list(dependencies(meta, known)),
    }
    json.dump(bom, sys.stdout, indent=1)
    print()


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    _, what, target = sys.argv
    if what == "licences":
        licences(target)
    elif what == "sbom":
        sbom(target)
    elif what == "check":
        for package in missing(target):
            print(f"{package['name']} {package['version']} ({package['license']}) carries no text of its licence")
    else:
        sys.exit(__doc__)


main()
