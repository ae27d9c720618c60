"""Calibrations: every run of the tests does a small version of them.

With NIGHTLY=1 (`make nightly`) they take as many draws as their claims need, and the numbers are kept in
bench/nightly.csv.
"""
import os
from pathlib import Path
import pandas as pd

NIGHTLY = bool(os.environ.get('NIGHTLY'))
LOG = Path(__file__).resolve().parent.parent/'bench/nightly.csv'

def noted(what, **numbers):
    "Print the numbers of a calibration, and keep those of a nightly one."
    print(what, {k: round(float(v), 4) for k, v in numbers.items()})
    if not NIGHTLY: return
    old = pd.read_csv(LOG) if LOG.is_file() else pd.DataFrame(columns=['what', 'number', 'value'])
    new = pd.DataFrame([dict(what=what, number=k, value=round(float(v), 4)) for k, v in numbers.items()])
    pd.concat([old[old.what != what], new]).sort_values(['what', 'number']).to_csv(LOG, index=False)
