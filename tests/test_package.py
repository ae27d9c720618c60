"""The repository as a whole: versions agree; notebooks, package and README are in step.

Chapters use earlier chapters only, and an installed wheel works anywhere.
"""
import ast, filecmp, json, os, re, shutil, subprocess, sys
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path
import nbformat, pytest
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT/'saliency_nb'
# all but the tour, which exports nothing
CHAPTERS = [p for p in sorted((ROOT/'nbs').glob('[0-9][0-9]*_*.ipynb')) if p.stem != '00_tour']
NUMBER = {path.stem.split('_', 1)[1]: number for number, path in enumerate(CHAPTERS)} # module -> position
METADATA = ('setup.py', 'settings.ini', 'pyproject.toml', 'README.md', 'LICENSE', 'MANIFEST.in')

def read(path): return path.read_text(encoding='utf-8')

def names(folder, pattern='*.py'): return sorted(p.name for p in folder.glob(pattern) if p.is_file())

@contextmanager
def tools():
    "Tools of the repository can be imported."
    sys.path.insert(0, str(ROOT/'tools'))
    try: yield
    finally: sys.path.pop(0)

def command(*args, cwd=ROOT, path=ROOT):
    "Run a command, with `path` first where Python imports from; its output, or a failed test that shows it."
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'} | dict(PYTHONPATH=str(path))
    asked, both = [str(a) for a in args], dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    done = subprocess.run(asked, cwd=cwd, env=env, **both)
    assert done.returncode == 0, done.stdout
    return done.stdout

def copy_of_sources(folder):
    "What the package is made from, without build leftovers."
    for name in METADATA: shutil.copy(ROOT/name, folder)
    skip = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', 'lightning_logs')
    for name in ('saliency_nb', 'nbs'): shutil.copytree(ROOT/name, folder/name, ignore=skip)
    return folder

def test_versions_agree():
    settings = ConfigParser(delimiters=['='])
    settings.read(ROOT/'settings.ini', encoding='utf-8')
    found = re.search(r'__version__ = "(.+)"', (PACKAGE/'__init__.py').read_text())
    assert settings['DEFAULT']['version'] == found[1]

def test_readme_in_step():
    with tools(): from readme import readme
    text, pictures = readme()
    assert read(ROOT/'README.md') == text, 'README.md differs from nbs/index.ipynb: run `make readme`'
    for path, content in pictures.items():
        assert (ROOT/path).read_bytes() == content, f'{path}: run `make readme`'

def test_form_gets_no_worse():
    "Counts of what a reader must unpick, in tools/style.json, may only shrink."
    with tools(): from style import BASELINE, above, faults
    worse = list(above(faults(), json.loads(BASELINE.read_text())))
    assert not worse, '\n'.join(worse)

def text_of_tests(): return '\n'.join(map(read, (ROOT/'tests').glob('test_*.py')))

def test_promises_have_their_tests():
    promised = set(re.findall(r'`(test_\w+)`', read(ROOT/'docs/promises.md')))
    there = set(re.findall(r'def (test_\w+)', text_of_tests()))
    assert promised and not promised - there, f'no such tests: {sorted(promised - there)}'

def test_each_kind_of_attack_has_several_examples():
    rows = read(ROOT/'tests/README.md').split('| kind')[1]
    named = set(re.findall(r'`(test_\w+)`', rows.split('\n\n')[0]))
    text = text_of_tests()
    def several(name): return re.search(rf'parametrize\((?:(?!\ndef ).)*\ndef {name}\(', text, re.DOTALL)
    alone = [name for name in named if not several(name)]
    assert named and not alone, f'no such tests, or with one example only: {sorted(alone)}'

def test_every_package_has_an_allowed_licence_and_hashes():
    "docs/licences.md tells of all packages of the lock, whose files nothing else can take the place of."
    with tools(): from licences import is_allowed, locked
    rows = re.findall(r'^\| (\S+) \| (\S+) \| (.+) \|$', read(ROOT/'docs/licences.md'), re.MULTILINE)
    told = {name: version for name, version, _ in rows if name not in ('package', '---')}
    assert told == locked(), 'requirements.lock has changed: run `python tools/licences.py`'
    assert not [row for row in rows[2:] if not is_allowed(row[2])]
    for refused in ('GPL-2.0-only', 'MIT AND Proprietary', 'not said'): assert not is_allowed(refused)
    entries = re.split(r'^(?=[A-Za-z0-9])', read(ROOT/'requirements.lock'), flags=re.MULTILINE)[1:]
    assert {entry.split('==')[0] for entry in entries} == set(told)
    assert all('--hash=sha256:' in e for e in entries)

def test_links_of_readme_exist():
    links = re.findall(r'\]\((?!\w+:|#)([^)#\s]+)', read(ROOT/'README.md'))
    assert not [link for link in links if not (ROOT/link).exists()]

def test_package_in_step(tmp_path):
    copy = copy_of_sources(tmp_path)
    for path in (copy/'saliency_nb').glob('*.py'):
        if path.name != '__init__.py': path.unlink()
    export = 'from nbdev.doclinks import nbdev_export; nbdev_export.__wrapped__()'
    command(sys.executable, '-c', export, cwd=copy, path=copy)
    assert names(PACKAGE) == names(copy/'saliency_nb')
    compared = filecmp.cmpfiles(PACKAGE, copy/'saliency_nb', names(PACKAGE), shallow=False)
    faulty = compared[1] + compared[2] # differ, cannot be compared
    assert not faulty, f'{faulty} differ from the notebooks: run `nbdev-export`'

def imported_names(node):
    "Modules that an import names, also those of `from saliency_nb import bases`."
    if isinstance(node, ast.Import): return [a.name for a in node.names]
    if not isinstance(node, ast.ImportFrom): return []
    module = f"saliency_nb.{node.module or ''}".rstrip('.') if node.level else node.module
    return [f'{module}.{a.name}' for a in node.names] if module == 'saliency_nb' else [module]

def used_modules(path):
    "Modules of this package that the code cells of a notebook import, demonstrations included."
    cells = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == 'code']
    code = [TransformerManager().transform_cell(c) for c in cells if not c.startswith('%%')]
    for node in ast.walk(ast.parse('\n'.join(code))):
        yield from (n.split('.')[1] for n in imported_names(node) if n.startswith('saliency_nb.'))

@pytest.mark.parametrize('path', CHAPTERS, ids=lambda p: p.stem)
def test_uses_no_later_chapter(path):
    later = {m for m in used_modules(path) if NUMBER.get(m, -1) > NUMBER[path.stem.split('_', 1)[1]]}
    assert not later, f'{path.name} uses {sorted(later)}'

@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    "Folder that holds the installed wheel."
    source = copy_of_sources(tmp_path_factory.mktemp('source'))
    wheels, target = tmp_path_factory.mktemp('wheels'), tmp_path_factory.mktemp('installed')
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '--quiet']
    command(*pip, 'wheel', '--no-deps', '--no-build-isolation', '--no-index', '-w', wheels, source)
    command(*pip, 'install', '--no-deps', '--no-index', '--target', target, next(wheels.glob('*.whl')))
    return target

def test_wheel_holds_tables_and_analyses(installed):
    inside = installed/'saliency_nb'
    assert names(inside/'tables', '*') == names(PACKAGE/'tables', '*') != []
    assert (inside/'kernels/python3/kernel.json').is_file()
    assert names(inside/'analyses', '*') == names(ROOT/'nbs/analyses', '*.ipynb')
    assert 'model.ipynb' in names(inside/'analyses', '*')
    def shipped(place): return {f.relative_to(place) for f in (place/'zoo').rglob('*') if f.is_file()}
    assert shipped(inside) == shipped(PACKAGE) and len(shipped(inside)) > 20

IMPORT_EACH = '''import importlib, sys
for m in sys.argv[1:]: print(importlib.import_module("saliency_nb." + m).__file__)'''

def test_wheel_works_outside_the_repository(installed, tmp_path):
    places = command(sys.executable, '-c', IMPORT_EACH, *NUMBER, cwd=tmp_path, path=installed).split()
    assert places == [str(installed/'saliency_nb'/f'{m}.py') for m in NUMBER]

def test_wheel_has_the_command(installed, tmp_path):
    said = command(sys.executable, installed/'bin'/'saliency-nb', '--help', cwd=tmp_path, path=installed)
    for word in ('world', 'run', 'report'): assert word in said
