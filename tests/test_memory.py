"Memory: one budget for all that could be read again, released after each stage; the rest lies on the disk."
import gc, json, os, signal, subprocess, sys
from pathlib import Path
from types import SimpleNamespace
import pandas as pd, pytest, torch
from nbclient.exceptions import DeadKernelError
from nightly import NIGHTLY, noted
from saliency_nb import dictionaries, fixations, runs
from saliency_nb.bases import build_model
from saliency_nb.core import MEMORY, ParameterError, SaliencyError
from saliency_nb.fixations import SaliencyDataset, read_salicon
from saliency_nb.stages import Analysis
from saliency_nb.batches import Preloaded, memory, preloaded
from saliency_nb.training import train
from saliency_nb.world import make_world
from test_hostile import full_disk

ROOT = Path(__file__).resolve().parent.parent
TINY = dict(model='dinet', height=64, width=96, features=4, n_bases=4, epochs=1, epochs2=1, batch=4,
            accelerator='cpu')

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp('memory')/'world', n_images=16, size=(64, 96), seed=0)

@pytest.fixture
def images(world): return SaliencyDataset(read_salicon(world, 'train'), (64, 96))

@pytest.fixture(autouse=True)
def own_budget(monkeypatch):
    monkeypatch.setattr(MEMORY, 'taken', 0.)
    monkeypatch.setattr(MEMORY, 'limit', None)

def same(one, other):
    "Whether two datasets have the same items, to the last bit."
    for i in range(len(one)):
        a, b = one[i], other[i]
        assert a.keys() == b.keys() and a['id'] == b['id']
        assert all(v.equal(b[k]) for k, v in a.items() if torch.is_tensor(v))

def test_one_budget_for_all_sets(images):
    "The second set finds no room while the first is there, and finds it afterwards."
    MEMORY.allow(1.5 * memory(images))
    first = preloaded(images)
    assert isinstance(first, Preloaded) and preloaded(first) is first
    assert preloaded(images) is images and MEMORY.taken == pytest.approx(memory(images))
    del first
    gc.collect()
    assert MEMORY.taken == pytest.approx(0) and isinstance(preloaded(images), Preloaded)

def test_without_room_images_are_decoded_once(images, tmp_path, monkeypatch):
    "Into a file that nobody sees, so that nothing is left of it."
    MEMORY.allow(1e-9)
    decoded, load = [], fixations.load_rgb
    monkeypatch.setattr(fixations, 'load_rgb', lambda path: decoded.append(path) or load(path))
    kept = preloaded(images, tmp_path)
    for _ in range(3): same(kept, images)
    assert decoded.count(decoded[-1]) == 1 + 3 # once for it, thrice for the other
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize('room', ['none', 'little'])
def test_a_full_disk_costs_time_only(images, tmp_path, room, monkeypatch):
    MEMORY.allow(1e-9)
    full = SimpleNamespace(free=9)
    if room == 'none': monkeypatch.setattr(fixations.shutil, 'disk_usage', lambda folder: full)
    kept = preloaded(images, tmp_path)
    assert (kept.scratch is None) == (room == 'none')
    with full_disk():
        for _ in range(2): same(kept, images)

def test_workers_share_what_was_decoded(images, tmp_path):
    MEMORY.allow(1e-9)
    kept = preloaded(images, tmp_path)
    loader = torch.utils.data.DataLoader(kept, 4, num_workers=2)
    first = list(loader)
    assert all(kept.scratch.read(i) for i in range(len(kept))) # written by the workers
    for a, b in zip(first, loader): assert a['image'].equal(b['image'])

def test_a_training_is_the_same_from_the_disk_and_leaves_no_memory(world, tmp_path):
    tables = []
    for gigabytes in (1e-6, 1.):
        run = tmp_path/str(gigabytes)
        analysis = Analysis(run, world, names=False, memory=gigabytes, **TINY)
        analysis.phase1()
        gc.collect()
        assert MEMORY.taken == pytest.approx(0) and not analysis.items
        tables.append(pd.read_csv(run/'phase1/metrics.csv'))
    assert tables[0].equals(tables[1])

def test_memory_does_not_grow_with_the_images(tmp_path):
    "Images of 480 x 640 px, 6 MB each: NIGHTLY 10,000 in 8 GB."
    images, gigabytes = (10_000, 2.) if NIGHTLY else (200, .05)
    job = [sys.executable, ROOT/'tests/memory_job.py', tmp_path/'job', str(images), str(gigabytes)]
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    done = subprocess.run(job, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    noted(f'training on {images} images of 480 x 640', **found)
    assert found['peak'] < (8 if NIGHTLY else found['before'] + .9)

class Ending(torch.utils.data.Dataset):
    "Images whose worker is ended over one of them."
    def __init__(self, images): self.images, self.first = images, os.getpid()
    def __len__(self): return len(self.images)
    def __getitem__(self, i):
        if i == 3 and os.getpid() != self.first: os.kill(os.getpid(), signal.SIGKILL)
        return self.images[i]

def test_a_worker_that_is_ended_is_a_sentence(images, tmp_path):
    model = build_model('dinet', backbone='squeezenet1_0', n_bases=4, width=8)
    options = dict(epochs=1, batch=2, workers=1, trainer=dict(accelerator='cpu'))
    with pytest.raises(ParameterError, match='workers = 1.*was ended'):
        train(model, Ending(images), images, tmp_path, **options)

def test_a_kernel_that_is_ended_is_a_sentence(tmp_path, monkeypatch):
    def ended(*args, **options): raise DeadKernelError('Kernel died')
    monkeypatch.setattr(runs.pm, 'execute_notebook', ended)
    with pytest.raises(SaliencyError, match='its kernel was ended'):
        runs.execute('model', tmp_path, data='somewhere')

def test_places_that_a_dictionary_is_fitted_to_are_bounded(monkeypatch):
    monkeypatch.setattr(dictionaries, 'MOST_PLACES', 100)
    items = [dict(features=torch.rand(3, 4, 5))] * 10
    assert len(dictionaries.sampled_places(items)) == 100
    assert len(dictionaries.sampled_places(items, 6)) == 60
