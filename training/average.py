"""The mean of two checkpoints' weights (Wortsman et al., 2022, "Model soups"), tensor by tensor. For a checkpoint and
one that was trained on from it: the mean keeps most of what either does better. Needs no PyTorch.

    python3 training/average.py --first FOLDER --second FOLDER --share 0.5 --out FOLDER

--share is the second's. Folders hold model.safetensors (float16); config.json is copied from the first.
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


def average(first, second, share):
    """[n] and [n] -> [n], all float16; the mean itself in float32"""
    return (first.astype(np.float32) * (1 - share) + second.astype(np.float32) * share).astype(np.float16)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", required=True)
    parser.add_argument("--second", required=True)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    head, header, first = read(options.first)
    _, second_header, second = read(options.second)
    if header != second_header:
        raise SystemExit("the two differ in their tensors, or in the order of them")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.safetensors").write_bytes(head + average(first, second, options.share).tobytes())
    shutil.copyfile(Path(options.first) / "config.json", out / "config.json")


if __name__ == "__main__":
    main()
