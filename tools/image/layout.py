#!/usr/bin/env python3
"""Writes programs as an OCI image: the layout as a directory, and as a tar that is a `docker save` archive as well.

The image has what etcd's has: /usr/local/bin/{etcd,etcdctl,etcdutl}, the working directory /var/lib/etcd, no user and
no entry point, the command /usr/local/bin/etcd, and the files of a distroless base (users, CA certificates, /tmp).
Our names are hard links. Programs that are not static bring their loader and libraries.

Each file is owned by root and has the time of SOURCE_DATE_EPOCH, names are sorted, so that equal programs make equal
bytes.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

# Ours, and etcd's name of the same program.
PROGRAMS = [("basalt", "etcd"), ("basaltctl", "etcdctl"), ("basaltutl", "etcdutl")]
BIN = "usr/local/bin"
CA_FILE = "etc/ssl/certs/ca-certificates.crt"
USERS = {
    "etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n"
    "nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n",
    "etc/group": "root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n",
    # glibc's default asks for more than there is; musl does not read it.
    "etc/nsswitch.conf": "hosts: files dns\n",
}
# Beside those that files are in; 0o1777 for what anybody may write to.
DIRECTORIES = {"tmp": 0o1777, "root": 0o700, "home/nonroot": 0o755, "var/etcd": 0o755, "var/lib/etcd": 0o755}
MACHINES = {62: "amd64", 183: "arm64"}
GNU_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def fail(text):
    sys.exit(f"image: {text}")


def architecture(path):
    """OCI's name of what an ELF file runs on."""
    with open(path, "rb") as file:
        head = file.read(20)
    if head[:4] != b"\x7fELF":
        fail(f"{path} is no program for Linux")
    machine = int.from_bytes(head[18:20], "little")
    return MACHINES.get(machine) or fail(f"{path} is for an unknown machine, {machine}")


def elf(path, *arguments):
    return subprocess.run(["readelf", "-W", *arguments, path], check=True, capture_output=True, text=True).stdout


def loader(path):
    """The program that loads it; None if it is static."""
    found = re.search(r"program interpreter: (\S+)\]", elf(path, "-l"))
    return found and found[1]


def libraries(path):
    """Where its shared libraries are on this machine, by the names under which its loader finds them."""
    listed = subprocess.run(["ldd", path], check=True, capture_output=True, text=True).stdout
    return {found[2]: os.path.realpath(found[2]) for found in re.finditer(r"(\S+) => (/\S+)", listed)}


def contents(arguments):
    """Files of the base by path in the image, those of the programs, and links: path to path."""
    base = {path: text.encode() for path, text in USERS.items()}
    if os.path.exists(arguments.ca_file):
        base[CA_FILE] = read(arguments.ca_file)
    programs, links = {}, {}
    for ours, theirs in PROGRAMS:
        path = os.path.join(arguments.programs, ours)
        if not os.path.exists(path):
            fail(f"{path} is missing: build it, or leave out --programs")
        programs[f"{BIN}/{theirs}"] = stripped(path) if arguments.strip else read(path)
        links[f"{BIN}/{ours}"] = f"{BIN}/{theirs}"
        if loader(path):
            base[loader(path).lstrip("/")] = read(os.path.realpath(loader(path)))
            # Names of hosts are resolved by libc itself from glibc 2.34 on, without further libraries.
            base.update({name.lstrip("/"): read(place) for name, place in libraries(path).items()})
    return base, programs, links


def read(path):
    with open(path, "rb") as file:
        return file.read()


def stripped(path):
    """Without what only debuggers read. Names of functions stay, for backtraces."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = os.path.join(scratch, "program")
        # GNU's knows one kind of machine, and has its name in front if it is not this one.
        kind = GNU_MACHINES[architecture(path)]
        strip = "strip" if kind == platform.machine() else f"{kind}-linux-gnu-strip"
        subprocess.run([strip, "--strip-debug", "-o", copy, path], check=True)
        return read(copy)


def layer(files, links, directories, when):
    """A tar of all of it, below sorted directories."""
    everything = dict(directories)
    for path in [*files, *links, *directories]:
        parts = path.split("/")[:-1]
        for depth in range(len(parts)):
            everything.setdefault("/".join(parts[: depth + 1]), 0o755)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(everything):
            entry = tarfile.TarInfo(path + "/")
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, everything[path], when
            tar.addfile(entry)
        for path in sorted(files):
            entry = tarfile.TarInfo(path)
            is_run = path.startswith(BIN) or ".so" in path
            entry.size, entry.mode, entry.mtime = len(files[path]), 0o755 if is_run else 0o644, when
            tar.addfile(entry, io.BytesIO(files[path]))
        for path in sorted(links):
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname, entry.mode, entry.mtime = tarfile.LNKTYPE, links[path], 0o755, when
            tar.addfile(entry)
    return made.getvalue()


class Layout:
    """Blobs of an image by their digests."""

    def __init__(self):
        self.blobs = {}

    def add(self, content, kind):
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    def add_json(self, value, kind):
        return self.add(encode(value), kind)


def encode(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def path_of(descriptor):
    return "blobs/" + descriptor["digest"].replace(":", "/")


def compress(tar, how):
    if how == "none":
        return tar, LAYER
    # Neither a name nor a time is in it.
    return gzip.compress(tar, compresslevel=9, mtime=0), LAYER + "+gzip"


def image(arguments, when):
    """All files of the layout by path."""
    base, programs, links = contents(arguments)
    layers = [layer(base, {}, DIRECTORIES, when), layer(programs, links, {}, when)]
    layout, created = Layout(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
    runs_on = {"architecture": architecture(os.path.join(arguments.programs, PROGRAMS[0][0])), "os": "linux"}
    packed = [layout.add(*compress(tar, arguments.compress)) for tar in layers]
    config = layout.add_json(
        {
            **runs_on,
            "created": created,
            "config": {
                "Cmd": ["/usr/local/bin/etcd"],
                "Env": [
                    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    f"SSL_CERT_FILE=/{CA_FILE}",
                ],
                "ExposedPorts": {"2379/tcp": {}, "2380/tcp": {}},
                "Labels": {
                    "org.opencontainers.image.licenses": "Apache-2.0",
                    "org.opencontainers.image.title": "basalt",
                    "org.opencontainers.image.version": arguments.version,
                },
                "WorkingDir": "/var/lib/etcd/",
            },
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in layers]},
            "history": [
                {"created": created, "created_by": "tools/image/build.sh: users, certificates, directories"},
                {"created": created, "created_by": "tools/image/build.sh: programs"},
            ],
        },
        CONFIG,
    )
    manifest = layout.add_json(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": packed}, MANIFEST
    )
    # containerd takes the whole name, other tools the tag.
    full, tag = full_name(arguments.name), arguments.name.rpartition(":")[2]
    named = {"io.containerd.image.name": full, "org.opencontainers.image.ref.name": tag}
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{**manifest, "platform": runs_on, "annotations": named}],
    }
    saved = [{"Config": path_of(config), "RepoTags": [arguments.name], "Layers": [path_of(it) for it in packed]}]
    return runs_on["architecture"], {
        "oci-layout": encode({"imageLayoutVersion": "1.0.0"}),
        "index.json": encode(index),
        "manifest.json": encode(saved),
        **{f"blobs/sha256/{digest}": content for digest, content in layout.blobs.items()},
    }


def full_name(name):
    """With the registry and the namespace that Docker leaves out."""
    first, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    return name if "." in first or ":" in first or first == "localhost" else f"docker.io/{name}"


def write(out, files, tar_name, when):
    place = os.path.join(out, "oci")
    shutil.rmtree(place, ignore_errors=True)
    for path, content in files.items():
        target = os.path.join(place, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(content)
    tar_path = os.path.join(out, tar_name)
    with open(tar_path, "wb") as file:
        file.write(layer(files, {}, {}, when))
    return place, tar_path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--ca-file", default="/" + CA_FILE)
    parser.add_argument("--compress", choices=["gzip", "none"], default="gzip")
    parser.add_argument("--no-strip", dest="strip", action="store_false")
    arguments = parser.parse_args()
    if not re.search(r"[^/]:[^/:]+$", arguments.name):
        fail("--name needs a tag, as in basalt:1.0")
    when = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    arch, files = image(arguments, when)
    tar_name = f"basalt-{arguments.version}-linux-{arch}.tar"
    place, tar_path = write(arguments.out, files, tar_name, when)
    digest = json.loads(files["index.json"])["manifests"][0]["digest"]
    print(f"{arguments.name} for linux/{arch}, {digest}\n  {tar_path}, {os.path.getsize(tar_path) >> 20} MiB\n  {place}/")


if __name__ == "__main__":
    main()
