"""One record from one file of any known kind: WFDB, MUSE XML, DICOM, EDF, arrays and sound.

What a file does not say (rate, lead names, unit) has to be given; nothing is guessed, and what is given must
agree with what the file says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fairseq_ecg.contracts import Record
from fairseq_ecg.data import array_format
from fairseq_ecg.data.array_format import Numbers, agree, read_array, record_of
from fairseq_ecg.data.audio_format import read_sound
from fairseq_ecg.data.dicom_format import read_dicom
from fairseq_ecg.data.edf_format import read_edf
from fairseq_ecg.data.muse_format import read_muse
from fairseq_ecg.data.raw_files import with_limb_leads
from fairseq_ecg.data.record import known_leads
from fairseq_ecg.data.wfdb_record import read_wfdb_record
from fairseq_ecg.errors import DataError

_COMPLETE: dict[str, Callable[[Path], Record]] = {
    ".hea": read_wfdb_record,
    ".xml": read_muse,
    ".dcm": read_dicom,
    ".edf": read_edf,
}
"""Kinds whose files say everything of themselves."""
_SOUND = (".wav", ".flac")
SUFFIXES = (*_COMPLETE, *array_format.SUFFIXES, *_SOUND)


def read_record(
    path: Path | str,
    *,
    sampling_rate: int | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
) -> Record:
    """Read one ECG.

    Args:
        path: ``.hea`` (WFDB; the signal files lie beside it), ``.xml`` (GE MUSE), ``.dcm`` (DICOM waveform),
            ``.edf`` (EDF, EDF+), ``.mat`` (fairseq-signals: ``feats``, ``curr_sample_rate``; or an array per
            lead, or one matrix), ``.npy`` (lead, time), ``.npz`` (an array per lead, of any length), ``.csv``
            (a row per time, a column per lead, lead names in the first row or in ``leads``), ``.wav`` or
            ``.flac`` (a channel per lead; integer samples count ``unit``). Where eight leads are recorded the
            four others are computed.
        sampling_rate: Hz; required for .npy, .npz, .csv and a .mat that does not hold it.
        leads: names of the signals in their order; required unless the file names them. A .mat of 12 leads is
            in the standard order by definition of its format.
        unit: of the stored numbers; required but for .hea, .xml, .dcm, .edf and .mat (mV by definition of its
            format).

    Raises:
        DataError: the file cannot be read, does not say what is needed, or contradicts what was given.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: no known kind of ECG file; known: {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if suffix in _COMPLETE:
        record = with_limb_leads(_COMPLETE[suffix](path))
        agree(path, "sampling_rate", sampling_rate, record.sampling_rate)
        agree(path, "leads", None if leads is None else known_leads(leads), record.leads)
        if unit is not None:
            raise DataError(f"{path}: the header states the unit; leave unit={unit!r} out")
        return record
    if suffix in _SOUND:
        signal, rate = read_sound(path)
        found = Numbers(signal, sampling_rate=rate)
        return record_of(path, found, sampling_rate=sampling_rate, leads=leads, unit=unit)
    return read_array(path, sampling_rate=sampling_rate, leads=leads, unit=unit)
