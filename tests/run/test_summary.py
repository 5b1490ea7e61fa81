"""From cells to records: speed-up, rank, break-even, rooflines and flags."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from fakes import CASE, LARGER, NARROW_BLOCKS, QUIET, STEP, FakeWorker, Faults

from harness.record import Status
from harness.run.plan import BASELINE
from harness.timing import roofline

#: Time of a call of a fake worker without faults, in seconds.
USUAL = 0.01


def by_product(flop_per_second, chains=None):
    """Return peaks whose float32 arithmetic is that of a GEMM, or of the FMA chains if both are the same."""
    return roofline.Peaks({"float32": roofline.Rate(flop_per_second, "injected", chains=chains)}, (), ())


PEAKS = by_product(1e9)
BY_CHAINS = by_product(1e9, chains=1e9)
SHARE = roofline.flop(CASE) / 1e9 / USUAL


def at_best(seconds):
    """Return peaks of a machine whose roofline for the case is that time, in seconds."""
    return by_product(roofline.flop(CASE) / seconds)


def test_right_backend_is_timed_and_compared_with_the_baseline(measure):
    run = measure(faults={"other": Faults(call_seconds=0.005)})
    row = run.row("other")
    assert row.status is Status.TIMED
    assert row.median_seconds == pytest.approx(0.005)
    assert row.speedup == pytest.approx(2.0)
    assert (row.blocks, row.rank, row.stopped_by) == (NARROW_BLOCKS, 1, "target")
    assert run.row(BASELINE).rank == 2
    assert {sample.kind for sample in run.samples} == {"warmup", "call"}


def test_step_has_a_forward_time_and_the_rest_is_backward(measure):
    row = measure(STEP).row("other", STEP)
    assert row.forward_seconds == pytest.approx(row.median_seconds / 2)
    assert row.backward_seconds == pytest.approx(row.median_seconds / 2)


def test_tuning_of_a_backend_is_in_its_row(measure):
    run = measure(faults={"other": Faults(tuning="tiles of 4 x 2")})
    assert (run.row("other").tuning, run.row(BASELINE).tuning) == ("tiles of 4 x 2", None)


def test_rows_of_different_precision_classes_are_never_ranked_together(measure):
    case = dataclasses.replace(CASE, precision="tf32")
    faults = {"other": Faults(noise=2.0**-12, call_seconds=0.001), "third": Faults(call_seconds=0.002)}
    run = measure(case, faults=faults)
    other, third = run.row("other", case), run.row("third", case)
    assert (other.precision_class, other.rank) == ("tf32", 1)
    assert (third.precision_class, third.rank) == ("float32", 1)
    assert run.row(BASELINE, case).rank == 2
    assert "class_differs" in other.flags
    assert third.flags is None


@pytest.mark.parametrize(
    ("call_seconds", "compile_seconds", "calls"),
    [
        # 0.5 s more of preparing and compiling, 5 ms gained at each of the calls that follow the first.
        (0.005, 0.5, 101),
        (0.005, 0.0, 1),
        (0.02, -0.1, None),
    ],
    ids=["after 101 calls", "at once", "never, since it is slower"],
)
def test_break_even_is_where_gained_time_exceeds_preparing(measure, call_seconds, compile_seconds, calls):
    faults = {"other": Faults(call_seconds=call_seconds, compile_seconds=compile_seconds)}
    assert measure(faults=faults).row("other").break_even_calls == calls


def test_verdict_that_hangs_on_disturbed_blocks_is_flagged(measure):
    states = itertools.cycle([QUIET, dataclasses.replace(QUIET, steal_seconds=1.0)])
    row = measure(states=states, faults={"other": Faults(call_seconds=0.005)}).row("other")
    assert (row.comparison, row.comparison_undisturbed, row.disturbed_blocks) == ("faster", "ambiguous", row.blocks)
    assert row.flags == "mostly_disturbed"


def test_verdict_of_disturbed_blocks_alone_is_flagged_with_the_others(measure):
    class Jumps(FakeWorker):
        def sample(self, request):
            reply = super().sample(request)
            return dataclasses.replace(reply, seconds=reply.seconds * (0.5 if self.blocks <= 14 else 1.0))

    # Two readings a sample, two samples a block: something is stolen in the first twelve blocks.
    stolen = (dataclasses.replace(QUIET, steal_seconds=float(min(number, 47))) for number in itertools.count())
    faults = {"other": Faults(kind=Jumps, spread=(0.0, 0.01))}
    row = measure(states=stolen, target=0.001, budget_seconds=2.7, faults=faults).row("other")
    assert row.disturbed_blocks == 12
    assert row.blocks >= 22
    assert row.comparison_undisturbed != row.comparison
    assert f"undisturbed({row.comparison_undisturbed})" in row.flags


def test_blocks_in_which_the_baseline_was_disturbed_are_not_quiet(measure):
    class Disturbed(FakeWorker):
        """Loses its CPU in four blocks, which take three times as long."""

        def sample(self, request):
            reply = super().sample(request)
            if self.blocks % 2 or self.blocks > 8:
                return reply
            return dataclasses.replace(reply, seconds=3 * reply.seconds, involuntary_switches=1000)

    run = measure(faults={BASELINE: Faults(kind=Disturbed)}, budget_seconds=0.5)
    row = run.row("other")
    assert (run.row(BASELINE).disturbed_blocks, row.disturbed_blocks) == (4, 0)
    assert (row.comparison, row.comparison_undisturbed) == ("ambiguous", "equivalent")


def test_each_time_has_its_share_of_the_roofline(measure):
    row = measure(peaks=[PEAKS]).row("other")
    assert row.roofline_seconds == pytest.approx(roofline.flop(CASE) / 1e9)
    assert row.roofline_fraction == pytest.approx(row.roofline_seconds / row.median_seconds)


def test_without_peaks_a_row_has_no_roofline(measure):
    row = measure().row("other")
    assert (row.roofline_seconds, row.roofline_fraction) == (None, None)


class Machine:
    """Runs at half its speed in every third sample."""

    def __init__(self):
        self.samples = 0

    @property
    def speed(self):
        return 0.5 if self.samples % 3 == 0 else 1.0

    def spot_peak(self, dtype, seconds):
        self.samples += 1
        return 1e9 * self.speed

    def worker(self, *arguments):
        machine = self

        class Worker(FakeWorker):
            def sample(self, request):
                reply = super().sample(request)
                return dataclasses.replace(reply, seconds=reply.seconds / machine.speed)

        return Worker(*arguments)


def test_share_of_the_spot_roofline_cancels_the_machines_own_slowness(measure):
    machine = Machine()
    faults = dict.fromkeys(("other", BASELINE), Faults(kind=machine.worker))
    run = measure(peaks=[BY_CHAINS], spot_peak=machine.spot_peak, faults=faults)
    row = run.row("other")
    assert row.roofline_fraction == pytest.approx(SHARE), "most samples are at full speed"
    shares = (row.spot_roofline_fraction, row.spot_roofline_fraction_low, row.spot_roofline_fraction_high)
    assert shares == pytest.approx((SHARE, SHARE, SHARE))
    taken = [sample.spot_peak_flop_per_second for sample in run.samples if sample.kind == "call"]
    assert taken[:3] == [1e9, 0.5e9, 1e9]


@pytest.mark.parametrize("peaks", [by_product(1.4e9, 1e9), by_product(1.4e9, 0.5e9), by_product(1e9)])
def test_gemm_faster_than_the_chains_by_chance_keeps_the_spot_peak(measure, peaks):
    row = measure(peaks=[peaks], spot_peak=lambda dtype, seconds: 1e9).row("other")
    assert row.spot_roofline_fraction == pytest.approx(SHARE)


def test_chains_that_reached_the_peak_in_another_case_count_in_this_one(measure):
    spot_peaks = itertools.chain([1e9] * (2 * NARROW_BLOCKS + 1), itertools.repeat(0.5e9))
    peaks = [by_product(1.2e9, 0.5e9)]
    run = measure(CASE, LARGER, peaks=peaks, spot_peak=lambda dtype, seconds: next(spot_peaks))
    shares = [run.row("other", case).spot_roofline_fraction for case in (CASE, LARGER)]
    assert shares == pytest.approx([roofline.flop(CASE) / 1e9 / USUAL, roofline.flop(LARGER) / 0.5e9 / USUAL])


@pytest.mark.parametrize(
    ("peaks", "spot_peak"),
    [([BY_CHAINS], None), ([by_product(2e9, 1e9)], 1e9), ([], 1e9)],
    ids=["unknown", "the peak is of other units", "no peaks"],
)
def test_row_without_a_spot_peak_of_its_roofline_has_no_share(measure, peaks, spot_peak):
    row = measure(peaks=peaks, spot_peak=lambda dtype, seconds: spot_peak).row("other")
    assert row.status is Status.TIMED
    assert (row.spot_roofline_fraction, row.spot_roofline_fraction_low) == (None, None)


def test_spot_peak_that_fails_later_takes_nothing_from_earlier_samples(measure):
    spot_peaks = itertools.chain([1e9] * 11, itertools.repeat(None))
    run = measure(peaks=[BY_CHAINS], spot_peak=lambda dtype, seconds: next(spot_peaks))
    row = run.row("other")
    assert row.spot_roofline_fraction == pytest.approx(row.roofline_fraction)
    assert len([sample for sample in run.samples if sample.spot_peak_flop_per_second]) == 10 < 2 * row.blocks


def test_backend_faster_than_the_machine_is_implausible_and_not_ranked(measure):
    run = measure(peaks=[at_best(0.009), at_best(0.009)], faults={"other": Faults(call_seconds=0.008)})
    row, baseline = run.row("other"), run.row(BASELINE)
    assert (row.status, row.rank, row.flags) == (Status.TIMED, None, "implausible")
    assert row.roofline_fraction == pytest.approx(9 / 8)
    assert (baseline.rank, baseline.flags) == (1, None)


def test_peaks_are_measured_again_before_a_row_is_called_implausible(measure):
    row = measure(peaks=[at_best(0.009), at_best(0.005)], faults={"other": Faults(call_seconds=0.008)}).row("other")
    assert (row.rank, row.flags, row.roofline_fraction) == (1, None, pytest.approx(5 / 8))


def test_roofline_on_a_gpu_is_that_of_the_device(measure, measure_on_gpu):
    row = measure_on_gpu(peaks=[PEAKS]).row(BASELINE)
    assert row.roofline_seconds == measure(peaks=[PEAKS]).row(BASELINE).roofline_seconds is not None
    assert row.roofline_fraction == pytest.approx(row.roofline_seconds / USUAL)


@pytest.mark.parametrize("column", ["device_seconds", "graph_seconds"])
def test_device_that_seems_faster_than_it_can_be_is_flagged(measure_on_gpu, column):
    run = measure_on_gpu(faults={"other": Faults(device_shares={column: 1e-6})}, peaks=[PEAKS])
    assert "device_under_roofline" in run.row("other").flags
    assert "device_under_roofline" not in run.row(BASELINE).flags
