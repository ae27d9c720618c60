"""Dissection as it happens to people: in several processes, killed and resumed.

Its sums against plain loops on random inputs, and the level and power of its test."""
import json, os, runpy, signal, subprocess, sys, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch, xarray as xr
from scipy import ndimage
import dissection_job
from dissection_job import Noise, model_of_noise
from given import Given, batch_of, no_pictures # noqa: F401 - a fixture
from nightly import NIGHTLY, noted
from saliency_nb.chance import PARTNERS, Layouts, RegionMasks, paired_test, partners, q_values, strata
from saliency_nb.core import rng
from saliency_nb import dissection, thresholds as reference
from saliency_nb.dissection import Alignment, Contrast, Probe, alignments, contrasts, over_regions
from saliency_nb.thresholds import adaptive_thresholds, reference_pass, sample_thresholds, two_tails
from together import together

ROOT = Path(__file__).resolve().parent.parent
JOB = ROOT/'tests/dissection_job.py'
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}
ENVIRONMENT |= dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
TORCHRUN = '-m', 'torch.distributed.run', '--standalone'

def started(*arguments, processes=1):
    "Start tests/dissection_job.py, by torchrun where there is more than one process."
    by = [] if processes == 1 else [*TORCHRUN, f'--nproc-per-node={processes}']
    command = [sys.executable, *by, JOB, *map(str, arguments)]
    said = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen(command, env=ENVIRONMENT, **said)

def job(*arguments, processes=1):
    "Wait until it has ended well."
    process = started(*arguments, processes=processes)
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, out

def here(*arguments):
    "A job in this process, where no process is tested: starting one takes longer than all it does."
    threads, read = torch.get_num_threads(), dissection.read_image
    torch.set_num_threads(1)
    try: dissection_job.work(*arguments)
    finally:
        torch.set_num_threads(threads)
        dissection.read_image = read

@pytest.fixture(scope='module')
def one(tmp_path_factory):
    "One process, batches of 7."
    path = tmp_path_factory.mktemp('one')/'alignment.nc'
    here(path, 7, 0)
    return xr.load_dataset(path, engine='h5netcdf')

def same(path, one):
    "Every number of a result is that of one process: float64 to 1e-9, float32 to its rounding."
    other = xr.load_dataset(path, engine='h5netcdf')
    assert set(one.data_vars) == set(other.data_vars)
    assert (one.iou > 0).all() and one.p_value.notnull().all()
    for k in one.data_vars:
        close = 1e-9 if one[k].dtype == np.float64 else 1e-5
        assert np.allclose(other[k], one[k], rtol=close, atol=close, equal_nan=True), k

def test_two_and_three_processes(tmp_path, one):
    for n, batch in ((2, 7), (3, 4)):
        together(n, dissection_job.work, tmp_path/f'{n}.nc', batch, 0)
        same(tmp_path/f'{n}.nc', one)

def images_done(folder):
    "How many images the sums in a folder hold."
    return sum(int(torch.load(f)['done'].sum()) for f in folder.glob('[!.]*.pt'))

def test_killed_and_resumed_by_others(tmp_path, one):
    folder, deadline = tmp_path/'sums', time.time() + 240
    victim = started(tmp_path/'killed.nc', 5, .05, folder)
    while images_done(folder) < 20:
        assert victim.poll() is None and time.time() < deadline, victim.communicate()[0]
        time.sleep(.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert 20 <= images_done(folder) < 61 and not (tmp_path/'killed.nc').exists()
    job(tmp_path/'resumed.nc', 5, 0, folder, processes=2) # by two processes, although one had begun
    assert images_done(folder) == 61
    same(tmp_path/'resumed.nc', one)

def test_any_order(tmp_path, one):
    here(tmp_path/'reversed.nc', 7, 0, tmp_path/'sums', 'reversed')
    same(tmp_path/'reversed.nc', one)

# against plain loops

IMAGES, BASES = 23, 6
FEW = 5, 7 # cells

def few_regions(g):
    "Four semantics, the last ones rare; in the first image one region covers everything."
    found = []
    for _ in range(IMAGES):
        there = {}
        for c, frequency in enumerate((.9, .6, .3, .1)):
            if g.random() < frequency: there[f's{c}'] = g.random(FEW) < .4
        found.append(there)
    found[0] = {'everything': np.ones(FEW, bool)}
    return Given(found)

def tied_maps(g): return torch.from_numpy(g.normal(size=(IMAGES, BASES, *FEW))).float().round(decimals=1)

def in_batches(probe, logits, parts):
    "Sums of given maps, in four batches."
    names = len(probe.layouts.count)
    low, high = (np.full(BASES, v, np.float32) for v in (-.5, .5))
    thresholds = xr.DataArray(high, dict(lower=('basis', low)), ('basis',))
    overlap, contrast = Alignment(thresholds, names), Contrast(BASES, names, IMAGES)
    for positions in np.array_split(np.arange(IMAGES), 4):
        batch = batch_of(probe, logits, parts, positions)
        overlap.add(batch)
        contrast.add(batch)
    return overlap, contrast

def summed(seed):
    "Given maps, and what is found by summing over them."
    g = rng(seed, 'loops')
    probe = Probe(few_regions(g), FEW, FEW)
    logits, parts = tied_maps(g), tied_maps(g)
    overlap, contrast = in_batches(probe, logits, parts)
    maps = dict(probe=probe, logits=logits, parts=parts)
    return SimpleNamespace(**maps, contrast=contrast, alignment=alignments(overlap, probe.layouts.count))

def iou_of(on, region): return np.array([(o & region).sum() / (o | region).sum() for o in on])

def share_of(on, region): return np.array([(o & region).sum() / region.sum() for o in on])

def by_loops(probe, on, c):
    "IoU with a semantic's regions and with partners' regions, and how far the share that is on is ahead."
    rows = dict(iou=[], chance_iou=[], ahead=[])
    for i in probe.layouts.members[c]:
        mine = probe.masks.one(i, c)
        rows['iou'].append(iou_of(on[i], mine))
        theirs = [probe.masks.one(j, c) for name, j, _ in probe.partners.of(i).T if name == c]
        if not theirs: continue
        rows['chance_iou'].append(np.mean([iou_of(on[i], r) for r in theirs], 0))
        rows['ahead'].append(share_of(on[i], mine) - np.mean([share_of(on[i], r) for r in theirs], 0))
    return {k: np.array(v) for k, v in rows.items()}

def check_alignment(case, on, suffix):
    "One side of the thresholds."
    for c in range(len(case.probe.layouts.count)):
        found = {k: case.alignment[k + suffix][c] for k in ('iou', 'chance_iou', 'p_value')}
        rows = by_loops(case.probe, on.flatten(2).numpy(), c)
        if len(rows['iou']): assert np.allclose(found['iou'], rows['iou'].mean(0))
        if not len(rows['ahead']):
            assert np.isnan(found['chance_iou']).all()
            continue
        assert np.allclose(found['chance_iou'], rows['chance_iou'].mean(0))
        d = rows['ahead']
        expected = paired_test(d.sum(0), (d**2).sum(0), len(d))
        assert np.allclose(found['p_value'], expected, equal_nan=True)

def between(part, region):
    "Mean inside a region minus outside it, for each basis."
    values = part.flatten(1).numpy()
    return values[:, region].mean(1) - values[:, ~region].mean(1)

def check_contrast(case):
    "Sums over images that have a semantic; a region that covers everything has no outside."
    expected = np.zeros((len(case.probe.layouts.count), BASES))
    for i in range(IMAGES):
        for c, region in zip(*case.probe.masks[i]):
            if not region.all(): expected[c] += between(case.parts[i], region)
    found = case.contrast.sums['contrast']
    assert np.allclose(found[:, :BASES], expected, atol=1e-4) and not found[:, BASES:].any() # no prior

def visits_of(probe, c):
    "Images that lack a semantic, the image whose region each is given, and how often that one is given."
    for i in range(IMAGES):
        for name, j, times in probe.guests.of(i).T:
            if name == c: yield i, j, times

def check_elsewhere(case):
    "The same regions on images that lack the semantic."
    sums = case.contrast.sums
    for c in range(len(case.probe.layouts.count)):
        visits = list(visits_of(case.probe, c))
        assert not {i for i, *_ in visits} & set(case.probe.layouts.members[c])
        expected, guests = np.zeros(BASES), set()
        for i, j, times in visits:
            region = case.probe.masks.one(j, c)
            if region.all(): continue
            guests.add(j)
            expected += between(case.parts[i], region) / times
        assert np.allclose(sums['elsewhere'][c, :BASES], expected, atol=1e-4)
        assert np.isclose(sums['hosted'][c], len(guests))

@pytest.mark.parametrize('seed', range(6))
@pytest.mark.usefixtures('no_pictures')
def test_sums_against_loops(seed):
    case = summed(seed)
    check_alignment(case, case.logits > .5, '')
    check_alignment(case, case.logits < -.5, '_lower')
    check_contrast(case)
    check_elsewhere(case)
    sides, count = contrasts(case.contrast), case.probe.layouts.count
    # the region that covers everything counts for the alignment, not for the contrast
    assert np.array_equal(sides['fold_count'].sum(1), count) and sides['fold_sides'].sum() == count.sum() - 1
    found = case.alignment
    assert np.allclose(found['fold_iou'].sum(1), found['iou'][:, :BASES] * count[:, None], atol=1e-5)

def test_images_without_regions():
    maps = torch.rand(3, 2, 4)
    assert over_regions(maps, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)).shape == (0, 2)
    assert torch.allclose(over_regions(maps, torch.ones(1, 4), torch.tensor([2])), maps[2].sum(1)[None])

# thresholds

KINDS = dict(
    normal=lambda g: g.normal(size=20_000),
    heavy=lambda g: g.standard_t(2, 20_000),
    skewed=lambda g: np.exp(2 * g.normal(size=20_000)),
    huge=lambda g: 1e10 * g.normal(size=20_000),
    far=lambda g: 1e4 + .1 * g.normal(size=20_000))

@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('quantile', [.05, .5, .8, .99])
def test_tails_of_any_distribution(kind, quantile):
    values = KINDS[kind](rng(0, 'tails', kind)).astype(np.float32)
    tails = two_tails(values, quantile)
    (upper, active), (lower, below) = tails[:2], tails[2:]
    assert active == (values > upper).mean() and below == (values < lower).mean()
    most = .01 if kind == 'far' else .001 # float32 has steps of 0.001 at 10,000
    for share in (active, below): assert -1e-9 <= 1 - quantile - share < most

def test_constant_sparse_and_saturated_bases_are_named():
    g = rng(0, 'kinds')
    constant, sparse = np.full(5000, 3.), np.maximum(g.normal(-1.5, 1, 5000), 0)
    saturated = 100 * g.normal(size=5000)
    t = sample_thresholds(np.stack([constant, sparse, saturated]).astype(np.float32))
    assert t.dead.values.tolist() == [1, 0, 0] and t.tied.values.tolist() == [1, 1, 0] and t.active[0] == 0
    assert float(t[1]) == 0 and .05 < t.active[1] < .1 and t.saturated[2] > .9

def smooth_image(i):
    values = ndimage.gaussian_filter(rng(0, 'smooth', i).normal(size=(3, 48, 64)), (0, 4, 4))
    return torch.from_numpy(values).float()

def test_a_sample_against_all_places():
    "On the same images each basis is active in the share that is asked for, within half a percentage point."
    model, images = model_of_noise(), torch.stack([smooth_image(i) for i in range(300)])
    few = adaptive_thresholds(model, images, least=15_000, budget=0) # 50 of 192 places
    everything = reference_pass(model, images).sample()
    active = (everything > few.values[:, None]).mean(1)
    assert few.places == 15_000 and everything.shape[1] == 300 * 192
    assert abs(active - .2).max() < .01 and abs(active - .2).mean() < .005

# level and power of the test, on simulated maps over simulated layouts

GRID, NAMES = (12, 16), 8 # cells; things

def box(middle, half):
    ends = np.stack([middle - half, middle + half]).clip(0, np.array(GRID) - 1).astype(int)
    (top, left), (bottom, right) = ends
    y, x = np.mgrid[:GRID[0], :GRID[1]]
    return (top <= y) & (y <= bottom) & (left <= x) & (x <= right)

def unit(v):
    "Of standard deviation 1 on each map."
    return v / v.std((-1, -2), keepdims=True)

ROWS = np.indices(GRID)[0]

def scene(g, condition, usual, horizon):
    "Regions of one image: the thing in question, number 0, is in every one."
    there = [c for c in range(NAMES) if c == 0 or g.random() < .67]
    found = {}
    for c in there:
        middle = usual[c] + g.normal(size=2) * (1.5, 2.5)
        found[f'thing {c}'] = box(middle, 2 * np.exp(.4 * g.normal(size=2)))
    if condition == 'alias': found['shiny'] = found['thing 0'] # an attribute that only this thing has
    if 'horizon' in condition:
        found['thing 0'] = box(np.array([horizon, g.uniform(.1, .9) * GRID[1]]), np.array([1.5, 1.5]))
        found |= {'sky': ROWS < horizon, 'ground': ROWS >= horizon}
    return found

def scenes(condition, images, seed):
    "Regions, and where bases usually are in each image (I, 1 or N, h, w)."
    g = rng(seed, condition, images)
    kind = g.integers(0, 2 if condition in ('layouts', 'defining') else 1, images)
    usual = g.uniform(.2, .8, (2, NAMES, 2)) * GRID
    if condition == 'defining': usual[1, 1:] = usual[0, 1:] # only the thing itself tells the kinds apart
    horizon = g.uniform(.2, .8, images) * GRID[0]
    if condition == 'horizon': horizon = horizon.round() # at a height that the regions show, in whole cells
    regions = Given([scene(g, condition, usual[k], at) for k, at in zip(kind, horizon)])
    if 'horizon' in condition: return regions, unit(-abs(ROWS - horizon[:, None, None]))[:, None]
    return regions, unit(ndimage.gaussian_filter(g.normal(size=(2, 8, *GRID)), (0, 0, 3, 3)))[kind]

def where_on(g, habit, detected):
    "Where eight bases are on, whose logits are their habit, what they detect and noise."
    images = len(detected)
    noise = unit(ndimage.gaussian_filter(g.normal(size=(images, 8, *GRID)), (0, 0, 2, 2)))
    z = noise + .6 * habit + .5 * g.normal(size=(images, 8, 1, 1)) + detected
    return z > np.quantile(z, .8, axis=(0, 2, 3), keepdims=True)

def ahead_of_partners(on, thing, table):
    "How much more of the thing is on than of its partners' regions, (I, N)."
    on, thing = on.reshape(*on.shape[:2], -1).astype(float), thing.reshape(len(thing), -1)
    def share(r): return np.einsum('ink,ik->in', on, r) / r.sum(1, keepdims=True)
    return share(thing) - np.mean([share(thing[table[:, j]]) for j in range(PARTNERS)], 0)

def p_values(condition, images, seed, detects=0.):
    "P-values of eight bases for the thing."
    regions, habit = scenes(condition, images, seed)
    g = rng(seed, 'bases', condition, images)
    thing = np.stack([f['thing 0'] for f in regions.found])
    on = where_on(g, habit, detects * thing[:, None])
    if condition == 'permuted':
        thing = thing[g.permutation(images)]
        regions.found = [f | {'thing 0': t} for f, t in zip(regions.found, thing)]
    layouts, name = Layouts(RegionMasks(regions, GRID)), regions.semantics.index('thing 0')
    table = partners(layouts, regions.ids, name, strata(layouts, name))
    d = ahead_of_partners(on, thing, table)
    return paired_test(d.sum(0), (d**2).sum(0), images)

BETWEEN = 'horizon between cells' # basis and thing share what no region shows: nobody can control for it

@pytest.mark.parametrize('images', [60, 300])
@pytest.mark.parametrize('condition', ['permuted', 'layouts', 'horizon', BETWEEN])
def test_level(condition, images):
    "A thousand tests, or 160, of bases that have nothing to do with the thing, given what regions show."
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
    assert paired_test(-d.sum(0), (d**2).sum(0), 20)[0] > .99
    assert np.isnan(paired_test(np.zeros(1), np.zeros(1), 20)).all()

def test_one_name_is_one_stratum():
    g = rng(0, 'one name')
    regions = Given([{'face': box(g.uniform(3, 8, 2), np.array([2, 2]))} for _ in range(25)])
    layouts = Layouts(RegionMasks(regions, GRID))
    alike = strata(layouts, 0)
    assert alike.tolist() == [0] * 25 and (partners(layouts, regions.ids, 0, alike) >= 0).all()

def test_sums_of_other_images_are_not_gone_on_from(tmp_path):
    model = model_of_noise()
    images = torch.randn(6, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    first = adaptive_thresholds(model, images, folder=tmp_path)
    other = adaptive_thresholds(model, 10 * images + 7, folder=tmp_path)
    assert not np.allclose(first, other) and np.allclose(other, adaptive_thresholds(model, 10 * images + 7))

def test_small_probes():
    middle = box(np.array([5, 5]), np.array([2, 2]))
    regions = Given([dict(a=middle), {}, dict(b=middle)])
    layouts = Layouts(RegionMasks(regions, GRID))
    alike = strata(layouts, 0)
    assert layouts.count.tolist() == [1, 1] and alike.tolist() == [0]
    assert (partners(layouts, regions.ids, 0, alike) == -1).all()
    assert np.isnan(q_values(np.array([np.nan, .5]))).tolist() == [True, False]

def test_sums_of_other_code_are_not_gone_on_from(tmp_path, monkeypatch):
    monkeypatch.setattr(dissection, 'read_image', lambda i, size: dissection_job.image(i))
    regions, model = Noise(), model_of_noise()
    regions.image_path = lambda i: i
    thresholds = xr.DataArray(np.zeros(12), dict(lower=('basis', np.full(12, -1.))), ('basis',))
    for code in ('this-code', 'this-code', 'other-code'):
        monkeypatch.setattr(reference, 'fingerprint_files', lambda files, code=code: code)
        dissection.dissect(model, regions, thresholds, (48, 64), folder=tmp_path)
    stamps = {f.name.split('_')[0] for f in tmp_path.glob('*.pt')}
    assert len(stamps) == 2

def test_the_bench_of_a_gpu_is_ready(monkeypatch, tmp_path):
    "bench/gpu.py from beginning to end, on whatever is here: it waits for the day when a GPU is lent."
    tiny = dict(backbone='resnet18', size='64 96', images=16, batch=4, semantics=30, out=tmp_path/'gpu.json')
    options = [part for k, v in tiny.items() for part in (f'--{k}', *str(v).split())]
    monkeypatch.syspath_prepend(ROOT/'bench')
    monkeypatch.setattr(sys, 'argv', ['bench/gpu.py', '--n-bases', '8', *options])
    runpy.run_path(str(ROOT/'bench/gpu.py'))
    found = json.loads((tmp_path/'gpu.json').read_text())
    for part in ('float32', 'bfloat16'):
        times = [found[part][k] for k in ('network_ms', 'dissection_ms', 'visual_genome_minutes')]
        assert min(times) > 0, part
