"""The synthetic heart: textbook signs, stable patients, exact limb leads."""

import numpy as np
import pytest

from fairseq_ecg.data import synthetic
from fairseq_ecg.data.synthetic import draw_patient, generator, sokolow_lyon, synthesise

FROZEN_DIAGNOSES = ("AF",)
FROZEN_SUM = 6122394


def patient_with(*diagnoses: str, without: tuple[str, ...] = (), start: int = 0) -> synthetic.Patient:
    """The first patient who has some diagnoses and lacks others."""
    for index in range(start, start + 5000):
        patient = draw_patient(generator(7, index))
        if set(diagnoses) <= patient.diagnoses and not patient.diagnoses & set(without):
            return patient
    raise AssertionError(f"no patient with {diagnoses} without {without}")


def record_of(patient: synthetic.Patient, number: int = 1) -> synthetic.SyntheticEcg:
    return synthesise(patient, generator(7, 0, number), 500, 5000)


def trace(patient: synthetic.Patient) -> np.ndarray:
    """(8, time) QRS of a patient in leads I, II, V1 ... V6, 1 ms apart."""
    time = np.arange(-0.12, 0.2, 0.001)
    beat = patient.qrs
    return sum(
        np.outer(patient.torso @ vector, np.exp(-0.5 * ((time - centre) / width) ** 2))
        for centre, width, vector in zip(beat.centre, beat.width, beat.vector, strict=True)
    )


def test_limb_leads_obey_einthoven_and_goldberger_up_to_rounding():
    for index in range(5):
        ecg = synthesise(draw_patient(generator(0, index)), generator(0, index, 1), 500, 1000)
        i, ii, iii, avr, avl, avf = ecg.microvolts[:6].astype(int)
        np.testing.assert_array_equal(i + iii, ii)
        for lead, exact in ((avr, -(i + ii) / 2), (avl, i - ii / 2), (avf, ii - i / 2)):
            assert np.abs(lead - exact).max() <= 0.5


def test_the_same_key_draws_the_same_record_and_another_key_another_one():
    patient = draw_patient(generator(0, 3))
    first = synthesise(patient, generator(0, 3, 1), 500, 1000).microvolts
    np.testing.assert_array_equal(
        first, synthesise(draw_patient(generator(0, 3)), generator(0, 3, 1), 500, 1000).microvolts
    )
    assert not np.array_equal(first, synthesise(patient, generator(0, 3, 2), 500, 1000).microvolts)
    assert not np.array_equal(patient.torso, draw_patient(generator(0, 4)).torso)


def test_the_constants_are_frozen():
    # A change of this sum changes every table made with the corpus. 2 uV over 60,000 samples: exp and sine of
    # another machine may differ in the last bit and tip single samples to the next microvolt.
    ecg = synthesise(draw_patient(generator(0, 0)), generator(0, 0, 1), 500, 5000)
    assert ecg.diagnoses == FROZEN_DIAGNOSES
    assert abs(int(np.abs(ecg.microvolts.astype(int)).sum()) - FROZEN_SUM) <= 2


def rr_intervals(patient: synthetic.Patient, rhythm: str, rate: float) -> tuple[np.ndarray, np.ndarray]:
    beats, ectopic = synthetic._draw_beats(patient, generator(1), rhythm, rate, 60.0)
    return np.diff(beats), ectopic


def test_sinus_rhythm_is_regular_and_fibrillation_is_not():
    patient = patient_with(without=("PVC", "AF", "AFL"))
    sinus, _ = rr_intervals(patient, "sinus", 75)
    fibrillation, _ = rr_intervals(patient, "AF", 75)
    assert abs(60 / sinus.mean() - 75) < 3
    assert sinus.std() / sinus.mean() < 0.1
    assert fibrillation.std() / fibrillation.mean() > 0.15


def test_flutter_conducts_after_whole_numbers_of_flutter_waves():
    patient = patient_with("AFL", without=("PVC",))
    intervals, _ = rr_intervals(patient, "AFL", 75)
    cycles = intervals * patient.flutter_rate
    np.testing.assert_allclose(cycles, np.rint(cycles), atol=1e-9)


def test_an_ectopic_beat_comes_early_and_is_followed_by_a_pause():
    patient = patient_with("PVC", without=("AF", "AFL"))
    seen = 0
    for number in range(10):
        beats, ectopic = synthetic._draw_beats(patient, generator(2, number), "sinus", 70, 10.0)
        intervals = np.diff(beats)
        for index in np.flatnonzero(ectopic[1:-1]) + 1:
            assert intervals[index - 1] < 0.8 * np.median(intervals)
            assert intervals[index] > 1.1 * np.median(intervals)
            seen += 1
    assert seen


def test_the_rate_decides_between_sinus_bradycardia_rhythm_and_tachycardia():
    found = set()
    for index in range(40):
        patient = draw_patient(generator(7, index))
        ecg = synthesise(patient, generator(7, index, 1), 500, 5000)
        names = set(ecg.diagnoses)
        assert len(names & {"NSR", "SB", "STach", "AF", "AFL"}) == 1
        if "SB" in names:
            assert ecg.heart_rate < 60
        if "STach" in names:
            assert ecg.heart_rate > 100
        found |= names
    assert {"NSR", "SB", "STach"} <= found


@pytest.mark.parametrize(("name", "low", "high"), [("LAD", -90, -30), ("RAD", 90, 180), (None, -31, 91)])
def test_the_frontal_axis_is_where_the_diagnosis_says(name, low, high):
    for start in range(0, 200, 40):
        patient = patient_with(*([name] if name else []), without=() if name else ("LAD", "RAD"), start=start)
        if "LVH" in patient.diagnoses:
            continue  # growth to the left turns the axis a little more
        area = trace(patient)[:2].sum(axis=1)
        axis = np.rad2deg(np.arctan2((area[1] - area[0] / 2) * 2 / np.sqrt(3), area[0]))
        assert low - 1 <= axis <= high + 1


def test_hypertrophy_meets_the_sokolow_lyon_criterion():
    for start in range(0, 200, 40):
        patient = patient_with("LVH", start=start)
        assert sokolow_lyon(patient.qrs, patient.torso) >= 3.5


def test_low_voltage_is_below_half_a_millivolt_in_the_limb_leads_and_others_are_not():
    for name, is_low in (("LQRSV", True), ("TInv", False)):
        patient = patient_with(name, without=() if is_low else ("LQRSV",))
        limbs = trace(patient)[:2]
        limbs = np.vstack([limbs, limbs[1] - limbs[0]])
        assert (np.ptp(limbs, axis=1).max() < 0.5) == is_low


def test_bundle_branch_blocks_are_wide_and_point_to_their_side():
    normal = patient_with(without=("LBBB", "RBBB", "LVH", "LQRSV"))
    left, right = patient_with("LBBB", without=("RAD",)), patient_with("RBBB")

    def duration(patient: synthetic.Patient) -> int:
        speed = np.abs(np.diff(trace(patient), axis=1)).max(axis=0)
        active = np.flatnonzero(speed > 0.02 * speed.max())
        return int(active[-1] - active[0])

    assert duration(normal) < 110 < 120 < min(duration(left), duration(right))
    late = slice(160, None)  # from 40 ms after the R peak
    assert trace(left)[2, late].sum() < 0  # V1 stays negative
    assert trace(right)[2, late].sum() > 0  # R' in V1


def test_fibrillation_and_flutter_have_no_p_waves_and_first_degree_block_has_late_beats():
    patient = patient_with("IAVB", without=("AF", "AFL", "PVC"))
    assert patient.pr_interval > 0.2
    beats = np.array([0.5, 1.5, 2.5])
    ectopic = np.zeros(3, bool)
    with_p, without_p = (
        synthetic._heart_vector(patient, generator(3), beats, ectopic, has_p, 500, 1500)
        for has_p in (True, False)
    )
    difference = np.abs(with_p - without_p).sum(axis=0)
    peak = int((1.5 - patient.pr_interval) * 500)
    assert difference[peak - 5 : peak + 5].max() > 0.05
    assert difference[int(1.45 * 500) : int(1.9 * 500)].max() < 1e-3


def test_waves_are_the_sum_of_gaussians_term_by_term():
    waves = synthetic._waves((-20, 15.0, 0.2, 0.1, -0.3), (250, 40.0, 0.3, 0.2, -0.1))
    beats, size, stretch = np.array([0.3, 1.2]), np.array([1.0, 0.9]), np.array([0.9, 1.1])
    vector = np.zeros((3, 1000))
    synthetic._add_waves(vector, waves, beats, size, stretch, 500)
    expected = np.zeros((3, 1000))
    for beat, scale, slow in zip(beats, size, stretch, strict=True):
        for centre, width, direction in zip(waves.centre, waves.width, waves.vector, strict=True):
            for sample in range(1000):
                distance = (sample / 500 - beat - centre * slow) / (width * np.sqrt(slow))
                expected[:, sample] += scale * direction * np.exp(-0.5 * distance**2)
    # The tails beyond 4.5 standard deviations are cut: 4e-5 of a wave.
    np.testing.assert_allclose(vector, expected, atol=5e-5)


def test_the_records_of_a_patient_share_their_morphology_and_not_their_noise():
    patient = patient_with(without=("AF", "AFL", "PVC"))
    other = patient_with(without=("AF", "AFL", "PVC"), start=50)

    def shape(patient: synthetic.Patient, number: int) -> np.ndarray:
        """Directions of the leads' extremes: what the eye calls the shape of the QRS."""
        signal = record_of(patient, number).microvolts.astype(float)
        centred = signal - np.median(signal, axis=1, keepdims=True)
        return np.concatenate([np.percentile(centred, q, axis=1) for q in (0.5, 99.5)])

    def similarity(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a, b)[0, 1])

    same = similarity(shape(patient, 1), shape(patient, 2))
    assert same > 0.97
    assert same > similarity(shape(patient, 1), shape(other, 1))
