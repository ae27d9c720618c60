"""Each notebook is one test, run by nbdev's `test_nb`.

Chapters, and the parameterised notebooks of nbs/analyses with their default parameters. One of these runs by
papermill; `saliency-nb run` of test_cli.py and JupyterLab of test_browser.py start kernels for three others.
"""
import os
threads = '1' if 'PYTEST_XDIST_WORKER' in os.environ else '2' # two workers share two cores
os.environ |= dict(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads, OMP_WAIT_POLICY='PASSIVE')
os.environ |= dict(MPLBACKEND='agg', TOKENIZERS_PARALLELISM='false')
os.environ.pop('PYTHONDONTWRITEBYTECODE', None) # else every process that a test starts compiles torch again
import gc, shutil, sys
from pathlib import Path
import pytest

sys.dont_write_bytecode = False # of this process, too
ROOT = Path(__file__).parent
BY_PAPERMILL = {'planted_truth'} # analyses that people start so

def pytest_addoption(parser):
    parser.addoption('--nbflags', default='', help='nbdev test flags to run as well, e.g. "slow"')

def pytest_collect_file(parent, file_path):
    if file_path.suffix != '.ipynb' or not file_path.is_relative_to(ROOT/'nbs'): return
    if file_path.name.startswith(('_', '.')): return
    return NotebookFile.from_parent(parent, path=file_path)

def pytest_configure(config):
    "Workers import one after the other: else each compiles all modules of a new environment, 10 CPU seconds."
    if 'PYTEST_XDIST_WORKER' not in os.environ: return
    import fcntl
    with open(__file__) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        import saliency_nb.stages, saliency_nb.runs # noqa: F401, E401

def pytest_collection_finish(session):
    "What is imported stays: the garbage collector need not look through it again."
    gc.collect()
    gc.freeze()

def pytest_unconfigure(config): gc.unfreeze() # else libraries complain of what is left at the end

class NotebookFile(pytest.File):
    def collect(self):
        kind = Analysis if self.path.parent.name == 'analyses' else Chapter
        yield kind.from_parent(self, name=self.path.stem)

class NotebookError(Exception):
    "A cell of a notebook failed; the message holds its traceback."

class Notebook(pytest.Item):
    def reportinfo(self): return self.path, 0, f'notebook {self.path.name}'
    def repr_failure(self, exc):
        return str(exc.value) if isinstance(exc.value, NotebookError) else super().repr_failure(exc)

def executed(path, *flags):
    "Run a notebook in this process; flags: of cells that are run as well."
    from nbdev.config import get_config
    from nbdev.test import test_nb
    flags = dict(skip_flags=get_config(ROOT).tst_flags, force_flags=flags)
    passed, _ = test_nb(path, **flags, basepath=ROOT, profile=False)
    close_figures()
    if not passed: raise NotebookError(f'{path}: a cell failed (its traceback stands on stderr)')

class Chapter(Notebook):
    def runtest(self): executed(self.path, *self.config.getoption('--nbflags').split())

class Analysis(Notebook):
    "With its default parameters, in a folder of its own."
    def runtest(self):
        folder = self.session.config._tmp_path_factory.mktemp(self.name)
        if self.name in BY_PAPERMILL: by_papermill(self.path, folder)
        else: executed(Path(shutil.copy(self.path, folder)))

def by_papermill(path, folder):
    "In a kernel of its own, as `make planted` does; it takes seven CPU seconds to start."
    import papermill as pm
    from saliency_nb.runs import KERNEL, literal_path, own_kernel
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    source, target = map(literal_path, (path, folder/path.name))
    how = dict(cwd=folder, kernel_name=KERNEL, progress_bar=False)
    try:
        with own_kernel(): pm.execute_notebook(source, target, **how)
    except pm.PapermillExecutionError as e: raise NotebookError(f'{path}: {e}') from None

def close_figures():
    "Chapters run in one process: figures and models of the last one must not weigh on the next."
    if 'matplotlib.pyplot' in sys.modules: sys.modules['matplotlib.pyplot'].close('all')
    gc.collect()
