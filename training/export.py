"""From a checkpoint of training to a folder in Hugging Face's format (float16). The weights may be parted into pieces,
which --join puts together again.

    python3 training/export.py --model target --from DIR/full.pt --out OUT [--pieces 3]
    python3 training/export.py --join OUT
"""
import argparse
import json
import struct
from pathlib import Path


def join(folder):
    """model-*.safetensors -> model.safetensors, tensors in the order of their names. Needs no PyTorch."""
    tensors, metadata = {}, {}
    pieces = sorted(Path(folder).glob("model-*.safetensors"))
    if not pieces:
        raise SystemExit(f"{folder} has no model-*.safetensors")
    for piece in pieces:
        content = piece.read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8:8 + size])
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            tensors[name] = (entry, content[8 + size + begin:8 + size + end])
    offset = 0
    for name in sorted(tensors):
        entry, content = tensors[name]
        metadata[name] = {**entry, "data_offsets": [offset, offset + len(content)]}
        offset += len(content)
    header = json.dumps({"__metadata__": {"format": "pt"}, **metadata}).encode()
    header += b" " * (-len(header) % 8)
    with open(Path(folder) / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for name in sorted(tensors):
            file.write(tensors[name][1])
    for piece in pieces:
        piece.unlink()


def export(options):
    from model import DRAFTER, TARGET, Decoder, load_weights, save_checkpoint

    model = Decoder({"target": TARGET, "drafter": DRAFTER}[options.model])
    load_weights(model, options.source)
    save_checkpoint(model, options.out, options.pieces)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("target", "drafter"))
    parser.add_argument("--from", dest="source")
    parser.add_argument("--out")
    parser.add_argument("--pieces", type=int, default=1)
    parser.add_argument("--join", metavar="FOLDER")
    options = parser.parse_args()
    if options.join:
        join(options.join)
    elif options.model and options.source and options.out:
        export(options)
    else:
        parser.error("either --join, or --model, --from and --out")


if __name__ == "__main__":
    main()
