"Dissection as it happens to people: several processes, killed and resumed; on random inputs against plain loops; and the level and power of its test."
import json, os, runpy, signal, subprocess, sys, time
from pathlib import Path
import numpy as np, pytest, torch, xarray as xr
from scipy import ndimage
import dissection_job
from dissection_job import Noise, model_of_noise
from given import Given, batch_of, no_pictures
from nightly import NIGHTLY, noted
from saliency_nb.chance import PARTNERS, Layouts, RegionMasks, paired_test, partners, q_values, strata
from saliency_nb.core import rng
from saliency_nb import dissection, thresholds as reference
from saliency_nb.dissection import Alignment, Contrast, Probe, alignments, contrasts, over_regions
from saliency_nb.thresholds import adaptive_thresholds, reference_pass, sample_thresholds, two_tails

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

def here(*arguments):
    "A job in this process, where it is not a process that is tested: starting one takes longer than all it does."
    threads, read = torch.get_num_threads(), dissection_job.dissection.read_image
    torch.set_num_threads(1)
    try: dissection_job.work(*arguments)
    finally:
        torch.set_num_threads(threads)
        dissection_job.dissection.read_image = read

@pytest.fixture(scope='module')
def one(tmp_path_factory):
    "One process, batches of 7."
    path = tmp_path_factory.mktemp('one')/'alignment.nc'
    here(path, 7, 0)
    return xr.load_dataset(path, engine='h5netcdf')

def same(path, one):
    "Every number of a result is that of one process: sums in float64 to 1e-9, those kept in float32 to its rounding."
    other = xr.load_dataset(path, engine='h5netcdf')
    assert set(one.data_vars) == set(other.data_vars) and (one.iou > 0).all() and one.p_value.notnull().all()
    for k in one.data_vars:
        close = 1e-9 if one[k].dtype == np.float64 else 1e-5
        assert np.allclose(other[k], one[k], rtol=close, atol=close, equal_nan=True), k

def test_two_and_three_processes(tmp_path, one):
    for n, batch in ((2, 7), (3, 4)):
        job(tmp_path/f'{n}.nc', batch, 0, processes=n)
        same(tmp_path/f'{n}.nc', one)

def test_killed_and_resumed_by_others(tmp_path, one):
    folder, deadline = tmp_path/'sums', time.time() + 240
    started = job(tmp_path/'killed.nc', 5, .05, folder, wait=False)
    def done(): return sum(int(torch.load(f)['done'].sum()) for f in folder.glob('[!.]*.pt'))
    while done() < 20:
        assert started.poll() is None and time.time() < deadline, started.communicate()[0]
        time.sleep(.02)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert 20 <= done() < 61 and not (tmp_path/'killed.nc').exists()
    job(tmp_path/'resumed.nc', 5, 0, folder, processes=2) # by two processes, although one had begun
    assert done() == 61
    same(tmp_path/'resumed.nc', one)

def test_any_order(tmp_path, one):
    here(tmp_path/'reversed.nc', 7, 0, tmp_path/'sums', 'reversed')
    same(tmp_path/'reversed.nc', one)

# against plain loops

@pytest.mark.parametrize('seed', range(6))
def test_sums_against_loops(seed, no_pictures):
    g, grid, n, images = rng(seed, 'loops'), (5, 7), 6, 23
    found = [{f's{c}': g.random(grid) < .4 for c in range(4) if g.random() < (.9, .6, .3, .1)[c]} for _ in range(images)]
    found[0] = {'everything': np.ones(grid, bool)}
    regions = Given([{k: m for k, m in f.items() if m.any()} for f in found])
    logits, parts = (torch.from_numpy(g.normal(size=(images, n, *grid))).float().round(decimals=1) for _ in range(2)) # rounded: ties
    t = xr.DataArray(np.full(n, .5, np.float32), dict(lower=('basis', np.full(n, -.5, np.float32))), ('basis',))
    probe = Probe(regions, grid, grid)
    masks, layouts, count = probe.masks, probe.layouts, probe.layouts.count
    total, lifted = Alignment(t, len(count)), Contrast(n, len(count), images)
    for positions in np.array_split(np.arange(images), 4):
        batch = batch_of(probe, logits, parts, positions)
        total.add(batch)
        lifted.add(batch)
    result = alignments(total, count)
    for side, suffix in ((logits > .5, ''), (logits < -.5, '_lower')):
        on = side.flatten(2).numpy()
        for c in range(len(count)):
            iou, chance, ahead = [], [], []
            for i in layouts.members[c]:
                mine = masks.one(i, c)
                iou.append([(o & mine).sum() / (o | mine).sum() for o in on[i]])
                theirs = [masks.one(j, c) for name, j, _ in probe.partners.of(i).T if name == c]
                if not theirs: continue
                chance.append(np.mean([[(o & r).sum() / (o | r).sum() for o in on[i]] for r in theirs], 0))
                share = lambda r: np.array([(o & r).sum() / r.sum() for o in on[i]])
                ahead.append(share(mine) - np.mean([share(r) for r in theirs], 0))
            if iou: assert np.allclose(result['iou' + suffix][c], np.mean(iou, 0))
            if chance: assert np.allclose(result['chance_iou' + suffix][c], np.mean(chance, 0))
            else: assert np.isnan(result['chance_iou' + suffix][c]).all()
            if ahead:
                d = np.array(ahead)
                assert np.allclose(result['p_value' + suffix][c], paired_test(d.sum(0), (d**2).sum(0), len(d)), equal_nan=True)
    def between(i, m):
        p = parts[i].flatten(1).numpy()
        return p[:, m].mean(1) - p[:, ~m].mean(1)
    contrast = np.zeros((len(count), n))
    for i in range(images):
        for c, m in zip(*masks[i]):
            if not m.all(): contrast[c] += between(i, m)
    assert np.allclose(lifted.sums['contrast'][:, :n], contrast, atol=1e-4) and not lifted.sums['contrast'][:, n].any() # no prior
    for c in range(len(count)): # the same regions on images that lack the semantic
        visits = [(i, j, times) for i in range(images) for name, j, times in probe.guests.of(i).T if name == c]
        assert not {i for i, *_ in visits} & set(layouts.members[c])
        visits = [(i, j, times) for i, j, times in visits if not masks.one(j, c).all()]
        elsewhere = sum((between(i, masks.one(j, c)) / times for i, j, times in visits), np.zeros(n))
        assert np.allclose(lifted.sums['elsewhere'][c, :n], elsewhere, atol=1e-4)
        assert np.isclose(lifted.sums['hosted'][c], len({j for _, j, _ in visits}))
    sides = contrasts(lifted) # the region that covers everything counts for the alignment, not for the contrast
    assert np.array_equal(sides['fold_count'].sum(1), count) and sides['fold_sides'].sum() == count.sum() - 1
    assert np.allclose(result['fold_iou'].sum(1), result['iou'][:, :n] * count[:, None], atol=1e-5)

def test_images_without_regions():
    maps = torch.rand(3, 2, 4)
    assert over_regions(maps, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)).shape == (0, 2)
    assert torch.allclose(over_regions(maps, torch.ones(1, 4), torch.tensor([2])), maps[2].sum(1)[None])

# thresholds

KINDS = dict(normal=lambda g: g.normal(size=20_000), heavy=lambda g: g.standard_t(2, 20_000), skewed=lambda g: np.exp(2 * g.normal(size=20_000)),
             huge=lambda g: 1e10 * g.normal(size=20_000), far=lambda g: 1e4 + .1 * g.normal(size=20_000))

@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('quantile', [.05, .5, .8, .99])
def test_tails_of_any_distribution(kind, quantile):
    values = KINDS[kind](rng(0, 'tails', kind)).astype(np.float32)
    upper, active, lower, below = two_tails(values, quantile)
    assert active == (values > upper).mean() and below == (values < lower).mean()
    for share in (active, below): assert -1e-9 <= 1 - quantile - share < (.01 if kind == 'far' else .001) # float32 has steps of 0.001 at 10,000

def test_constant_sparse_and_saturated_bases_are_named():
    g = rng(0, 'kinds')
    t = sample_thresholds(np.stack([np.full(5000, 3.), np.maximum(g.normal(-1.5, 1, 5000), 0), 100 * g.normal(size=5000)]).astype(np.float32))
    assert t.dead.values.tolist() == [1, 0, 0] and t.tied.values.tolist() == [1, 1, 0] and t.active[0] == 0
    assert float(t[1]) == 0 and .05 < t.active[1] < .1 and t.saturated[2] > .9

def test_a_sample_against_all_places():
    "On the same images the share that is active is the one asked for within half a percentage point, for every basis."
    model, images = model_of_noise(), torch.stack([torch.from_numpy(ndimage.gaussian_filter(rng(0, 'smooth', i).normal(size=(3, 48, 64)), (0, 4, 4))).float() for i in range(300)])
    few = adaptive_thresholds(model, images, least=15_000, budget=0) # 50 of 192 places
    everything = reference_pass(model, images).sample()
    active = (everything > few.values[:, None]).mean(1)
    assert few.places == 15_000 and everything.shape[1] == 300 * 192
    assert abs(active - .2).max() < .01 and abs(active - .2).mean() < .005

# level and power of the test, on simulated maps over simulated layouts

GRID, NAMES = (12, 16), 8

def box(middle, half):
    (top, left), (bottom, right) = ((middle + s * half).clip(0, np.array(GRID) - 1).astype(int) for s in (-1, 1))
    y, x = np.mgrid[:GRID[0], :GRID[1]]
    return (top <= y) & (y <= bottom) & (left <= x) & (x <= right)

def scenes(condition, images, seed):
    "Regions (the thing in question is in every image), and where bases usually are in each image (I, 1 or N, h, w)."
    g, (h, w) = rng(seed, condition, images), GRID
    kind = g.integers(0, 2 if condition in ('layouts', 'defining') else 1, images)
    usual = g.uniform(.2, .8, (2, NAMES, 2)) * GRID
    if condition == 'defining': usual[1, 1:] = usual[0, 1:] # only the thing itself tells the kinds apart
    horizon, y = g.uniform(.2, .8, images) * h, np.arange(h)[:, None] + np.zeros((1, w))
    if condition == 'horizon': horizon = horizon.round() # at a height that the regions show, in whole cells
    found = []
    for i in range(images):
        here = [c for c in range(NAMES) if c == 0 or g.random() < .67]
        f = {f'thing {c}': box(usual[kind[i], c] + g.normal(size=2) * (1.5, 2.5), 2 * np.exp(.4 * g.normal(size=2))) for c in here}
        if condition == 'alias': f['shiny'] = f['thing 0'] # an attribute that only this thing has
        if 'horizon' in condition:
            f['thing 0'] = box(np.array([horizon[i], g.uniform(.1, .9) * w]), np.array([1.5, 1.5]))
            f |= {'sky': y < horizon[i], 'ground': y >= horizon[i]}
        found.append({k: m for k, m in f.items() if m.any()})
    unit = lambda v: v / v.std((-1, -2), keepdims=True)
    if 'horizon' in condition: habit = unit(-abs(y - horizon[:, None, None]))[:, None]
    else: habit = unit(ndimage.gaussian_filter(g.normal(size=(2, 8, h, w)), (0, 0, 3, 3)))[kind]
    return Given(found), habit

def p_values(condition, images, seed, detects=0.):
    "P-values of eight bases for the thing."
    regions, habit = scenes(condition, images, seed)
    g = rng(seed, 'bases', condition, images)
    unit = lambda v: v / v.std((-1, -2), keepdims=True)
    thing = np.stack([f['thing 0'] for f in regions.found])
    z = unit(ndimage.gaussian_filter(g.normal(size=(images, 8, *GRID)), (0, 0, 2, 2))) + .6 * habit + .5 * g.normal(size=(images, 8, 1, 1))
    z = z + detects * thing[:, None]
    if condition == 'permuted': thing = thing[g.permutation(images)]; regions.found = [f | {'thing 0': t} for f, t in zip(regions.found, thing)]
    on = (z > np.quantile(z, .8, axis=(0, 2, 3), keepdims=True)).reshape(images, 8, -1)
    masks = RegionMasks(regions, GRID)
    layouts, name = Layouts(masks), regions.semantics.index('thing 0')
    table = partners(layouts, regions.ids, name, strata(layouts, name))
    flat = thing.reshape(images, -1)
    share = lambda r: np.einsum('ink,ik->in', on.astype(float), r) / r.sum(1, keepdims=True)
    d = share(flat) - np.mean([share(flat[table[:, j]]) for j in range(PARTNERS)], 0)
    return paired_test(d.sum(0), (d**2).sum(0), images)

BETWEEN = 'horizon between cells' # basis and thing share what no region shows: nobody can control for it

@pytest.mark.parametrize('images', [60, 300])
@pytest.mark.parametrize('condition', ['permuted', 'layouts', 'horizon', BETWEEN])
def test_level(condition, images):
    "Tests of bases that have nothing to do with the thing, given what regions show of the image: a thousand, or 160."
    p = np.concatenate([p_values(condition, images, seed) for seed in range(125 if NIGHTLY else 20)])
    found = (p < .05).mean()
    noted(f'chance: {condition}, {images} images', tests=len(p), below_05=found)
    least, most = (.02, .12 if condition == BETWEEN else .08) if NIGHTLY else (0, .13)
    assert least <= found <= most, found

@pytest.mark.parametrize('condition', ['permuted', 'layouts', 'defining', 'horizon', 'alias'])
def test_power(condition):
    "A detector is found, also where its thing defines the layout, or has two names."
    shown = 'one' if condition == 'permuted' else condition
    p = np.concatenate([p_values(shown, 300, seed, detects=.8) for seed in range(12)])
    assert (p < .05).mean() >= .9, (p < .05).mean()

def test_perfect_detectors_are_found():
    d = np.ones((20, 1)) # on at the region, never at the partners'
    assert paired_test(d.sum(0), (d**2).sum(0), 20)[0] < 1e-6
    assert np.isnan(paired_test(np.zeros(1), np.zeros(1), 20)).all() and paired_test(-d.sum(0), (d**2).sum(0), 20)[0] > .99

def test_one_name_is_one_stratum():
    g = rng(0, 'one name')
    regions = Given([{'face': box(g.uniform(3, 8, 2), np.array([2, 2]))} for _ in range(25)])
    layouts = Layouts(RegionMasks(regions, GRID))
    assert strata(layouts, 0).tolist() == [0] * 25 and (partners(layouts, regions.ids, 0, strata(layouts, 0)) >= 0).all()

def test_sums_of_other_images_are_not_gone_on_from(tmp_path):
    model, images = model_of_noise(), torch.randn(6, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    first = adaptive_thresholds(model, images, folder=tmp_path)
    other = adaptive_thresholds(model, 10 * images + 7, folder=tmp_path)
    assert not np.allclose(first, other) and np.allclose(other, adaptive_thresholds(model, 10 * images + 7))

def test_small_probes():
    regions = Given([{'a': box(np.array([5, 5]), np.array([2, 2]))}, {}, {'b': box(np.array([5, 5]), np.array([2, 2]))}])
    layouts = Layouts(RegionMasks(regions, GRID))
    assert layouts.count.tolist() == [1, 1] and (partners(layouts, regions.ids, 0, strata(layouts, 0)) == -1).all() and strata(layouts, 0).tolist() == [0]
    assert np.isnan(q_values(np.array([np.nan, .5]))).tolist() == [True, False]

def test_sums_of_other_code_are_not_gone_on_from(tmp_path, monkeypatch):
    monkeypatch.setattr(dissection, 'read_image', lambda i, size: dissection_job.image(i))
    regions, model = Noise(), model_of_noise()
    regions.image_path = lambda i: i
    thresholds = xr.DataArray(np.zeros(12), dict(lower=('basis', np.full(12, -1.))), ('basis',))
    stamps = lambda: {f.name.split('_')[0] for f in tmp_path.glob('*.pt')}
    for made_by in ('this code', 'this code', 'other code'):
        monkeypatch.setattr(reference, 'fingerprint_files', lambda files, made_by=made_by: made_by.replace(' ', '-'))
        dissection.dissect(model, regions, thresholds, (48, 64), folder=tmp_path)
    assert len(stamps()) == 2

def test_the_bench_of_a_gpu_is_ready(monkeypatch, tmp_path):
    "bench/gpu.py from beginning to end, on whatever is here: it waits for the day when a GPU is lent."
    tiny = dict(backbone='resnet18', size='64 96', images=16, batch=4, semantics=30, out=tmp_path/'gpu.json')
    options = [part for k, v in tiny.items() for part in (f'--{k}', *str(v).split())]
    monkeypatch.syspath_prepend(ROOT/'bench')
    monkeypatch.setattr(sys, 'argv', ['bench/gpu.py', '--n-bases', '8', *options])
    runpy.run_path(str(ROOT/'bench/gpu.py'))
    found = json.loads((tmp_path/'gpu.json').read_text())
    for part in ('float32', 'bfloat16'):
        assert min(found[part][k] for k in ('network_ms', 'dissection_ms', 'visual_genome_minutes')) > 0, part
