"""Mutators that know how an input is built, so that what they change is looked at.

Each is a `Mutator` of `harness.py`. Bytes that are not of the kind it knows are changed as bytes.
"""

import contextlib
import copy
import dataclasses
import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

from oasisvq.codec import container
from oasisvq.codec.headers import Kind, Outliers, SampleType
from oasisvq.codec.pixels import Window
from oasisvq.errors import CodesFileError
from oasisvq.scans.geometry import SLICINGS, Form, Slicing

ChangeBytes = Callable[[bytes], bytes]

NUMBERS = (0, 1, 2, 3, 7, 8, 64, 65, 255, 256, 32_767, 32_768, 65_535, 65_536)
LARGE_NUMBERS = (2**24, 2**26, 2**28, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**32)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-300, 5e-324, 1e300, 1e308, float("inf"), float("-inf"), float("nan"))
JSON_VALUES = (
    *(None, True, False, "", "x", "all", "32", "60:130", "../x", "\ud800", "x" * 300),
    *(*NUMBERS, *LARGE_NUMBERS, -1, -(2**63), 2**63, 10**400, 0.5, *FLOATS),
    *([], {}, [[]], [0], [1, 1], [1, 1, 1], [1, 1, 1, 1], ["x"], {"x": 0}),
)
WORDS = (b"", b"0", b"1", b"-1", b"1e9", b"1e999", b"nan", b"inf", b"9" * 16, b"1\\1", b"0\\0\\0", b"a")


def as_bytes(content: bytes, rng: random.Random, change_bytes: ChangeBytes) -> bytes:
    """Of bytes without a structure."""
    return change_bytes(content)


def with_crc(content: bytes) -> bytes:
    """The same with a right CRC-32 in the last four bytes."""
    return content[:-4] + struct.pack("<I", zlib.crc32(content[:-4])) if len(content) > 4 else content


def codes_file(content: bytes, rng: random.Random, change_bytes: ChangeBytes) -> bytes:
    """Of a `.codes` file; its CRC is right afterwards, mostly."""
    content = _other_header(content, rng) if rng.random() < 0.25 else change_bytes(content)
    return with_crc(content) if rng.random() < 0.95 else content


def _other_header(content: bytes, rng: random.Random) -> bytes:
    """Another value in one field of the header; the same bytes if there is no whole header."""
    try:
        file = container.read(content, "")
    except CodesFileError:
        return content
    header, number = file.header, rng.choice((*NUMBERS, *LARGE_NUMBERS))
    window = list(header.window)
    window[rng.randrange(4)] = rng.choice((number, rng.randrange(3)))
    label = min(number, 2**31 - 1)  # larger ones must be of the sample type
    changes: list[dict[str, Any]] = [
        {"kind": rng.choice(list(Kind))},
        {"sample_type": rng.choice(list(SampleType))},
        {"shape": rng.choice(((number, header.shape[1]), (header.shape[0], number), (number, number)))},
        {"stride": number},
        {"window": Window(*window)},
        {"levels": number},
        {"codebook_size": number},
        {"labels": rng.choice(((), (0,), (0, label), (-label, 0), tuple(range(number % 300 + 1))))},
        {"outliers": Outliers((rng.randrange(9), 9 + number), (rng.choice((-1, 1)) * label, 300))},
    ]
    if header.volume:
        ranges = list(header.volume.ranges)
        if ranges:
            ranges[rng.randrange(len(ranges))] = rng.choice(((0, 0), (0, 65_535), (number, number)))
        form = rng.choice(list(Form))
        header_bytes = header.volume.content.ljust(540, b"\0")[: form.header_bytes]
        volumes: list[dict[str, Any]] = [
            {"slices": number},
            {"ranges": tuple(ranges)},
            {"form": form, "content": header_bytes},
            {"content": numbers_in(header.volume.content, rng)},
            {"slicing": Slicing.of_number(rng.randrange(SLICINGS))},
        ]
        volume = dataclasses.replace(header.volume, **rng.choice(volumes))
        changes += [{"volume": volume}] * 4
        changes.append({"intensity": (rng.choice(FLOATS), rng.choice((*FLOATS, float(number))))})
    else:
        changes.append({"intensity": (rng.choice(NUMBERS), number)})
    # blocks of bytes that depend on the sample type are left to changes of bytes
    changed = dataclasses.replace(header.of_indices, **rng.choice(changes))
    if changed.stack and len(changed.stack.numbers) != changed.slices:  # it has a name for each slice
        changed = dataclasses.replace(changed, stack=None)
    return container.write(changed, file.payload)


def numbers_in(content: bytes, rng: random.Random, within: int | None = None) -> bytes:
    """Some numbers of two, four or eight bytes become others that are on an edge."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        size, order = rng.choice((2, 2, 4, 4, 4, 8)), rng.choice("<<>")
        end = min(within or len(changed), len(changed)) - size
        if end < 0:
            continue
        if size > 2 and rng.random() < 0.5:
            number = struct.pack(f"{order}{'f' if size == 4 else 'd'}", _float(rng, size))
        else:
            edge = rng.choice((*NUMBERS, *LARGE_NUMBERS)) * rng.choice((1, 1, -1))
            number = (edge % 2 ** (8 * size)).to_bytes(size, "little" if order == "<" else "big")
        at = rng.randrange(end + 1) & ~1
        changed[at : at + size] = number
    return bytes(changed)


def _float(rng: random.Random, size: int) -> float:
    chosen = rng.choice(FLOATS)
    return 3e38 if size == 4 and 1e40 < abs(chosen) < float("inf") else chosen


def json_text(content: bytes, rng: random.Random, change_bytes: ChangeBytes) -> bytes:
    """Of a JSON document."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return change_bytes(content)
    choice = rng.random()
    if choice < 0.1:
        return change_bytes(content)
    if choice < 0.11:
        return b"[" * 2000 + content
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        tree = _other_tree(tree, rng)
    return json.dumps(tree).encode()


def _other_tree(tree: Any, rng: random.Random) -> Any:
    """One node replaced, dropped, doubled or moved."""
    places: list[tuple[Any, Any]] = []  # (parent, key)
    pending = [tree]
    while pending:
        node = pending.pop()
        keys = range(len(node)) if isinstance(node, list) else node if isinstance(node, dict) else ()
        for key in keys:
            places.append((node, key))
            pending.append(node[key])
    if not places or rng.random() < 0.01:
        return copy.deepcopy(rng.choice(JSON_VALUES))
    parent, key = rng.choice(places)
    choice = rng.randrange(10)
    if choice < 6:
        parent[key] = _other_leaf(parent[key], rng)
    elif choice == 6:
        del parent[key]
    elif choice == 7:
        other, place = rng.choice(places)
        with contextlib.suppress(LookupError):  # the node may have been replaced
            parent[key] = copy.deepcopy(other[place])
    elif isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), parent[key])
    else:
        parent[rng.choice(("x", "", "test", "train", "validation", "size", str(key)))] = parent[key]
    return tree


def _other_leaf(leaf: Any, rng: random.Random) -> Any:
    if type(leaf) is int and rng.random() < 0.5:
        return leaf + rng.choice((-1, 1, 2, -leaf, leaf))
    if isinstance(leaf, str) and rng.random() < 0.3:
        at = rng.randrange(len(leaf) + 1)
        return leaf[:at] + rng.choice(("", "/", "\0", "\x1b[2J", "é", "0")) + leaf[at + 1 :]
    return copy.deepcopy(rng.choice(JSON_VALUES))


def safetensors_file(content: bytes, rng: random.Random, change_bytes: ChangeBytes) -> bytes:
    """Of a model file: its header, the config in it, or the tensors; the header's length is right."""
    try:
        length = int.from_bytes(content[:8], "little")
        header, tensors = json.loads(content[8 : 8 + length]), content[8 + length :]
        metadata = header["__metadata__"]["oasisvq"].encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return change_bytes(content)
    choice = rng.random()
    if choice < 0.45:
        changed = json_text(metadata, rng, change_bytes).decode("utf-8", "surrogateescape")
        header["__metadata__"]["oasisvq"] = changed
        text = json.dumps(header).encode()
    elif choice < 0.75:
        text = json_text(content[8 : 8 + length], rng, change_bytes)
    elif choice < 0.95:
        text, tensors = content[8 : 8 + length], change_bytes(tensors)
    else:
        return change_bytes(content)
    return len(text).to_bytes(8, "little") + text + tensors


def manifest_and_array(content: bytes, rng: random.Random, change_bytes: ChangeBytes) -> bytes:
    """Of a manifest, followed by a 0 and an array file."""
    manifest, separator, array = content.partition(b"\0")
    if rng.random() < 0.85:
        manifest = json_text(manifest, rng, change_bytes)
    else:
        array = change_bytes(array)
    return manifest + (separator or b"\0") + array


def image_file(content: bytes, rng: random.Random, change_bytes: ChangeBytes) -> bytes:
    """Of a PNG its chunks, whose CRCs are right; of other images the bytes or numbers in them."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or rng.random() < 0.05:
        return numbers_in(content, rng) if rng.random() < 0.3 else change_bytes(content)
    chunks, at = [], 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return change_bytes(content)
    place, choice = rng.randrange(len(chunks)), rng.random()
    name, body = chunks[place]
    if choice < 0.4:
        chunks[place] = name, change_bytes(body)
    elif choice < 0.6:
        chunks[place] = name, numbers_in(body, rng)
    elif choice < 0.7 and name == b"IDAT":
        try:
            chunks[place] = name, zlib.compress(change_bytes(zlib.decompress(body)), 1)
        except zlib.error:
            chunks[place] = name, change_bytes(body)
    elif choice < 0.8:
        chunks.insert(rng.randrange(len(chunks) + 1), chunks[place])
    elif choice < 0.9:
        del chunks[place]
    else:
        other = rng.choice((b"tRNS", b"PLTE", b"acTL", b"fcTL", b"eXIf", b"iTXt", b"zTXt", b"gAMA"))
        chunks.insert(rng.randrange(len(chunks) + 1), (other, change_bytes(body[:40])))
    return content[:8] + b"".join(map(_chunk, chunks))


def _chunk(chunk: tuple[bytes, bytes]) -> bytes:
    name, body = chunk
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def volume_file(content: bytes, rng: random.Random, change_bytes: ChangeBytes) -> bytes:
    """Of a volume: numbers in its header, or any bytes."""
    return numbers_in(content, rng, 544) if rng.random() < 0.6 else change_bytes(content)


def dicom_file(content: bytes, rng: random.Random, change_bytes: ChangeBytes) -> bytes:
    """Of a DICOM file in explicit little-endian form its elements, whose lengths are right."""
    elements = _elements(content)
    if not elements or rng.random() < 0.2:
        return change_bytes(content)
    place, choice = rng.randrange(len(elements)), rng.random()
    head, body = elements[place]
    if choice < 0.3:
        elements[place] = head, change_bytes(body)
    elif choice < 0.5:
        elements[place] = head, rng.choice(WORDS)
    elif choice < 0.7:
        elements[place] = head, numbers_in(body, rng)
    elif choice < 0.8:
        elements[place] = head[:4] + rng.choice((b"US", b"DS", b"IS", b"UI", b"FD", b"SS")), body
    elif choice < 0.9:
        del elements[place]
    else:
        elements.insert(rng.randrange(len(elements)), elements[place])
    return content[:132] + b"".join(_element(head, body) for head, body in elements)


def _has_long_length(head: bytes) -> bool:
    return head[4:6] in (b"OB", b"OW", b"OF", b"SQ", b"UN", b"UT")


def _elements(content: bytes) -> list[tuple[bytes, bytes]]:
    """(tag and type, value) of each element after the preamble; the last one takes what is left."""
    elements, at = [], 132
    while at + 8 <= len(content):
        head = content[at : at + 6]
        if _has_long_length(head):
            length, start = int.from_bytes(content[at + 8 : at + 12], "little"), at + 12
        else:
            length, start = int.from_bytes(content[at + 6 : at + 8], "little"), at + 8
        end = min(start + length, len(content))
        elements.append((head, content[start:end]))
        at = end
    return elements


def _element(head: bytes, body: bytes) -> bytes:
    if head[:4] == b"\xe0\x7f\x10\x00" and body.startswith(b"\xfe\xff\x00\xe0"):  # compressed frames
        return head + b"\0\0" + b"\xff" * 4 + body
    body += b" " * (len(body) % 2)
    if _has_long_length(head):
        return head + b"\0\0" + struct.pack("<I", len(body)) + body
    return head + struct.pack("<H", min(len(body), 65_535)) + body
