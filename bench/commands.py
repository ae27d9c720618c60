"""How long the commands of the README take on a data set of photographs: processor seconds and minutes of one
run each.

python bench/commands.py ../shared/data/osie [FOLDER]   writes bench/commands.json
"""
import json
import os
import shutil
import sys
import time
from pathlib import Path

from saliency_nb.core import versions
from start import ROOT, cpu_seconds

def journey(data, folder):
    "Name of a command -> its arguments, in the order in which one needs the other."
    run = folder/'mine'
    photograph = sorted((data/'stimuli').glob('*.jpg'))[0]
    return {
        'check-data': ['check-data', data, '--out', folder/'checked'],
        'run': ['run', '--data', data, '--out', run],
        'people': ['people', data, '--out', folder/'people'],
        'dissect': ['dissect', run, '--batch', 5],
        'explain': ['explain', photograph, '--out', folder/'explained'],
        'predict': ['predict', data/'stimuli', '--out', folder/'maps'],
        'score': ['score', folder/'maps', '--data', data, '--out', folder/'scored']}

def timed(arguments):
    "One command, which may print."
    start = time.monotonic()
    spent = cpu_seconds(list(map(str, arguments)), ROOT, check=True)
    return dict(cpu_seconds=round(spent), minutes=round((time.monotonic() - start) / 60, 1))

def main(data, folder='runs/commands'):
    data, folder = Path(data).resolve(), Path(folder).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    found = {}
    for name, arguments in journey(data, folder).items():
        found[name] = timed(arguments)
        print(f'{name:12} {found[name]}', flush=True)
    images = len(list((data/'stimuli').glob('*.jpg')))
    known = dict(command=f'python bench/commands.py {sys.argv[1]}', images=images, cores=os.cpu_count())
    known |= dict(versions=versions(), took=found)
    (ROOT/'bench/commands.json').write_text(json.dumps(known, indent=1) + '\n')

if __name__ == '__main__': main(*sys.argv[1:])
