"""What `penstock simulate` found, for people: a line a question."""

from __future__ import annotations

from typing import Any

from .funnel import bytes_text

Json = dict[str, Any]


def simulate_table(found: Json) -> str:
    """Lay out what was found."""
    lines = [("asked", _asked(found["setting"])), ("epoch", _epoch(found["epoch"]))]
    for number, (name, stream) in enumerate(found["streams"].items()):
        lines.append(("" if number else "streams", f"{name}  {_stream(stream)}"))
    lines += [
        ("reads", _reads(found["reads"])),
        ("a step", _step(found["step"])),
        ("cache", _cache(found["cache"])),
        ("network", _network(found["network"])),
        ("start", _start(found["start"])),
        ("shuffle", _shuffle(found["shuffle"])),
        *(("note", note) for note in found["notes"]),
    ]
    return "\n".join(f"{name:<10}{line}" for name, line in lines)


def _asked(asked: Json) -> str:
    who = f"{asked['nodes']:,} nodes of {asked['ranks_per_node']} ranks"
    what = f"batches of {asked['batch_size']:,} rows of {asked['pack']}, {asked['shuffle']} shuffle"
    long = f"{asked['steps']:,} steps of {asked['step_seconds']:.3g} s"
    return f"{who}, {what}, {long} ({asked['tokens_per_second']:,.0f} tokens/s a rank)"


def _epoch(epoch: Json) -> str:
    return f"{epoch['rows']:,} rows: {epoch['steps']:,} steps, and {epoch['tail_rows']:,} rows left over"


def _stream(stream: Json) -> str:
    size = f"{stream['rows']:,} rows in {stream['blocks']:,} blocks, {stream['lanes']} lanes"
    return f"share {stream['share']:.4f}, {stream['epochs']:.4g} epochs of {size}"


def _reads(reads: Json) -> str:
    how = "every row counted" if reads["exact"] else f"± {reads['standard_error']:.4f}, blocks sampled"
    who = f"a block by {reads['amplification']:.4f} nodes ({how}) and by {reads['ranks_a_block']:.4f} ranks"
    return f"{who}; of a full shuffle by {reads['of_a_full_shuffle']:.4g} nodes"


def _step(step: Json) -> str:
    size = f"{step['blocks_a_node']:,} blocks a node, {bytes_text(step['bytes_a_node'])}"
    return f"{size}; {step['new_blocks_a_node']:.4g} of them new; {step['rows_a_rank']:g} rows a rank"


def _cache(cache: Json) -> str:
    live = f"{bytes_text(cache['live_bytes_a_node'])} a node are wanted again at any time"
    sizes = [f"{reads} times with {bytes_text(size)}" for reads, size in cache["lru_bytes_a_node"].items()]
    return f"{live}; LRU caches on each node: a block is read {', '.join(sizes)}"


def _network(network: Json) -> str:
    node, everything = bytes_text(network["bytes_a_second_a_node"]), bytes_text(network["bytes_a_second"])
    bare = bytes_text(network["without_cache_a_node"])
    return f"{node}/s a node, {everything}/s in all; without a cache {bare}/s a node"


def _start(start: Json) -> str:
    first, rate = bytes_text(start["first_step_bytes_a_node"]), bytes_text(start["bytes_a_second_a_node"])
    return f"{first} a node before the first step, {bytes_text(start['bytes_a_node'])} in {start['steps']} ({rate}/s)"


def _shuffle(shuffle: Json) -> str:
    ratio = f"{shuffle['variance']:.3f} (± {shuffle['variance_error']:.3f})"
    line = f"sources of sorted data vary {ratio} times as much in a batch as by a true permutation"
    if (beside := shuffle.get("neighbours")) is None:
        return line
    apart = f"rows stored side by side come {beside['steps']:,} steps apart in the median"
    how = f"{beside['distance']:.2%} of a true permutation's distance, {beside['in_one_batch']:.3%} in one batch"
    return f"{line}; {apart}, {how}"
