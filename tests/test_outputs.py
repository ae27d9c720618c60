"What readers see is what today's code prints: nightly, chapters run anew and their text is compared."
import json, os, re, subprocess, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
NIGHTLY = bool(os.environ.get('NIGHTLY'))
CHAPTERS = sorted((ROOT/'nbs').glob('[0-9]*.ipynb'))
OFTEN_OTHERS = ( # what may differ from run to run
    (re.compile(r'/tmp/\S+|\b\w{8}/(?=world|scene_)'), 'PATH'), # temporary folders, or their last letters
    (re.compile(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d'), 'THEN'),
    (re.compile(r'[\d.,]+ (s|ms|MB|GB|images/s|minutes?|min)\b'), 'N'), # times and memory
    (re.compile(r'( at )?0x[0-9a-f]+'), ''), # addresses
    (re.compile(r'(?<![a-z])(?=[a-z]*\d)[0-9a-f]{7,}( with changes)?'), 'REVISION OR HASH'),
    (re.compile(r'.*\babout .* left.*\n?'), ''), # progress
    (re.compile(r'-?\d*\.\d+(e-?\d+)?'), 'NUMBER')) # the last digits hang on the processor

def text_of(cell):
    "Printed text and plain results of a cell, without what differs from run to run."
    parts = [o.get('text') or o.get('data', {}).get('text/plain', '') for o in cell.get('outputs', [])]
    text = '\n'.join(''.join(part) for part in parts)
    for pattern, said in OFTEN_OTHERS: text = pattern.sub(said, text)
    return re.sub(r'[\s\-]+', ' ', text).strip() # widths of columns follow the numbers

def compared(committed, executed):
    "Cells whose text is another: id, before, now."
    now = {c['id']: text_of(c) for c in executed['cells'] if c['cell_type'] == 'code'}
    before = {c['id']: text_of(c) for c in committed['cells'] if c['cell_type'] == 'code'}
    return [(k, v, now.get(k)) for k, v in before.items() if now.get(k) != v]

def test_another_text_is_noticed():
    "And other times, folders and last digits are not."
    def notebook(text): return dict(cells=[dict(cell_type='code', id='a', outputs=[dict(text=[text])])])
    told = notebook('12 of 19 names, made in 3 s in /tmp/x; Spearman 0.92')
    assert not compared(told, notebook('12 of 19 names, made in 14 s in /tmp/y; Spearman 0.93'))
    assert compared(told, notebook('11 of 19 names, made in 3 s in /tmp/x; Spearman 0.92'))
    assert compared(told, notebook(''))

@pytest.mark.skipif(not NIGHTLY, reason='executes every chapter anew, half an hour; `make nightly` does it')
@pytest.mark.parametrize('chapter', CHAPTERS if NIGHTLY else CHAPTERS[:1], ids=lambda p: p.stem)
def test_outputs_are_those_of_todays_code(chapter, tmp_path):
    options = ['--to=notebook', '--execute', '--ExecutePreprocessor.timeout=1200', '--output-dir', tmp_path]
    asked = [sys.executable, '-m', 'nbconvert', '--log-level', 'ERROR', *options, chapter]
    known = os.environ | dict(MPLBACKEND='module://matplotlib_inline.backend_inline')
    subprocess.run(list(map(str, asked)), cwd=chapter.parent, env=known, check=True)
    executed = json.loads((tmp_path/chapter.name).read_text(encoding='utf-8'))
    other = compared(json.loads(chapter.read_text(encoding='utf-8')), executed)
    assert not other, '\n\n'.join(f'{k}\n--- committed\n{a}\n--- today\n{b}' for k, a, b in other)
