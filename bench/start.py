"""Processor seconds of commands from a cold start, beside an older revision's: median of five, alternated.

python bench/start.py [OLD_CHECKOUT] [PHOTOGRAPH]   writes bench/start.json
"""
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from saliency_nb.core import versions

ROOT = Path(__file__).resolve().parent.parent
RUNS = 5
QUICK = ['--help', '--version', 'predcit', 'download --list', 'models', 'run --help'] # one is misspelt

def cpu_seconds(arguments, checkout, check=False):
    "User and system time of one process and its children."
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = os.environ | dict(PYTHONPATH=str(checkout))
    command = [sys.executable, '-m', 'saliency_nb.cli', *arguments]
    subprocess.run(command, env=env, cwd=checkout, capture_output=True, check=check)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

def measured(arguments, checkouts):
    "Medians, by checkout."
    times = {name: [] for name in checkouts}
    for _ in range(RUNS):
        for name, path in checkouts.items(): times[name].append(cpu_seconds(arguments, path))
    return {name: round(median(t), 2) for name, t in times.items()}

def main(old='', photograph=''):
    checkouts = dict(now=ROOT) | (dict(before=Path(old).resolve()) if old else {})
    found = {what: measured(what.split(), checkouts) for what in QUICK}
    if photograph:
        photo = str(Path(photograph).resolve())
        for name in ('predict', 'explain'):
            times = []
            for _ in range(RUNS):
                with tempfile.TemporaryDirectory() as out:
                    times.append(cpu_seconds([name, photo, '--out', out], ROOT))
            found[f'{name}, one photograph'] = dict(now=round(median(times), 2))
    for what, times in found.items(): print(f'{what:25} {times}')
    command = 'python bench/start.py [OLD] [PHOTOGRAPH]'
    known = dict(command=command, versions=versions(), cpu_seconds=found)
    (ROOT/'bench/start.json').write_text(json.dumps(known, indent=1) + '\n')

if __name__ == '__main__': main(*sys.argv[1:])
