"""The form of notebooks and code: what a reader can hold in the head. Counts per file may only shrink.

python tools/style.py            the worst of each rule, and what is above tools/style.json
python tools/style.py --update   write lower counts into tools/style.json, never higher ones
"""
import ast
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT/'tools/style.json'
EXPORTED, BODY = 25, 15 # lines of an exported cell; of a function without its signature and docstring
MEDIAN, NINE_TENTHS, MOST = 6, 16, 40 # lines of code cells of a notebook
MODULE = 600 # lines of a module

def notebooks():
    "Chapters, analyses, appendix and index."
    return sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)

def code_of(cell):
    "Lines of a code cell without blank ones and directives."
    lines = ''.join(cell['source']).splitlines()
    return [line for line in lines if line.strip() and not line.startswith('#|')]

def is_exported(cell): return cell['cell_type'] == 'code' and '#| export' in ''.join(cell['source'])

def is_parameters(cell):
    "Papermill wants all parameters in one cell: a table, one row for each."
    return 'parameters' in cell['metadata'].get('tags', [])

def is_import(cell):
    nodes = parsed(cell).body
    return bool(nodes) and all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in nodes)

def parsed(cell):
    "The syntax tree of a cell; magics count as nothing."
    source = ''.join(cell['source'])
    kept = [line for line in source.splitlines() if not line.lstrip().startswith(('%', '!'))]
    return ast.parse('\n'.join(kept))

def shows_figure(cell):
    data = [output.get('data', {}) for output in cell.get('outputs', [])]
    return any('image/png' in d for d in data)

def body_lines(function):
    "Lines of a function after its signature and docstring."
    first = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - first[0].lineno + 1 if first else 0

def tree_faults(tree):
    "What a syntax tree holds that a reader must unpick."
    comprehensions = ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            if len(node.targets[0].elts) > 2: yield 'more than two targets'
        if isinstance(node, comprehensions):
            inner = [n for n in ast.walk(node) if isinstance(n, comprehensions)]
            if len(inner) > 1: yield 'nested comprehension'
        if isinstance(node, ast.FunctionDef) and body_lines(node) > BODY: yield 'long function'

def cell_faults(code):
    "Faults of single code cells."
    for cell in code:
        yield from tree_faults(parsed(cell))
        if not is_exported(cell): continue
        if len(code_of(cell)) > EXPORTED: yield 'long export'
        defined = [n for n in parsed(cell).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        if len(defined) > 1: yield 'more than one definition'

def order_faults(cells, code):
    "Faults of the order of cells."
    for cell, following in zip(code, code[1:], strict=False):
        both = is_exported(cell) and is_exported(following)
        if both and not is_import(cell): yield 'export after export'
    for cell, following in zip(cells, [*cells[1:], None], strict=False):
        prose = following is not None and following['cell_type'] == 'markdown'
        if cell['cell_type'] == 'code' and shows_figure(cell) and not prose: yield 'figure without a sentence'

def notebook_faults(path):
    "Counts of faults of a notebook."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    code = [c for c in cells if c['cell_type'] == 'code']
    found = Counter([*cell_faults(code), *order_faults(cells, code)])
    found['cells above 40 lines'] = sum(len(code_of(c)) > MOST for c in code if not is_parameters(c))
    lengths = [len(code_of(c)) for c in code if code_of(c)]
    if len(lengths) > 1:
        found['median cell'] = max(0, round(median(lengths)) - MEDIAN)
        found['long tenth'] = max(0, round(quantiles(lengths, n=10)[-1]) - NINE_TENTHS)
    return +found

def module_faults(path):
    "Counts of faults of a module that is no notebook's export alone: its length."
    return +Counter({'long module': max(0, len(path.read_text(encoding='utf-8').splitlines()) - MODULE)})

def ruff_faults():
    "Counts of ruff's findings, by file and rule (pyproject.toml)."
    where = 'saliency_nb', 'nbs', 'bench', 'tests', 'tools', 'conftest.py', 'setup.py'
    asked = [sys.executable, '-m', 'ruff', 'check', '--no-cache', '--output-format', 'json', *where]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in (0, 1): raise SystemExit(f'ruff: {done.stderr.strip()}')
    found = {}
    for fault in json.loads(done.stdout):
        path = str(Path(fault['filename']).relative_to(ROOT))
        found.setdefault(path, Counter())[fault['code'] or 'syntax'] += 1
    return found

def faults():
    "All counts: file -> rule -> number."
    found = ruff_faults()
    modules = sorted((ROOT/'saliency_nb').glob('[!_]*.py'))
    measured = [(p, notebook_faults) for p in notebooks()] + [(p, module_faults) for p in modules]
    for path, measure in measured:
        counts = measure(path)
        if counts: found.setdefault(str(path.relative_to(ROOT)), Counter()).update(counts)
    return {path: dict(sorted(counts.items())) for path, counts in sorted(found.items())}

def above(found, allowed):
    "Sentences, one for each count above the baseline."
    for path, counts in found.items():
        for rule, n in counts.items():
            most = allowed.get(path, {}).get(rule, 0)
            if n > most: yield f'{path}: {rule}: {n}, {most} in tools/style.json'

def lowered(found, allowed):
    "The baseline with what has become less."
    kept = {}
    for path, counts in allowed.items():
        left = {rule: min(n, found.get(path, {}).get(rule, 0)) for rule, n in counts.items()}
        left = {rule: n for rule, n in left.items() if n}
        if left: kept[path] = left
    return kept

def main():
    found = faults()
    allowed = json.loads(BASELINE.read_text()) if BASELINE.is_file() else found
    if '--update' in sys.argv: BASELINE.write_text(json.dumps(lowered(found, allowed), indent=1) + '\n')
    total = Counter()
    for counts in found.values(): total.update(counts)
    for rule, n in total.most_common(): print(f'{n:6} {rule}')
    sentences = list(above(found, allowed))
    print('\n'.join(sentences) or 'nothing above tools/style.json')
    return bool(sentences)

if __name__ == '__main__': sys.exit(main())
