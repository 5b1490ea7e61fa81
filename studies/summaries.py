"""Summaries of the committed runs and studies, for the pages in ``docs/``.

    python studies/summaries.py

A block between ``<!-- summary: NAME PATH -->`` and ``<!-- end -->`` is replaced by the summary of that name. A test
holds every block to its files. Paths are relative to the root of the repository.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import busy_machine
import false_alarms
import kills
import numpy as np
import pandas as pd
import power

from harness.output import format as form
from harness.output.tables import KNOWN_WITHIN

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- summary: (\S+) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
BASELINE = "torch-bilinear"
#: Backends of other projects' techniques, with which the fused kernel is compared.
PEERS = (BASELINE, "torch-einsum", "torch-compile", "jax-jit", "opt-einsum")
MODES = {"forward": "forward", "forward_backward": "step"}
#: The mutants of ``gap.py``, in words.
ARITHMETIC = {
    "mutant-tf32": "operands in tf32",
    "mutant-float16-scaled": "operands in float16",
    "mutant-bfloat16": "operands in bfloat16",
    "mutant-float16-sums": "sums in float16",
    "mutant-drops-term": "one of the terms left out",
    "mutant-last-element": "one term of the last element left out",
    "mutant-grad-input1-tf32": "grad_input1 from tf32 operands",
    "mutant-grad-weight-bfloat16": "grad_weight from bfloat16 operands",
}


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    names = list(header)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def coverage(path: Path) -> str:
    """Return the coverage of the 99 % interval by kind of noise and plan, and the worst rate of wrong signs."""
    rows = pd.read_csv(path)
    plans = list(rows["plan"].unique())
    header = ["noise", *(text for plan in plans for text in (f"`{plan}`", "stopped by its target"))]
    body = []
    for kind, of_kind in rows.groupby("kind", sort=False):
        cells = []
        for plan in plans:
            row = of_kind[of_kind["plan"] == plan]
            shares = [row[name].iloc[0] if len(row) else np.nan for name in ("covered", "covered_by_target")]
            cells += [percent(share, 2) if share == share else "-" for share in shares]
        body.append([str(kind), *cells])
    least, stopped, wrong = rows["covered"].min(), rows["covered_by_target"].min(), rows["wrong_sign"].max()
    words = (
        f"Traces of each kind: {rows['traces'].min():,}. "
        f"Least coverage: {percent(least, 2)}, and {percent(stopped, 2)} of those stopped by their target. "
        f"Most verdicts of the wrong sign: {percent(wrong, 2)}."
    )
    return f"{table(header, body)}\n\n{words}"


def chosen(path: Path) -> str:
    """Return how often the first group is right, and how long it takes, by noise."""
    rows = pd.read_csv(path)
    body = [
        [
            f"`{row.noise}`",
            percent(row.best_missed, 2),
            percent(row.far_slower_in_first_group, 1),
            f"{row.seconds_until_near:.1f} s",
            f"{row.equal_shares_seconds:.1f} s",
            percent(row.undecided, 1),
        ]
        for row in rows.itertuples()
    ]
    header = ("noise", "best missed", "far slower in it", "time", "time with equal shares", "undecided")
    return f"{table(header, body)}\n\nRuns of each noise: {rows['runs'].min():,}."


def known_answer(path: Path) -> str:
    """Return the errors of the clock: known durations, and twice the calls."""
    rows = pd.read_csv(path)
    body = [
        [row.what, row.backend, f"{row.given:g}", f"{row.measured:.5g}", f"{row.off * 100:+.2f} %"]
        for row in rows.itertuples()
    ]
    return table(["what", "backend", "true", "measured", "off"], body)


def alarms(path: Path) -> str:
    """Return the rate of false alarms."""
    return false_alarms.summary(pd.read_csv(path)["comparison"].tolist())


def seen(path: Path) -> str:
    """Return the rate of differences seen, and the time that a run took."""
    rows = pd.read_csv(path)
    seconds = rows["seconds_to_target"]
    took = (
        f"The target was reached after {seconds.min():.0f} to {seconds.max():.0f} s (median {seconds.median():.0f} s)."
    )
    estimates = f"The estimates are {rows['speedup'].min():.3f} to {rows['speedup'].max():.3f}."
    return f"{power.summary(rows['comparison'].tolist())} {took} {estimates}"


def peers(path: Path) -> str:
    """Return how far each tool's ratio of nn.Bilinear to itself is from 1."""
    rows = pd.read_csv(path)
    off = (rows["ratio"] - 1).abs()
    body = [
        [tool, f"{len(one)}", percent(one.median(), 1), percent(one.quantile(0.9), 1), percent(one.max(), 1)]
        for tool, one in off.groupby(rows["tool"], sort=False)
    ]
    return table(["tool", "runs", "off by, median", "90 % of the runs within", "at most"], body)


def fairness(path: Path) -> str:
    """Return how far the ratio of nn.Bilinear to itself is from 1, with and without stopping idle workers."""
    rows = pd.read_csv(path, keep_default_na=False)
    off = (rows["ratio"] - 1).abs()
    body = [
        [neighbours, "stopped" if frozen else "running", f"{len(one)}", percent(one.median(), 1), percent(one.max(), 1)]
        for (neighbours, frozen), one in off.groupby([rows["neighbours"], rows["frozen"]], sort=False)
    ]
    return table(["neighbours", "idle workers", "runs", "off by, median", "at most"], body)


def false_rejections(path: Path) -> str:
    """Return how many honest answers were judged, and how many rejected."""
    rows = pd.read_csv(path)
    return (
        f"{rows['seeds'].sum():,} answers of {rows['backend'].nunique()} backends were judged, "
        f"{rows['refused'].sum()} were rejected. "
        f"The largest `max_error_over_bound` was {rows['error_over_bound'].max():.2f}."
    )


def gap(path: Path) -> str:
    """Return `max_error_over_bound`: the largest of honest backends, the least of wrong ones (bold)."""
    rows = pd.read_csv(path)
    shapes = sorted(rows["shape"].unique(), key=lambda shape: [int(size) for size in shape.split("x")])
    by_row = rows.set_index(["backend", "mode", "shape"])
    body = []
    for backend, mode in sorted(
        set(by_row.index.droplevel("shape")), key=lambda key: (key[0] in ARITHMETIC, key[::-1])
    ):
        wrong = backend in ARITHMETIC
        figures = [f"{by_row.loc[(backend, mode, shape), 'least' if wrong else 'largest']:.3g}" for shape in shapes]
        bold = [f"**{cell}**" if wrong else cell for cell in (ARITHMETIC.get(backend, backend), *figures)]
        body.append([bold[0], MODES[mode], *bold[1:]])
    return table(["backend", "mode", *shapes], body)


def speed(path: Path) -> str:
    """Return what a run says of `numba-fused`: speed-ups in geometric mean, and shares of the roofline."""
    rows = pd.read_csv(path / "records.csv")
    fused = rows[rows["backend"] == "numba-fused"].set_index("case")
    times = rows.pivot_table(index="case", columns="backend", values="median_seconds")
    best = times[times.columns.intersection(PEERS)].min(axis=1)
    body = [
        ["cases", f"{len(fused)}"],
        ["among the fastest", f"{(fused['rank'] == 1).sum()}"],
        ["times as fast as nn.Bilinear", f"{geometric(fused['speedup']):.2g}"],
        ["times as fast as the best of the peers", f"{geometric(best / times['numba-fused']):.2g}"],
    ]
    for name, low, high in (("1 GFLOP and more", 1, np.inf), ("10 MFLOP to 1 GFLOP", 0.01, 1)):
        of_size = fused["roofline_fraction"][(fused["gflop"] >= low) & (fused["gflop"] < high)]
        share = f"{percent(of_size.min(), 0)} to {percent(of_size.max(), 0)}, median {percent(of_size.median(), 0)}"
        body.append([f"% of roofline, {name} ({len(of_size)} cases)", share])
    return table(["`numba-fused`", "geometric mean or count"], body)


def geometric(ratios: pd.Series) -> float:
    """Return the geometric mean of the ratios that are not missing."""
    return float(np.exp(np.log(ratios.dropna()).mean()))


def roofline(path: Path) -> str:
    """Return the share of the roofline of every backend in the four largest cases of a run: forward, step."""
    rows = pd.read_csv(path / "records.csv")
    rows = rows[rows["status"] == "timed"]
    sizes = rows.drop_duplicates("case").nlargest(4, "gflop").sort_values("gflop")
    narrow = rows["spot_roofline_fraction_high"] <= KNOWN_WITHIN * rows["spot_roofline_fraction_low"]
    shares = rows.assign(share=rows["spot_roofline_fraction"].where(narrow, rows["roofline_fraction"]))
    pivot = shares.pivot_table(index="backend", columns=["case", "mode"], values="share")
    ranking = pivot.xs("forward", axis=1, level="mode").mean(axis=1).sort_values().index
    body = [
        [
            f"`{backend}`",
            *(", ".join(form.percent(pivot.loc[backend, (case, mode)]) for mode in MODES) for case in sizes["case"]),
        ]
        for backend in ranking
    ]
    return table(["% of roofline: forward, step", *sizes["case"]], body)


def percent(share: float, decimals: int) -> str:
    """Return a share in percent, with a number of decimals."""
    return f"{share * 100:.{decimals}f} %"


def gpu(path: Path) -> str:
    """Return a GPU run in one table: nn.Bilinear, the best other, `triton-fused` and its share of the device."""
    rows = pd.read_csv(path / "records.csv")
    rows = rows[rows["status"] == "timed"]
    body = []
    for (case, mode), group in rows.groupby(["case", "mode"], sort=False):
        one = group.set_index("backend")
        if not {BASELINE, "triton-fused"} <= set(one.index):
            continue
        best = one["median_seconds"].drop([BASELINE, "triton-fused"]).min()
        ours = one.loc["triton-fused"]
        seconds = (one.loc[BASELINE, "median_seconds"], best, ours["median_seconds"], ours["graph_seconds"])
        times = (form.seconds(value) for value in seconds)
        body.append([case, MODES[mode], *times, form.percent(ours["roofline_fraction"])])
    header = ["case", "mode", "nn.Bilinear", "best other", "`triton-fused`", "of which device", "% of roofline"]
    return table(header, body)


def faults(path: Path) -> str:
    """Return the catalogue of faults, each with its tests as links."""
    rows = pd.read_csv(path, keep_default_na=False)
    body = []
    for row in rows.itertuples():
        tests = [test.partition("::") for test in row.tests.split()]
        links = [f"[{name}](../tests/{file})" for file, _, name in tests]
        body.append([row.id, row.fault, "<br>".join(links) or "none", row.happens])
    return table(["id", "fault", "tests", "what happens"], body)


def file(path: Path) -> str:
    """Return a file of a package, verbatim, in a code block that begins with its name."""
    language = {".py": "python", ".toml": "toml"}[path.suffix]
    return f"```{language}\n# {path.name}\n{path.read_text().strip()}\n```"


SUMMARIES: dict[str, Callable[[Path], str]] = {
    "coverage": coverage,
    "selection": chosen,
    "known-answer": known_answer,
    "false-alarms": alarms,
    "power": seen,
    "busy-machine": busy_machine.summary,
    "peers": peers,
    "fairness": fairness,
    "false-rejections": false_rejections,
    "gap": gap,
    "speed": speed,
    "roofline": roofline,
    "gpu": gpu,
    "kills": kills.summary,
    "faults": faults,
    "file": file,
}


def current(text: str) -> str:
    """Return a page with every block as its files say."""

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}{SUMMARIES[match[2]](ROOT / match[3])}\n{match[4]}"

    return BLOCK.sub(block, text)


def main() -> None:
    """Rewrite the pages whose blocks have changed."""
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text()
        if (new := current(text)) != text:
            page.write_text(new)
            print(f"{page.relative_to(ROOT)} rewritten")


if __name__ == "__main__":
    main()
