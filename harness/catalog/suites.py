"""Named lists of cases, each with the source of its sizes.

A batch that depends on the data is marked as typical: it is estimated from the model's configuration. Cases are in mode
``forward`` here; the command line adds the modes.

Length: it is the table of all cases.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Final

from harness.case import DTYPES, Case
from harness.catalog.suggest import suggestion


class SuiteError(ValueError):
    """A suite that does not exist, or options that contradict each other. The message lists what exists."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A case of a suite.

    Attributes:
        label: Name that people use.
        source: Origin of the sizes.
        case: The case, in mode ``forward``.
    """

    label: str
    source: str
    case: Case


@dataclasses.dataclass(frozen=True, slots=True)
class Suite:
    """A named list of cases, with defaults for the options of a run.

    Attributes:
        name: Text that ``--suite`` takes.
        purpose: Purpose in a few words.
        entries: Cases in the order of measuring.
        target: Half-width of the intervals at which measuring stops, as a share of the ratio.
        band: Half-width of the equivalence band, as a share of the ratio.
        budget_seconds: Measuring time of a case in one mode on one device, in seconds.
        processes: Largest number of fresh processes of a backend in a case.
        core: True if a run without ``--backend`` measures the core set instead of all backends.
    """

    name: str
    purpose: str
    entries: tuple[Entry, ...]
    target: float = 0.02
    band: float = 0.02
    budget_seconds: float = 30.0
    processes: int = 40
    core: bool = False


def suite(name: str) -> Suite:
    """Return the suite of a name.

    Raises:
        SuiteError: No suite has that name.
    """
    if name not in SUITES:
        raise SuiteError(f"suite {name!r} is unknown{suggestion(name, SUITES)}")
    return SUITES[name]


@functools.cache
def labels(first: str = "") -> Mapping[str, str]:
    """Return what people call the cases, by the text of each case in each arithmetic, with bias and without.

    Args:
        first: Name of the suite whose labels count where several suites have a case.
    """
    arithmetic = [*((dtype, "ieee") for dtype in DTYPES), ("float32", "tf32")]
    # Of several suites the last one counts, but for the first of all.
    suites = [*(listed for name, listed in SUITES.items() if name == first), *reversed(SUITES.values())]
    # First each case as its suite has it, then the same sizes with the bias added or left out.
    named: dict[str, str] = {}
    for changed in (False, True):
        for entry in (entry for listed in suites for entry in listed.entries):
            for dtype, precision in arithmetic:
                bias = entry.case.bias != changed
                case = dataclasses.replace(entry.case, dtype=dtype, precision=precision, bias=bias)
                named.setdefault(case.name, entry.label)
    return named


_SEED = Entry(
    "nn.Bilinear's example",
    "PyTorch documentation of torch.nn.Bilinear, rewritten in NumPy by the article that this project grew from",
    Case(128, 20, 30, 40),
)
_SIMGNN = Entry(
    "SimGNN",
    "benedekrozemberczki/SimGNN, layers.py (TensorNetworkModule): one pair of graphs at a time",
    Case(1, 32, 32, 16),
)
_COLA = Entry("CoLA", "GRAND-Lab/CoLA, model.py and run.py: batch 300, embedding 64", Case(300, 64, 64, 1))
_SPACY = Entry(
    "spaCy arc labeler",
    "explosion/spacy-experimental, biaffine_parser/pytorch_bilinear.py; typical batch and labels (data-dependent)",
    Case(1024, 128, 128, 45),
)
_DGI = Entry(
    "Deep Graph Infomax",
    "PetarV-/DGI, layers/discriminator.py and execute.py: the 2708 nodes of Cora, hidden size 512",
    Case(2708, 512, 512, 1),
)
# TuckER has no bias; it keeps one here so that the six cases differ in their sizes alone.
_TUCKER = Entry(
    "TuckER",
    "ibalazevic/TuckER, model.py and README.md: batch 128, entity and relation size 200",
    Case(128, 200, 200, 200),
)

# Left out of `models`, since they are not this contraction row by row: all-pairs biaffine parsers (supar, W2NER), ATLOP
# (sums over blocks), PyKEEN's NTN (a weight of its own for every row), OuterProductMean (sums over sequences first).
_MODELS = (
    _DGI,
    Entry(
        "MVGRL",
        "kavehhassani/mvgrl, node/train.py: 4 subgraphs of 2000 nodes, hidden size 512",
        Case(8000, 512, 512, 1),
    ),
    _COLA,
    Entry(
        "DocRED BiLSTM",
        "thunlp/DocRED, code/models/BiLSTM.py, config/Config.py; typical 16000 of at most 72000 pairs (data-dependent)",
        Case(16000, 148, 148, 97),
    ),
    Entry(
        "SSAN",
        "BenfengXu/SSAN, model/modeling_bert.py, run_docred.py: 4 documents of 42 x 42 pairs in training",
        Case(7056, 128, 128, 97),
    ),
    Entry(
        "AllenNLP biaffine tags",
        "allenai/allennlp-models, biaffine_dependency_parser.py, dependency_parser.jsonnet; typical batch and labels",
        Case(3300, 100, 100, 46),
    ),
    _SPACY,
    Entry(
        "stanza tagger",
        "stanfordnlp/stanza, models/common/biaffine.py, pos/model.py; at most 5000 tokens; typical 50 tags (estimate)",
        Case(5000, 401, 51, 50),
    ),
    Entry(
        "BLOCK fusion, attention",
        "Cadene/block.bootstrap.pytorch, networks/fusions/fusions.py, options/vqa2/block_tucker.yaml: 64 x 36 regions",
        Case(2304, 180, 180, 180),
    ),
    Entry(
        "BLOCK fusion, classifier",
        "Cadene/block.bootstrap.pytorch, networks/fusions/fusions.py, options/vqa2/block_tucker.yaml: batch 64",
        Case(64, 180, 180, 180),
    ),
    Entry(
        "stanza transition parser",
        "stanfordnlp/stanza, depparse/transition/model.py: hidden size 2 x 400; typical 64 states a step (estimate)",
        Case(64, 800, 800, 800),
    ),
    Entry(_TUCKER.label, _TUCKER.source, dataclasses.replace(_TUCKER.case, bias=False)),
    Entry(
        "DimeNet",
        "pytorch_geometric, nn/models/dimenet.py, and gasteigerjo/dimenet, config.yaml; typical 120000 triplets",
        Case(120000, 8, 128, 128, bias=False),
    ),
    Entry(
        "MACE skip connection",
        "ACEsuit/mace, modules/blocks.py; float64 is its default; typical 10000 atoms, 89 elements (data-dependent)",
        Case(10000, 128, 89, 128, dtype="float64", bias=False),
    ),
    _SIMGNN,
    # Its bias belongs to the node, not to the layer, so this case has none.
    Entry(
        "AGCRN",
        "LeiBAI/AGCRN, model/AGCN.py, PEMSD4 configuration: 64 x 307 nodes, embedding 10, 2 x (1 + 64) features",
        Case(19648, 10, 130, 128, bias=False),
    ),
)

_FLAGGEMS = "flagos-ai/FlagGems, pull request 5480, benchmark/test_bilinear.py"
_PUBLISHED = tuple(
    Entry(f"FlagGems {number}", _FLAGGEMS, Case(*sizes))
    for number, sizes in enumerate(
        (
            (256, 64, 64, 128),
            (512, 128, 128, 256),
            (1024, 64, 48, 96),
            (128, 256, 256, 128),
            (2048, 32, 32, 64),
        ),
        start=1,
    )
)

# Cases that fill a GPU: the models at their real sizes, in float32. SimGNN and CoLA are one launch for any kernel. The
# stanza transition parser has gradients of 2 GB, which take longer to check than all other cases together.
_NOT_FOR_GPUS = (_SIMGNN.label, _COLA.label, "stanza transition parser")
_GPU = (
    *(
        dataclasses.replace(entry, case=dataclasses.replace(entry.case, dtype="float32"))
        for entry in _MODELS
        if entry.label not in _NOT_FOR_GPUS
    ),
    *_PUBLISHED,
)

_SAMPLES = "PyTorch, torch/testing/_internal/common_methods_invocations.py (sample_inputs_bilinear)"
_MODULES = "PyTorch, torch/testing/_internal/common_modules.py (module_inputs_torch_nn_Bilinear)"
_TESTS = "PyTorch, test/test_nn.py"
_UPSTREAM = (
    *(
        Entry(f"operator sample, leading dimensions {leading}", _SAMPLES, Case(batch, *sizes, bias=bias))
        for sizes in ((3, 4, 5), (8, 8, 8))
        # A single row without a batch dimension is flattened to a batch of 1, and 2 x 3 to 6.
        for leading, batch in (("()", 1), ("(0,)", 0), ("(8,)", 8), ("(2, 3)", 6))
        for bias in (True, False)
    ),
    Entry("module", _MODULES, Case(8, 2, 3, 4)),
    Entry("module without bias", _MODULES, Case(8, 2, 3, 4, bias=False)),
    Entry("module without batch", _MODULES, Case(1, 2, 3, 4)),
    Entry("test_bilinear", _TESTS, Case(4, 10, 10, 8)),
    Entry("test_bilinear_no_bias", _TESTS, Case(4, 10, 10, 8, dtype="float64", bias=False)),
    # The fifth test, test_bilinear_value_error, wants sizes of 0 refused: no case can have them.
    # The inputs are transposed there, (4, 10, 7) in the end: 40 rows.
    Entry("test_bilinear_non_contiguous", _TESTS, Case(40, 7, 7, 5)),
    Entry("test_bilinear_broadcasting", _TESTS, Case(6, 5, 6, 8)),
)

_SWEEP = "powers of two, for how the cost grows"
_BATCH_SWEEP = tuple(
    Entry(f"batch {2**power} at {features} features", _SWEEP, Case(2**power, features, features, 32))
    for features in (16, 64, 256)
    for power in range(17)
)
_FEATURE_SWEEP = tuple(
    Entry(f"{2**power} features", _SWEEP, Case(512, 2**power, 2**power, 32)) for power in range(3, 11)
)

#: What `run --quick` measures, and its defaults for another case.
ONE_LAYER: Final = Suite(
    "command-line",
    "one layer, within about a minute",
    (_SEED,),
    target=0.05,
    band=0.05,  # one process cannot tell less
    budget_seconds=8.0,
    processes=1,
    core=True,
)

SUITES: Final[dict[str, Suite]] = {
    listed.name: listed
    for listed in (
        Suite("seed", "the example that this project grew from", (_SEED,)),
        Suite(
            "quick",
            "six shapes that differ, in a few minutes",
            (_SEED, _SIMGNN, _COLA, _SPACY, _DGI, _TUCKER),
            target=0.05,
            band=0.05,  # one process cannot tell less: see docs/how-it-measures.md
            budget_seconds=5.0,
            processes=1,
            core=True,
        ),
        Suite("models", "what published models compute", _MODELS),
        Suite("published", "the shapes of the one published GPU kernel for this operator", _PUBLISHED),
        Suite(
            "gpu",
            "shapes that fill a GPU; see --dtype and --precision",
            _GPU,
            target=0.05,
            band=0.05,  # one process: starting eight frameworks on a GPU takes longer than measuring
            budget_seconds=10.0,
            processes=1,
        ),
        Suite("upstream", "the shapes of PyTorch's own tests; best with `check`", _UPSTREAM),
        # The curve over many cases counts, not the precision of one case.
        Suite(
            "batch-sweep",
            "batch 1 to 65536 at three sizes of features; see `report --plot`",
            _BATCH_SWEEP,
            target=0.05,
            band=0.05,
            budget_seconds=3.0,
            processes=1,
        ),
        Suite(
            "feature-sweep",
            "8 to 1024 features; see `report --plot`",
            _FEATURE_SWEEP,
            target=0.05,
            band=0.05,
            budget_seconds=3.0,
            processes=1,
        ),
    )
}
