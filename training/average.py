"""The mean of checkpoints' weights (Wortsman et al., 2022, "Model soups"), tensor by tensor. For a checkpoint and those
that were trained on from it: the mean keeps most of what each does better. Needs no PyTorch.

    python3 training/average.py --of FOLDER FOLDER [...] --shares 0.5 0.5 [...] --out FOLDER

Folders hold model.safetensors (float16); config.json is copied from the first.
"""
import argparse
import json
import shutil
import struct
from pathlib import Path

import numpy as np


def read(folder):
    """-> head of the file as it stands, its tensors by name, the weights [n] float16"""
    content = (Path(folder) / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8:8 + size])
    header.pop("__metadata__", None)
    others = {entry["dtype"] for entry in header.values()} - {"F16"}
    if others:
        raise SystemExit(f"{folder} has weights of {', '.join(sorted(others))}; only F16 is averaged")
    return content[:8 + size], header, np.frombuffer(content[8 + size:], np.float16)


def average(weights, shares):
    """Each [n] -> [n], all float16; the mean itself in float32"""
    return sum(one.astype(np.float32) * share for one, share in zip(weights, shares)).astype(np.float16)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", nargs="+", required=True)
    parser.add_argument("--shares", nargs="+", type=float, help="one for each folder, 1 in all; equal ones unless given")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    shares = options.shares or [1 / len(options.of)] * len(options.of)
    if len(shares) != len(options.of) or abs(sum(shares) - 1) > 1e-6:
        raise SystemExit("as many shares as folders, 1 in all")
    heads, headers, weights = zip(*map(read, options.of))
    if any(header != headers[0] for header in headers):
        raise SystemExit("they differ in their tensors, or in the order of them")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.safetensors").write_bytes(heads[0] + average(weights, shares).tobytes())
    shutil.copyfile(Path(options.of[0]) / "config.json", out / "config.json")


if __name__ == "__main__":
    main()
