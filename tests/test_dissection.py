"Dissection as it happens to people: several processes, killed and resumed; and on random inputs against plain loops; calibration of its p-values."
import os, signal, subprocess, sys, time
from pathlib import Path
import numpy as np, pytest, torch, xarray as xr
from scipy import ndimage, stats
from dissection_job import Noise
from saliency_nb.chance import habits_of, q_values
from saliency_nb.core import DataError, rng
from saliency_nb.dissection import Dissection, dissect_bits, intersections, packed, results, tail_bits, tail_sums
from saliency_nb.semantics import Regions
from saliency_nb.thresholds import LogitHistograms, Zoom

ROOT = Path(__file__).resolve().parent.parent
JOB = ROOT/'tests/dissection_job.py'
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != 'IN_TEST'} | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')

def job(*arguments, processes=1, wait=True):
    "Start tests/dissection_job.py, by torchrun where there is more than one process."
    start = [sys.executable] if processes == 1 else [sys.executable, '-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={processes}']
    started = subprocess.Popen([*start, JOB, *map(str, arguments)], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if not wait: return started
    out, _ = started.communicate(timeout=400)
    assert started.returncode == 0, out
    return out

@pytest.fixture(scope='module')
def one(tmp_path_factory):
    "One process, batches of 7."
    path = tmp_path_factory.mktemp('one')/'alignment.nc'
    job(path, 7, 0)
    return xr.load_dataset(path, engine='h5netcdf')

def same(path, one):
    "Every number of a result is that of one process, bit by bit."
    other = xr.load_dataset(path, engine='h5netcdf')
    for k in one.data_vars: assert np.array_equal(other[k], one[k], equal_nan=True), k
    assert set(one.data_vars) == set(other.data_vars) and (one.iou > 0).all() and one.z.notnull().all()

def test_two_and_three_processes(tmp_path, one):
    for n, batch in ((2, 7), (3, 4)): job(tmp_path/f'{n}.nc', batch, 0, processes=n); same(tmp_path/f'{n}.nc', one)

def test_killed_and_resumed_by_others(tmp_path, one):
    started, folder, deadline = job(tmp_path/'killed.nc', 5, .05, tmp_path/'sums', wait=False), tmp_path/'sums', time.time() + 240
    def done(): return sum(int(np.load(f)['done'].sum()) for f in folder.glob('[!.]*.npz'))
    while done() < 20: assert started.poll() is None and time.time() < deadline, started.communicate()[0]; time.sleep(.02)
    started.send_signal(signal.SIGKILL); started.wait()
    assert 20 <= done() < 61 and not (tmp_path/'killed.nc').exists()
    job(tmp_path/'resumed.nc', 5, 0, folder, processes=2); assert done() == 61; same(tmp_path/'resumed.nc', one) # by two processes, although one had begun
    from_bits = dissect_bits(folder/'bits', Noise())
    for k in from_bits.data_vars: assert np.array_equal(from_bits[k], one[k], equal_nan=True), k
    next((folder/'bits').glob('*.json')).unlink()
    with pytest.raises(DataError, match='of 61 images'): dissect_bits(folder/'bits', Noise())

def test_any_order(tmp_path, one):
    job(tmp_path/'reversed.nc', 7, 0, tmp_path/'sums', 'reversed'); same(tmp_path/'reversed.nc', one)

class Given(Regions):
    "Regions given as arrays."
    def __init__(self, found): super().__init__({f'image_{i}': '' for i in range(len(found))}, sorted({n for f in found for n in f}), []); self.found, self.order = found, np.arange(len(found))
    def masks(self, i, grid): f = self.found[self.order[int(i.split('_')[1])]]; return list(f), np.stack(list(f.values())) if f else np.zeros((0, *grid), bool)

@pytest.mark.parametrize('seed', range(20))
def test_counts_on_random_inputs(seed):
    g = rng(seed, 'counts'); n, c, k = (int(v) for v in g.integers(1, (20, 9, 400)))
    z, masks = g.normal(size=(n, k)).astype(np.float32).round(1), g.random((c, k)) < g.random() # rounded: ties with the thresholds
    upper, lower = (np.full(n, v, np.float32) for v in (.8, -.8))
    both = intersections(tail_bits(z, upper, lower).reshape(2 * n, -1), packed(masks))
    on = np.concatenate([z > upper[:, None], z < lower[:, None]])
    assert np.array_equal(both, [[(o & m).sum() for o in on] for m in masks])

@pytest.mark.parametrize('seed', range(10))
def test_realised_shares(seed):
    g = rng(seed, 'shares'); q = g.uniform(.05, .95)
    kinds = [g.normal(size=20_000), g.standard_t(2, 20_000), np.exp(2 * g.normal(size=20_000)), 1e4 + g.normal(size=20_000) * .1, np.where(g.random(20_000) < .01, 1e3, 1) * g.normal(size=20_000)]
    values = torch.from_numpy(np.stack(kinds)).float()
    h = LogitHistograms(len(values))
    for part in values.split(3_333, 1): h.add(part)
    for upper in (True, False):
        t, share = Zoom(h, q, upper).add(values).threshold(); t = torch.from_numpy(t)[:, None]
        assert np.array_equal(share, (values > t if upper else values < t).double().mean(1)) and abs(share - (1 - q))[[0, 1, 2, 4]].max() < .001 and (share <= 1 - q + 1e-9).all()
        assert abs(share[3] - (1 - q)) < .01 # around 10,000 float32 has steps of 0.001, an hundredth of this basis's spread: ties

def dissected(on, regions, grid, min_images=10):
    "Alignment of given active places (I, N, K)."
    habits = habits_of(regions, grid); total = Dissection(habits, on.shape[1])
    for i, names, masks in habits.masks:
        both = torch.stack([torch.from_numpy(on[i]), torch.from_numpy(~on[i])]).float()
        total.add_tails(i, names, masks, tail_sums(both, None, torch.from_numpy(masks).float(), total.usual_of(names)))
    return results(total, min_images)

def smooth(images, n, h, w, seed):
    "Active places of smooth random bases with habits of their own, (I, N, h w)."
    g = rng(seed, 'bases'); unit = lambda v, axes=None: v / v.std(axes, keepdims=True)
    z = unit(ndimage.gaussian_filter(g.normal(size=(images, n, h, w)), (0, 0, 2, 2))) + .6 * unit(ndimage.gaussian_filter(g.normal(size=(n, h, w)), (0, 5, 5)), (1, 2)) + .5 * g.normal(size=(images, n, 1, 1))
    return (z > np.quantile(z, .8, axis=(0, 2, 3), keepdims=True)).reshape(images, n, -1)

def boxes(images, semantics, h, w, seed):
    "Boxes, each semantic with its usual place and size."
    g = rng(seed, 'boxes'); found = [{} for _ in range(images)]
    for c in range(semantics):
        rate, middle, size = g.uniform(.3, .9), g.uniform(.2, .8, 2) * (h, w), g.uniform(1, 7)
        for i in np.flatnonzero(g.random(images) < rate):
            at, half = middle + g.normal(size=2) * (3, 5), size * np.exp(.4 * g.normal(size=2)); (y0, x0), (y1, x1) = ((at + s * half).clip(0, (h - 1, w - 1)).astype(int) for s in (-1, 1))
            found[i][f'box_{c:02d}'] = mask = np.zeros((h, w), bool); mask[y0:y1 + 1, x0:x1 + 1] = True
    return Given(found)

def test_calibration_on_permuted_labels():
    "Regions of other images: p-values uniform, and hardly ever a discovery; through the engine itself."
    on, regions, g = smooth(60, 8, 12, 16, 1), boxes(60, 6, 12, 16, 1), rng(0, 'permutations')
    ps, anything = [], 0
    for _ in range(200):
        regions.order = g.permutation(60); found = dissected(on, regions, (12, 16))
        ps.append(found.p_value.values.ravel()); anything += bool((found.q_value < .05).any())
    ps = np.array(ps)
    assert anything / 200 <= .05 + 2 * (.05 * .95 / 200)**.5
    rejected = np.mean([stats.kstest(p, 'uniform').pvalue < .05 for p in ps]) # bases share images, so somewhat more than 5% is expected
    assert rejected < .12 and abs(np.mean(ps) - .5) < .02 and (ps < .05).mean() < .06, rejected

def test_planted_bases_are_matched():
    "Basis n = regions of semantic n with noise: each is matched to its own."
    regions, g = boxes(60, 6, 12, 16, 2), rng(0, 'planted')
    on = np.stack([[(f.get(f'box_{n:02d}', np.zeros((12, 16), bool)).ravel() ^ (g.random(192) < .15)) for n in range(6)] for f in regions.found])
    found = dissected(on, regions, (12, 16))
    assert (found.z.argmax('semantic') == np.arange(6)).all() and (found.lift.argmax('semantic') == np.arange(6)).all()
    assert all(found.q_value[n, n] < .01 for n in range(6)) and (found.q_value_dependent.fillna(1) >= found.q_value.fillna(1)).all()

def test_untested_pairs_say_so():
    regions = boxes(30, 3, 12, 16, 3); found = dissected(smooth(30, 4, 12, 16, 3), regions, (12, 16), min_images=31)
    assert found.p_value.isnull().all() and found.q_value.isnull().all() and found.iou.notnull().all()
    assert np.isnan(q_values(np.array([np.nan, .5]))).tolist() == [True, False]
