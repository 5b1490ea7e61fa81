"""Train Deep Graph Infomax with torch.nn.Bilinear, then with the fused layer in its place: the losses are the same.

    python examples/deep_graph_infomax.py [EPOCHS]

The model is that of Velickovic et al., Deep Graph Infomax, ICLR 2019 (arXiv 1809.10341). One graph convolution encodes
the nodes, and their mean summarises the graph. A bilinear discriminator separates nodes of the graph from nodes of a
shuffled graph. The graph is random, with Cora's sizes: 2708 nodes, 5429 edges, 1433 words of which a node has 18. Both
runs start from the same parameters and see the same shuffles.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from bilinear_bench import Bilinear

Tensor = torch.Tensor


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the graph and of the model."""

    nodes: int = 2708
    edges: int = 5429
    words: int = 1433
    words_of_a_node: int = 18
    hidden: int = 512


@dataclasses.dataclass
class Epoch:
    """Seconds of an epoch and of its discriminator calls, and the epoch's loss."""

    seconds: float
    discriminator_seconds: float
    loss: float


class DeepGraphInfomax(torch.nn.Module):
    """Encoder, summary and discriminator.

    Args:
        sizes: Sizes of the graph and of the model.
        bilinear: Class of the discriminator: torch.nn.Bilinear or its replacement.
    """

    def __init__(self, sizes: Sizes, bilinear: Callable[[int, int, int], torch.nn.Bilinear]) -> None:
        super().__init__()
        self.encode = torch.nn.Linear(sizes.words, sizes.hidden, bias=False)
        self.activate = torch.nn.PReLU()
        self.discriminate = bilinear(sizes.hidden, sizes.hidden, 1)  # the one line that changes
        torch.nn.init.xavier_uniform_(self.discriminate.weight)
        torch.nn.init.zeros_(self.discriminate.bias)

    def forward(self, features: Tensor, shuffled: Tensor, adjacency: Tensor) -> Tensor:
        """Return logits (2 n,): for nodes (n, words) of the graph, then for nodes of the shuffled graph."""
        real, fake = (self.activate(adjacency @ self.encode(words)) for words in (features, shuffled))
        summary = torch.sigmoid(real.mean(0)).expand_as(real)
        return torch.cat([self.discriminate(real, summary), self.discriminate(fake, summary)]).squeeze(1)


def graph(sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Return features (n, words), each row of sum 1, and the adjacency D^-1/2 (A + 1) D^-1/2 (n, n), sparse."""
    generator = torch.Generator().manual_seed(0)
    words = torch.rand(sizes.nodes, sizes.words, generator=generator).topk(sizes.words_of_a_node).indices
    features = torch.zeros(sizes.nodes, sizes.words).scatter_(1, words, 1 / sizes.words_of_a_node)
    one, other = torch.randint(sizes.nodes, (2, sizes.edges), generator=generator)
    itself = torch.arange(sizes.nodes)
    positions = torch.stack([torch.cat([one, other, itself]), torch.cat([other, one, itself])]).unique(dim=1)
    degrees = positions[0].bincount(minlength=sizes.nodes).float()
    weights = (degrees[positions[0]] * degrees[positions[1]]).rsqrt()
    return features, torch.sparse_coo_tensor(positions, weights, (sizes.nodes,) * 2, check_invariants=True).coalesce()


def train(bilinear: Callable[[int, int, int], torch.nn.Bilinear], sizes: Sizes, epochs: int) -> list[Epoch]:
    """Train the model from fixed initial parameters; return the epochs."""
    features, adjacency = graph(sizes)
    torch.manual_seed(0)
    model = DeepGraphInfomax(sizes, bilinear)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    labels = torch.cat([torch.ones(sizes.nodes), torch.zeros(sizes.nodes)])
    done = []
    with discriminator_seconds(model.discriminate) as spent:
        for _ in range(epochs):
            start, before = time.perf_counter(), sum(spent)
            shuffled = features[torch.randperm(sizes.nodes)]
            logits = model(features, shuffled, adjacency)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done.append(Epoch(time.perf_counter() - start, sum(spent) - before, loss.item()))
    return done


@contextmanager
def discriminator_seconds(module: torch.nn.Module) -> Iterator[list[float]]:
    """Collect the seconds of each call of a module and of its backward, by hooks."""
    spent: list[float] = []
    begun: list[float] = []

    def begin(*_: object) -> None:
        begun.append(time.perf_counter())

    def end(*_: object) -> None:
        spent.append(time.perf_counter() - begun.pop())

    hooks = [
        module.register_forward_pre_hook(begin),
        module.register_forward_hook(end),
        module.register_full_backward_pre_hook(begin),
        module.register_full_backward_hook(end),
    ]
    yield spent
    for hook in hooks:
        hook.remove()


def main(sizes: Sizes = Sizes(), epochs: int = 5) -> None:
    """Train with both layers; print losses and times."""
    print(f"nn.Bilinear({sizes.hidden}, {sizes.hidden}, 1) over {sizes.nodes} nodes, twice an epoch")
    train(Bilinear, sizes, 1)  # compiles
    ours, theirs = train(Bilinear, sizes, epochs), train(torch.nn.Bilinear, sizes, epochs)
    print(f"{'epoch':>5}  {'loss':>10} {'fused':>10}  {'discriminator':>14} {'fused':>9}  {'epoch':>9} {'fused':>9}")
    for number, (fused, plain) in enumerate(zip(ours, theirs, strict=True), start=1):
        print(
            f"{number:>5}  {plain.loss:10.7f} {fused.loss:10.7f}  {plain.discriminator_seconds * 1e3:11.1f} ms "
            f"{fused.discriminator_seconds * 1e3:6.1f} ms  {plain.seconds * 1e3:6.0f} ms {fused.seconds * 1e3:6.0f} ms"
        )
    difference = max(abs(fused.loss / plain.loss - 1) for fused, plain in zip(ours, theirs, strict=True))
    fused, plain = (statistics.median(epoch.discriminator_seconds for epoch in run) for run in (ours, theirs))
    print(f"losses differ by {difference:.1e} at most; the discriminator is {plain / fused:.0f}x faster (medians)")


if __name__ == "__main__":
    main(epochs=int(sys.argv[1]) if len(sys.argv) > 1 else 5)
