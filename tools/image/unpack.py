#!/usr/bin/env python3
"""Unpacks an image as a container runtime does: `unpack.py IMAGE.tar DIRECTORY`, with every digest and size compared.

Prints the command of the image, a word a line. Fails at the first thing that a runtime would refuse.
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile


def sha256(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def main():
    path, into = sys.argv[1:]
    with tarfile.open(path) as tar:
        files = {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}

    def blob(descriptor):
        content = files["blobs/" + descriptor["digest"].replace(":", "/")]
        assert sha256(content) == descriptor["digest"] and len(content) == descriptor["size"], descriptor
        return content

    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(blob(entry))
    config = json.loads(blob(manifest["config"]))
    assert entry["platform"] == {key: config[key] for key in ("architecture", "os")}, entry
    # Docker before 25 reads this one alone.
    (saved,) = json.loads(files["manifest.json"])
    assert files[saved["Config"]] == blob(manifest["config"])
    assert [files[name] for name in saved["Layers"]] == [blob(layer) for layer in manifest["layers"]]
    diffs = config["rootfs"]["diff_ids"]
    assert len(diffs) == len(manifest["layers"])
    for layer, diff in zip(manifest["layers"], diffs):
        content = blob(layer)
        content = gzip.decompress(content) if layer["mediaType"].endswith("+gzip") else content
        assert sha256(content) == diff, layer
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            # Later versions of Python refuse by default what images may hold.
            tar.extraction_filter = staticmethod(lambda entry, _: entry)
            tar.extractall(into)
    assert "User" not in config["config"] and "Entrypoint" not in config["config"], config["config"]
    print("\n".join(config["config"]["Cmd"]))


if __name__ == "__main__":
    main()
