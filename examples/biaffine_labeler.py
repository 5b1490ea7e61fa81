"""Train the labeler of a dependency parser with torch.nn.Bilinear and with the fused layer: the losses are the same.

    python examples/biaffine_labeler.py [STEPS]

The model is the label classifier of Dozat and Manning, Deep Biaffine Attention for Neural Dependency Parsing, ICLR 2017
(arXiv 1611.01734). Two small networks look at a token and at its head; a bilinear layer has a score for each label. The
sizes are those of spaCy's arc labeler: 128 features of each, 45 labels. Tokens are random, labels are a teacher's.

Each layer is trained in a process of its own, from the same parameters, so that each has its own peak of memory.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bilinear_bench import Bilinear

Tensor = torch.Tensor
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a batch and of the model."""

    tokens: int = 2000
    features: int = 300
    hidden: int = 128
    labels: int = 45


@dataclasses.dataclass(frozen=True)
class Training:
    """Losses and seconds of each step, and the bytes by which memory grew at its peak; None where Linux is not."""

    losses: list[float]
    seconds: list[float]
    peak_bytes: int | None


class Labeler(torch.nn.Module):
    """Scores of labels for pairs of a token and its head.

    Args:
        sizes: Sizes of the model.
        bilinear: Class of the scorer: torch.nn.Bilinear or its replacement.
    """

    def __init__(self, sizes: Sizes, bilinear: Callable[[int, int, int], torch.nn.Bilinear]) -> None:
        super().__init__()
        self.of_token, self.of_head = (
            torch.nn.Sequential(torch.nn.Linear(sizes.features, sizes.hidden), torch.nn.LeakyReLU(0.1))
            for _ in ("token", "head")
        )
        self.score = bilinear(sizes.hidden, sizes.hidden, sizes.labels)  # the one line that changes

    def forward(self, tokens: Tensor, heads: Tensor) -> Tensor:
        """Return scores (n, labels) of tokens (n, features) and the numbers of their heads (n,)."""
        return self.score(self.of_token(tokens), self.of_head(tokens)[heads])


def train(bilinear: Callable[[int, int, int], torch.nn.Bilinear], sizes: Sizes, steps: int) -> Training:
    """Train from fixed initial parameters; a first step, which compiles, is not counted."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(sizes.tokens, sizes.features, generator=generator)
    heads = torch.randint(sizes.tokens, (sizes.tokens,), generator=generator)
    teacher = torch.randn(sizes.features, sizes.labels, generator=generator)
    labels = ((tokens + tokens[heads]) @ teacher).argmax(1)
    torch.manual_seed(0)
    model = Labeler(sizes, bilinear)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses, seconds, before = [], [], 0
    for number in range(steps + 1):
        if number == 1:
            before = _reset_peak()
        start = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(model(tokens, heads), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        losses.append(loss.item())
    peak = _memory("VmHWM")
    return Training(losses[1:], seconds[1:], None if peak is None else peak - before)


def _memory(field: str) -> int | None:
    """Return a number of bytes that Linux tells of this process; None elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def _reset_peak() -> int:
    """Let the peak begin at what this process has now, and return that in bytes."""
    peak = Path("/proc/self/clear_refs")
    if peak.exists():
        peak.write_text("5")
    return _memory("VmRSS") or 0


def main(sizes: Sizes = Sizes(), steps: int = 10) -> None:
    """Train with both layers, each in a process of its own; print losses, times and peaks of memory."""
    print(f"nn.Bilinear({sizes.hidden}, {sizes.hidden}, {sizes.labels}) over {sizes.tokens} tokens a step")
    context = multiprocessing.get_context("spawn")
    found = {}
    for name, kind in (("nn.Bilinear", torch.nn.Bilinear), ("fused", Bilinear)):
        with context.Pool(1) as pool:
            found[name] = pool.apply(train, (kind, sizes, steps))
    print(f"{'':12}  {'first loss':>10} {'last loss':>10}  {'step':>9}  {'peak memory':>12}")
    for name, one in found.items():
        peak = "unknown" if one.peak_bytes is None else f"{one.peak_bytes / MIB:.0f} MiB"
        milliseconds = 1e3 * statistics.median(one.seconds)
        print(f"{name:12}  {one.losses[0]:10.6f} {one.losses[-1]:10.6f}  {milliseconds:6.1f} ms  {peak:>12}")
    theirs, ours = found.values()
    difference = max(abs(one / other - 1) for one, other in zip(ours.losses, theirs.losses, strict=True))
    ratio = statistics.median(theirs.seconds) / statistics.median(ours.seconds)
    print(f"losses differ by {difference:.1e} at most; a step of the model is {ratio:.1f}x faster (medians)")


if __name__ == "__main__":
    main(steps=int(sys.argv[1]) if len(sys.argv) > 1 else 10)
