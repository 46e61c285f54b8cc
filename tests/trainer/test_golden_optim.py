"""Adam, schedules and the loss scaler against the reference's traces."""

from tools.golden_checks.optim import check
from tools.golden_checks.report import Report


def test_optimizer_schedules_and_scaler_reproduce_the_reference(shared):
    report = Report()
    check(shared / "golden" / "optim", report)
    assert not [line for line in report.lines if not line.passed]
    assert len(report.lines) > 20
