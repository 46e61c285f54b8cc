"""Synthetic 12-lead ECGs: a moving heart vector, seen by twelve leads, with noise at nine electrodes.

A beat is a sum of waves; a wave is a Gaussian in time times a vector in space (a dipole model in the manner
of McSharry et al. 2003 and Sameni et al. 2007). The frame is Frank's: x to the left, y to the feet, z to the
back. Leads are Dower's (1980) projections of that vector, varied for every patient. A patient's anatomy and
diagnoses are drawn once; heart rate, ectopic beats, electrode placement and noise are drawn for every record.

The constants are frozen: results on this corpus are comparable as long as none of them changes.

Shapes use W wave, B beat, T time, E electrode. Amplitudes are mV, times seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DIAGNOSES = {
    "NSR": ("426783006", "sinus rhythm"),
    "SB": ("426177001", "sinus bradycardia"),
    "STach": ("427084000", "sinus tachycardia"),
    "AF": ("164889003", "atrial fibrillation"),
    "AFL": ("164890007", "atrial flutter"),
    "IAVB": ("270492004", "1st degree av block"),
    "LBBB": ("164909002", "left bundle branch block"),
    "RBBB": ("59118001", "right bundle branch block"),
    "PVC": ("427172004", "premature ventricular contractions"),
    "TInv": ("59931005", "t wave inversion"),
    "LQRSV": ("251146004", "low qrs voltages"),
    "LAD": ("39732003", "left axis deviation"),
    "RAD": ("47665007", "right axis deviation"),
    "LVH": ("164873001", "left ventricular hypertrophy"),
}
"""Abbreviation -> SNOMED CT code and name, as in the challenge's tables."""

# Rows: I, II, V1 ... V6; columns x, y, z (Dower, Machado and Osborne 1980). The other four are computed.
_DOWER = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)


@dataclass(frozen=True)
class Waves:
    """Gaussian waves of one beat.

    Shape:
        centre, width: (W,), seconds from the R peak, and standard deviation.
        vector: (W, 3), mV.
    """

    centre: Floats
    width: Floats
    vector: Floats

    def joined(self, other: Waves) -> Waves:
        return Waves(
            np.concatenate([self.centre, other.centre]),
            np.concatenate([self.width, other.width]),
            np.concatenate([self.vector, other.vector]),
        )


def _waves(*rows: tuple[float, float, float, float, float]) -> Waves:
    """Rows of (centre in ms, width in ms, x, y, z)."""
    table = np.array(rows)
    return Waves(table[:, 0] / 1000, table[:, 1] / 1000, table[:, 2:])


# Septal (right, anterior), free wall (left, down), posterior wall, base.
_NORMAL_QRS = _waves(
    (-26, 7.0, -0.22, -0.05, -0.38),
    (0, 10.0, 1.05, 0.80, 0.05),
    (17, 9.5, 0.35, 0.15, 0.80),
    (35, 9.0, -0.20, -0.22, 0.25),
)
# No septal q; slow, notched, left and back.
_LBBB_QRS = _waves(
    (-38, 14.0, 0.30, 0.15, 0.02),
    (-8, 19.0, 0.75, 0.40, 0.60),
    (34, 21.0, 0.72, 0.20, 0.75),
    (66, 14.0, 0.15, 0.00, 0.25),
)
# Normal start, then slowly to the right and front.
_RBBB_QRS = _waves(
    (-26, 7.0, -0.22, -0.05, -0.36),
    (0, 10.0, 1.00, 0.75, 0.08),
    (17, 10.0, 0.30, 0.12, 0.55),
    (58, 18.0, -0.46, -0.04, -0.58),
)
# A slow rise and a faster fall make the wave asymmetric.
_T = _waves((-32, 50.0, 0.15, 0.105, -0.08), (8, 30.0, 0.20, 0.14, -0.10))
_T_CENTRE = 0.29
"""Of the T wave after the R peak at a heart rate of 60."""
_ST = _waves((100, 38.0, 0.02, 0.01, -0.03))
# Right, then left atrium.
_P = _waves((-14, 17.0, 0.035, 0.085, -0.045), (14, 18.0, 0.055, 0.055, 0.045))


@dataclass(frozen=True)
class Patient:
    """What stays with a patient from record to record."""

    age: int
    sex: str
    heart_rate: float
    diagnoses: frozenset[str]
    """Lasting ones; AF and AFL come and go, rate and ectopic beats belong to the record."""
    qrs: Waves
    repolarisation: Waves
    """ST segment and T wave; ``centre`` is that at a heart rate of 60."""
    p: Waves
    pr_interval: float
    """From the middle of the P wave to the R peak."""
    ectopic: Waves
    """QRS of a premature ventricular beat."""
    torso: Floats
    """(8, 3) leads I, II, V1 ... V6 of the heart vector."""
    fibrillation: Floats
    """(2, 3) vectors of the fibrillatory waves, or the flutter wave in row 0."""
    flutter_rate: float
    """Hz."""


@dataclass(frozen=True)
class SyntheticEcg:
    """One record.

    Shape:
        microvolts: (12, T) int16 in the standard lead order; III = II - I exactly.
    """

    microvolts: NDArray[np.int16]
    diagnoses: tuple[str, ...]
    heart_rate: float


def generator(*key: int) -> Generator:
    """The stream of random numbers that belongs to a key; streams of other keys are independent of it."""
    return Generator(PCG64(SeedSequence(key)))


def draw_patient(random: Generator) -> Patient:
    """Draw anatomy and diagnoses."""
    age = int(np.clip(random.normal(58, 18), 18, 92))
    is_male = random.random() < 0.5
    diagnoses = _draw_diagnoses(random, age)
    torso = _DOWER * random.normal(1, 0.12, (8, 1)) + random.normal(0, 0.07, (8, 3))
    qrs = _draw_qrs(random, diagnoses, torso, is_male)
    return Patient(
        age=age,
        sex="Male" if is_male else "Female",
        heart_rate=float(_draw_heart_rate(random)),
        diagnoses=diagnoses,
        qrs=qrs,
        repolarisation=_draw_repolarisation(random, diagnoses, qrs),
        p=_varied(random, replace(_P, vector=_P.vector * random.lognormal(0, 0.25)), 0.2),
        pr_interval=float(
            random.uniform(0.205, 0.30) if "IAVB" in diagnoses else random.normal(0.145, 0.016)
        ),
        ectopic=_draw_ectopic(random),
        torso=torso,
        fibrillation=_draw_fibrillation(random, diagnoses),
        flutter_rate=float(random.uniform(4.1, 5.4)),
    )


def _draw_diagnoses(random: Generator, age: int) -> frozenset[str]:
    """Independent of each other but where one excludes the other; most are commoner in the old."""
    older = 0.6 + 0.8 * np.clip((age - 30) / 50, 0, 1)
    chosen = set()

    def choose(probability: float, *names: str) -> None:
        if random.random() < probability:
            chosen.add(names[int(random.integers(len(names)))])

    choose(0.22 * older, "AF", "AFL")
    choose(0.24 * older, "LBBB", "RBBB")
    choose(0.16 * older, "IAVB")
    choose(0.16 * older, "PVC")
    if "LBBB" not in chosen:
        choose(0.16 * older, "TInv")
    choose(0.28 * older, "LAD", "LAD", "RAD")
    if not chosen & {"LBBB", "RBBB", "RAD"}:
        choose(0.24 * older, "LVH")
    if "LVH" not in chosen:
        choose(0.12, "LQRSV")
    return frozenset(chosen)


def _draw_heart_rate(random: Generator) -> float:
    """Beats per minute: a quarter slow, a fifth fast."""
    group = random.random()
    if group < 0.25:
        return random.uniform(45, 58)
    return random.uniform(101, 128) if group < 0.45 else random.uniform(61, 95)


def _varied(random: Generator, waves: Waves, share: float) -> Waves:
    """Waves with times, widths and vectors of an individual."""
    size = np.linalg.norm(waves.vector, axis=1, keepdims=True)
    return Waves(
        waves.centre * random.normal(1, 0.06, waves.centre.shape),
        waves.width * random.lognormal(0, 0.08, waves.width.shape),
        waves.vector + share * size * random.normal(0, 1, waves.vector.shape),
    )


def _draw_qrs(random: Generator, diagnoses: frozenset[str], torso: Floats, is_male: bool) -> Waves:
    template = _LBBB_QRS if "LBBB" in diagnoses else _RBBB_QRS if "RBBB" in diagnoses else _NORMAL_QRS
    qrs = _varied(random, template, 0.2)
    qrs = replace(qrs, vector=qrs.vector * random.lognormal(0.05 if is_male else -0.1, 0.28))
    if "LAD" in diagnoses:
        axis = random.uniform(-80, -30)
    elif "RAD" in diagnoses:
        axis = random.uniform(90, 150)
    else:
        axis = np.clip(random.normal(38, 34), -30, 90)
    qrs = _turned(qrs, torso, axis)
    if "LVH" in diagnoses:
        # More muscle to the left and back: tall R in V5 and V6, deep S in V1, a slightly wider complex.
        qrs = replace(qrs, width=qrs.width * 1.1)
        return _grown(qrs, torso, random.uniform(3.5, 4.3))
    largest_limb = _limb_voltage(qrs, torso)
    if "LQRSV" in diagnoses:
        return replace(qrs, vector=qrs.vector * (random.uniform(0.28, 0.46) / largest_limb))
    return replace(qrs, vector=qrs.vector * max(1.0, 0.62 / largest_limb))


def _turned(qrs: Waves, torso: Floats, axis: float) -> Waves:
    """The complex turned about the z axis until the net area in leads I and aVF points to ``axis``
    degrees."""
    area = (qrs.vector * qrs.width[:, None]).sum(axis=0)
    angles = np.deg2rad(np.arange(360))
    cos, sin = np.cos(angles), np.sin(angles)
    turned = np.stack([cos * area[0] - sin * area[1], sin * area[0] + cos * area[1], 0 * cos + area[2]])
    lead_i, lead_ii = torso[:2] @ turned
    # aVF is 2/sqrt(3) short of the length lead I has in Einthoven's triangle.
    found = np.rad2deg(np.arctan2((lead_ii - lead_i / 2) * 2 / np.sqrt(3), lead_i))
    best = int(np.argmin(np.abs((found - axis + 180) % 360 - 180)))
    rotation = np.array([[cos[best], sin[best], 0], [-sin[best], cos[best], 0], [0, 0, 1]])
    return replace(qrs, vector=qrs.vector @ rotation)


def _trace(waves: Waves, torso: Floats) -> Floats:
    """(8, time) leads of one complex, 1 ms apart."""
    time = np.arange(-0.12, 0.2, 0.001)
    shape = np.exp(-0.5 * ((time - waves.centre[:, None]) / waves.width[:, None]) ** 2)
    return np.asarray(torso @ waves.vector.T @ shape)


def _limb_voltage(qrs: Waves, torso: Floats) -> float:
    """Largest peak-to-peak voltage of leads I, II and III."""
    trace = _trace(qrs, torso)[:2]
    limbs = np.vstack([trace, trace[1:] - trace[:1]])
    return float(np.ptp(limbs, axis=1).max())


def sokolow_lyon(qrs: Waves, torso: Floats) -> float:
    """S in V1 plus the larger R of V5 and V6 (Sokolow and Lyon 1949); 3.5 mV and more speaks for LVH."""
    trace = _trace(qrs, torso)
    return float(-trace[2].min() + trace[6:].max())


def _grown(qrs: Waves, torso: Floats, voltage: float) -> Waves:
    """The complex stretched leftwards and backwards, then as a whole, to a given Sokolow-Lyon voltage."""
    factor = np.clip(voltage / sokolow_lyon(qrs, torso), 1.0, 1.8)
    grown = replace(qrs, vector=qrs.vector * [factor, 0.5 + 0.5 * factor, 0.3 + 0.7 * factor])
    return replace(grown, vector=grown.vector * (voltage / sokolow_lyon(grown, torso)))


def _draw_repolarisation(random: Generator, diagnoses: frozenset[str], qrs: Waves) -> Waves:
    """ST segment and T wave, concordant with the QRS in health."""
    st, t = _varied(random, _ST, 0.8), _varied(random, _T, 0.15)
    strength = random.lognormal(-0.05, 0.25)
    vector = t.vector * strength
    area = (qrs.vector * qrs.width[:, None]).sum(axis=0)
    discordant = -area / np.linalg.norm(area)
    if "LBBB" in diagnoses:
        vector = np.abs(np.linalg.norm(vector, axis=1, keepdims=True)) * discordant
        st = replace(st, vector=st.vector + 0.09 * discordant)
    elif "RBBB" in diagnoses:
        vector = vector + np.array([0.04, 0.0, 0.10]) * random.uniform(0.7, 1.3)
    if "LVH" in diagnoses and random.random() < 0.8:  # strain
        vector = np.linalg.norm(vector, axis=1, keepdims=True) * discordant * random.uniform(0.5, 0.9)
        st = replace(st, vector=st.vector + 0.06 * discordant)
    if "TInv" in diagnoses:
        # Lateral, inferior or anterior: the T loop turns away from that wall.
        wall = [[-1.0, 0.6, 1.0], [0.7, -1.0, 1.0], [0.8, 0.8, -1.3]][int(random.integers(3))]
        vector = np.abs(t.vector) * np.sign(t.vector) * wall * strength * random.uniform(0.8, 1.2)
    late = Waves(t.centre + _T_CENTRE * random.normal(1, 0.04), t.width, vector)
    return st.joined(late)


def _draw_ectopic(random: Generator) -> Waves:
    """A wide complex from one focus: from the right ventricle it runs left, from the left one right."""
    direction = np.array([0.8, 0.5, 0.4]) if random.random() < 0.5 else np.array([-0.6, -0.2, -0.9])
    direction = direction + random.normal(0, 0.35, 3)
    direction *= random.uniform(1.1, 1.8) / np.linalg.norm(direction)
    table = _waves((-20, 24.0, 0.5, 0.5, 0.5), (18, 26.0, 0.8, 0.8, 0.8), (310, 55.0, -0.4, -0.4, -0.4))
    return _varied(random, replace(table, vector=table.vector * direction), 0.12)


def _draw_fibrillation(random: Generator, diagnoses: frozenset[str]) -> Floats:
    if "AFL" in diagnoses:  # typical flutter: down the septum in the inferior leads, up in V1
        return np.array([[0.02, 0.09, -0.045], [0.0, 0.0, 0.0]]) * random.lognormal(0, 0.3)
    return np.array([[0.015, 0.025, -0.035], [0.012, -0.012, -0.018]]) * random.lognormal(
        0, 0.4
    ) + random.normal(0, 0.005, (2, 3))


def synthesise(patient: Patient, random: Generator, sampling_rate: int, num_samples: int) -> SyntheticEcg:
    """Draw one record of a patient."""
    duration = num_samples / sampling_rate
    rhythm = _draw_rhythm(patient, random)
    rate = float(np.clip(patient.heart_rate * random.normal(1, 0.07), 38, 150))
    if rhythm == "AF":
        rate = float(np.clip(rate * random.uniform(1.0, 1.3), 45, 160))
    beats, ectopic = _draw_beats(patient, random, rhythm, rate, duration)
    vector = _heart_vector(patient, random, beats, ectopic, rhythm == "sinus", sampling_rate, num_samples)
    time = np.arange(num_samples) / sampling_rate
    if rhythm != "sinus":
        vector += _atrial_activity(patient, random, rhythm, time)
    leads = _noisy_leads(patient, random, vector, time)

    inside = (beats >= 0) & (beats < duration)
    found = set(patient.diagnoses) - {"AF", "AFL", "IAVB", "PVC"}
    if rhythm == "sinus":
        # The rate a reader would count: ectopic beats and their pauses even out.
        rate = 60 * (len(beats) - 1) / (beats[-1] - beats[0])
        found.add("SB" if rate < 60 else "STach" if rate > 100 else "NSR")
        found |= patient.diagnoses & {"IAVB"}
    else:
        found.add(rhythm)
    if (ectopic & inside).any():
        found.add("PVC")
    return SyntheticEcg(_to_microvolts(leads), tuple(name for name in DIAGNOSES if name in found), rate)


def _draw_rhythm(patient: Patient, random: Generator) -> str:
    arrhythmia = patient.diagnoses & {"AF", "AFL"}
    return next(iter(arrhythmia)) if arrhythmia and random.random() < 0.85 else "sinus"


def _draw_beats(
    patient: Patient, random: Generator, rhythm: str, rate: float, duration: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """R peaks from a second before the record to a second after it, and which of them are ectopic."""
    mean = 60 / rate
    num_beats = int((duration + 2) / mean * 2) + 8
    if rhythm == "AF":
        intervals = np.clip(mean * random.lognormal(-0.025, 0.22, num_beats), 0.3, 2.2)
    elif rhythm == "AFL":
        # Every second to fourth flutter wave is conducted, in most records always the same number.
        blocks = np.clip(round(mean * patient.flutter_rate), 2, 5)
        changes = random.random(num_beats) < (0.25 if random.random() < 0.4 else 0.0)
        intervals = np.clip(blocks + changes * random.choice([-1, 1], num_beats), 2, 6) / patient.flutter_rate
    else:
        beat = np.arange(num_beats)
        depth = random.uniform(0.005, 0.05) * min(1.0, mean)
        breath = random.uniform(0.18, 0.32) * mean
        wander = np.cumsum(random.normal(0, 0.006, num_beats))
        phase = random.uniform(0, 2 * np.pi)
        intervals = mean * (
            1 + depth * np.sin(2 * np.pi * breath * beat + phase) + wander - wander.mean()
        ) + random.normal(0, 0.004, num_beats)
        intervals = np.clip(intervals, 0.55 * mean, 1.6 * mean)
    ectopic = np.zeros(num_beats, bool)
    if "PVC" in patient.diagnoses and random.random() < 0.85:
        count = int(random.integers(1, 5))
        last = max(3, int((duration + 1) / mean))
        chosen = random.choice(np.arange(2, last + 2), count)
        chosen = chosen[np.isin(chosen - 1, chosen, invert=True)]
        early = random.uniform(0.55, 0.72)
        ectopic[chosen] = True
        # The interval before is short, the one after has the compensatory pause.
        intervals[chosen - 1] *= early
        intervals[chosen] *= 2 - early if rhythm == "sinus" else 1.2
    beats = np.concatenate([[0.0], np.cumsum(intervals[:-1])]) - 1 - random.uniform(0, mean)
    kept = beats < duration + 1
    return beats[kept], ectopic[kept]


def _heart_vector(
    patient: Patient,
    random: Generator,
    beats: Floats,
    ectopic: NDArray[np.bool_],
    has_p: bool,
    sampling_rate: int,
    num_samples: int,
) -> Floats:
    """(3, T) sum of all waves of all beats."""
    previous = np.diff(beats, prepend=2 * beats[0] - beats[1] if len(beats) > 1 else beats[0] - 1)
    stretch = np.sqrt(np.clip(previous, 0.35, 1.5))  # of the QT interval with the preceding beat's length
    size = random.normal(1, 0.02, len(beats)) * (
        1 + random.uniform(0, 0.06) * np.sin(2 * np.pi * random.uniform(0.2, 0.3) * beats)
    )
    vector = np.zeros((3, num_samples))
    own = ~ectopic
    normal, ectopic_beats = beats[own], beats[ectopic]
    _add_waves(vector, patient.qrs, normal, size[own], np.ones(own.sum()), sampling_rate)
    _add_waves(vector, patient.repolarisation, normal, size[own], stretch[own], sampling_rate)
    _add_waves(vector, patient.ectopic, ectopic_beats, size[ectopic], np.ones(ectopic.sum()), sampling_rate)
    if has_p:
        # A long PR interval may not reach back into the T wave of the beat before.
        interval = np.minimum(patient.pr_interval, 0.42 * previous[own])
        _add_waves(vector, patient.p, normal - interval, size[own], np.ones(own.sum()), sampling_rate)
    return vector


def _add_waves(
    vector: Floats, waves: Waves, beats: Floats, size: Floats, stretch: Floats, sampling_rate: int
) -> None:
    """Add every wave of every beat, each over the 4.5 standard deviations around its centre."""
    num_samples = vector.shape[1]
    for centre, width, direction in zip(waves.centre, waves.width, waves.vector, strict=True):
        half = int(np.ceil(4.5 * width * sampling_rate * 1.25))
        position = (beats + centre * stretch) * sampling_rate  # (B,)
        first = np.floor(position).astype(np.int64)
        offset = np.arange(-half, half + 1)
        index = first[:, None] + offset  # (B, window)
        spread = width * np.sqrt(stretch) * sampling_rate
        shape = size[:, None] * np.exp(-0.5 * ((index - position[:, None]) / spread[:, None]) ** 2)
        inside = (index >= 0) & (index < num_samples)
        wave = np.bincount(index[inside], shape[inside], minlength=num_samples)
        vector += direction[:, None] * wave


def _slow_noise(random: Generator, rows: int, time: Floats, rate: float) -> Floats:
    """(rows, T) random curves of unit deviation that change about ``rate`` times a second."""
    knots = np.arange(time[0] - 2 / rate, time[-1] + 3 / rate, 1 / rate)
    values = random.normal(0, 1, (rows, len(knots)))
    # A window over three knots takes the corners out of the straight lines between them.
    values[:, 1:-1] = 0.25 * values[:, :-2] + 0.5 * values[:, 1:-1] + 0.25 * values[:, 2:]
    curves = [np.interp(time, knots, row) for row in values]
    return np.asarray(np.stack(curves) / np.sqrt(0.375))


def _atrial_activity(patient: Patient, random: Generator, rhythm: str, time: Floats) -> Floats:
    """(3, T) fibrillatory waves of wandering rate and size, or the saw teeth of flutter."""
    if rhythm == "AFL":
        phase = 2 * np.pi * patient.flutter_rate * time + random.uniform(0, 2 * np.pi)
        saw = sum(np.sin(harmonic * phase) / harmonic for harmonic in (1, 2, 3))
        return np.asarray(patient.fibrillation[:1].T * saw)
    rates = random.uniform(4.8, 7.5) + np.array([[0.0], [0.9]]) + 0.5 * _slow_noise(random, 2, time, 1.0)
    phase = 2 * np.pi * np.cumsum(rates, axis=1) * (time[1] - time[0])
    phase += random.uniform(0, 2 * np.pi, (2, 1))
    envelope = 1 + 0.35 * _slow_noise(random, 2, time, 0.8)
    return np.asarray(patient.fibrillation.T @ (envelope * (np.sin(phase) + 0.35 * np.sin(2 * phase))))


def _noisy_leads(patient: Patient, random: Generator, vector: Floats, time: Floats) -> Floats:
    """(8, T) leads I, II, V1 ... V6 of this record: electrodes placed anew, noise at each of them."""
    torso = patient.torso * random.normal(1, 0.04, (8, 1)) + random.normal(0, 0.03, (8, 3))
    noise = _electrode_noise(random, time)  # RA, LA, LL, V1 ... V6
    leads = torso @ vector
    leads[0] += noise[1] - noise[0]
    leads[1] += noise[2] - noise[0]
    leads[2:] += noise[3:] - noise[:3].mean(axis=0)
    return np.asarray(leads * random.normal(1, 0.04))


def _electrode_noise(random: Generator, time: Floats) -> Floats:
    """(9, T) baseline wander, mains, muscle and electrode motion."""
    breath = np.sin(2 * np.pi * random.uniform(0.18, 0.35) * time + random.uniform(0, 2 * np.pi))
    wander = random.lognormal(np.log(0.022), 0.7)
    noise = wander * (
        random.normal(0, 0.7, (9, 1)) * breath + 0.7 * _slow_noise(random, 9, time, random.uniform(0.3, 0.8))
    )
    muscle = random.lognormal(np.log(0.005), 0.6) * random.lognormal(0, 0.35, (9, 1))
    bursts = np.exp(0.5 * _slow_noise(random, 1, time, 1.5))
    white = random.normal(0, 1, (9, len(time) + 2))
    # A short average keeps the band in which surface EMG and amplifiers have most of their power.
    noise += muscle * bursts * (white[:, :-2] + white[:, 1:-1] + 0.5 * white[:, 2:]) / 1.5
    if random.random() < 0.35:
        mains = 2 * np.pi * random.choice([50.0, 60.0]) * time
        noise += random.lognormal(np.log(0.004), 0.6) * random.normal(0, 1, (9, 1)) * np.sin(mains)
    if random.random() < 0.2:
        electrode = int(random.integers(9))
        centre, width = random.uniform(time[0], time[-1]), random.uniform(0.1, 0.4)
        noise[electrode] += random.normal(0, 0.25) * np.exp(-0.5 * ((time - centre) / width) ** 2)
    return np.asarray(noise)


def _to_microvolts(leads: Floats) -> NDArray[np.int16]:
    """(12, T) int16; III, aVR, aVL and aVF are computed from the rounded I and II."""
    rounded = np.rint(leads * 1000).clip(-16000, 16000).astype(np.int64)
    i, ii = rounded[:2]
    limbs = np.stack([i, ii, ii - i, -(i + ii) // 2, i - ii // 2, ii - i // 2])
    return np.concatenate([limbs, rounded[2:]]).astype(np.int16)
