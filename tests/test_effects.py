"What a name adds by itself, and what its place adds, on simulated maps whose answer is known."
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest, torch, xarray as xr
from scipy import ndimage
from given import Given, batch_of, boxed, density_on, no_pictures # noqa: F401 - a fixture
from nightly import NIGHTLY, noted
from saliency_nb.adjustment import (RESPONDS, Adjustment, adjusted, group_sums, object_design, responding,
    solved)
from saliency_nb.chance import FEWEST, PARTNERS
from saliency_nb.contributions import contrast_effect, effect_interval, local_effect
from saliency_nb.core import rng
from saliency_nb.dissection import MEANINGS, Alignment, Contrast, Probe, alignments, contrasts
from saliency_nb.regions import Regions
from saliency_nb.world import random_weights, sample_scene

GRID = (18, 24)

def box(middle, half):
    y, x = np.mgrid[:GRID[0], :GRID[1]]
    return (abs(y - middle[0]) <= half[0]) & (abs(x - middle[1]) <= half[1])

def smooth(g, shape, sigma=2):
    "Maps of noise, of standard deviation 1."
    v = ndimage.gaussian_filter(g.normal(size=(*shape, *GRID)), (*[0] * len(shape), sigma, sigma))
    return v / v.std((-1, -2), keepdims=True)

def scattered(seed, images):
    "One thing is always in the middle; seven have usual places, and are in six of ten images."
    g = rng(seed, 'scattered')
    usual, found = g.uniform(.15, .85, (8, 2)) * GRID, []
    for _ in range(images):
        there = {'middle': box(np.array(GRID) / 2 - .5 + .5 * g.normal(size=2), (2, 2.5))}
        for k in range(1, 8):
            if g.random() >= .6: continue
            middle = usual[k] + g.normal(size=2) * (2.5, 3.5)
            there[f'thing {k}'] = box(middle, 2 * np.exp(.3 * g.normal(size=2)))
        found.append(there)
    return Given(found)

y, x = ((np.arange(k) + .5) / k * 2 - 1 for k in GRID) # -1 to 1
y = y[:, None]
SHAPES = dict(
    gaussian=x**2 + y**2,
    above=x**2 + (y + .4)**2,
    anisotropic=.4 * x**2 + 2 * y**2,
    side=(x - .6)**2 + y**2)
BIAS = {k: 2 * np.exp(-v / .6) for k, v in SHAPES.items()} # nats

# position

def biased(regions, bias, seed):
    "Designs, and what maps of bias and noise are on them; usually: the mean of a thousand other maps."
    g = rng(seed, 'biased')
    noise, reference = smooth(g, (len(regions.ids),)), smooth(g, ()) / 1000**.5
    for i, own in zip(regions.ids, noise):
        design, cells = object_design(regions, i, GRID)
        values = {k: cells @ (b + own).ravel() for k, b in bias.items()}
        usual = {k: cells @ (b + reference).ravel() for k, b in bias.items()}
        yield i, design, values, usual

def effects_of_bias(seed):
    "Adjusted effects of each bias in a hundred images."
    regions = scattered(seed, 100)
    totals = {k: Adjustment(regions, 1) for k in BIAS}
    for total in totals.values(): total.images = 1
    for i, design, values, usual in biased(regions, BIAS, seed):
        for k, total in totals.items():
            total.add_objects(i, design, dict(lift=values[k][:, None]), dict(lift=usual[k][:, None]))
    for k, total in totals.items(): yield solved(total)[['effect', 'p_value']].to_dataframe().assign(bias=k)

def test_no_name_adds_anything_where_only_position_does():
    "Maps that do not see the image: bias of four shapes, and noise; one thing is always where the bias is."
    tables = [t for seed in range(125 if NIGHTLY else 25) for t in effects_of_bias(seed)]
    for k, table in pd.concat(tables).groupby('bias'):
        wrong = (table.p_value < .05).mean()
        largest = table.effect.groupby(level=0).mean().abs().max()
        numbers = dict(tests=len(table), false_positives=wrong, largest_bias_nats=largest)
        noted(f'adjusted effect, only position: {k}', **numbers)
        assert wrong <= (.08 if NIGHTLY else .11) and largest < (.05 if NIGHTLY else .15), (k, wrong, largest)

def contrast_of(regions, probe, maps):
    "Of maps of a hundred images."
    total = Contrast(1, len(regions.semantics), 100)
    for start in range(0, 100, 25): total.add(batch_of(probe, maps, maps, range(start, start + 25)))
    found = xr.Dataset({k: (MEANINGS[k][0], v) for k, v in contrasts(total).items()})
    return found.assign_coords(semantic=regions.semantics)

def contrasts_of_bias(seed):
    "Of each bias: P-values of the contrast and of its local part, and that part; the middle is in 80 images."
    regions = scattered(seed, 100)
    for there in regions.found[::5]: there.pop('middle')
    probe = Probe(regions, GRID, GRID)
    noise = torch.from_numpy(smooth(rng(seed, 'local'), (100,))[:, None]).float()
    for k, bias in BIAS.items():
        found = contrast_of(regions, probe, noise + torch.from_numpy(bias).float())
        local, sums = local_effect(found), found[['contrast', 'elsewhere']].sum('basis')
        assert np.allclose(sums.contrast, sums.elsewhere + local.effect, atol=1e-9) # C = C_pos + C_loc
        plain_p, local_p = (effect_interval(e)[2] for e in (contrast_effect(found), local))
        yield k, dict(plain=plain_p, local=local_p, effect=local.effect.values)

@pytest.mark.usefixtures('no_pictures')
def test_the_local_part_of_a_contrast_is_zero_where_only_position_speaks():
    found = {k: [] for k in BIAS}
    for seed in range(125 if NIGHTLY else 25):
        for k, one in contrasts_of_bias(seed): found[k].append(one)
    for k, seeds in found.items():
        plain = np.mean([one['plain'] < .05 for one in seeds])
        local = np.mean([one['local'] < .05 for one in seeds])
        bias = abs(np.mean([one['effect'] for one in seeds], 0)).max()
        numbers = dict(false_positives=local, false_positives_of_C=plain, largest_bias_nats=bias)
        noted(f'local contrast, only position: {k}', **numbers)
        assert local <= (.08 if NIGHTLY else .11) and bias < (.05 if NIGHTLY else .1) and plain > .5

def without_effect(hosts, names=1000, images=100):
    "Contrasts of names that are in all but so many images: image and place vary, and nothing else."
    g, each = rng(hosts, 'few hosts'), min(hosts, PARTNERS)
    own = g.normal(size=(names, images)) # what an image gives to every region
    region = .5 * g.normal(size=(names, images, each)) # what a region meets on each of its hosts
    host = np.argsort(g.random((names, images, hosts)))[..., :each]
    host[:, :hosts] = -1 # these have no region, and are hosts
    there = np.broadcast_to(np.arange(images) >= hosts, own.shape)
    met = np.take_along_axis(own[:, None], np.maximum(host, 0), 2) + region
    def by_host(v): return np.stack([np.where(host == h, v, 0).sum((1, 2)) / each for h in range(images)], 1)
    found = dict(fold_contrast=np.where(there, own, 0), fold_count=there, fold_hosts=by_host(met),
                 fold_elsewhere=np.where(there, met.mean(2), 0), fold_visits=by_host(1.))
    return xr.Dataset({k: (('semantic', 'fold'), v) for k, v in found.items()}, dict(semantic=range(names)))

@pytest.mark.parametrize('hosts', (1, 3, 5, 8, 20))
def test_a_local_part_is_not_known_where_few_images_lack_the_name(hosts):
    "A thousand names without any effect, each in all but a few of a hundred images."
    interval = effect_interval(local_effect(without_effect(hosts)))
    (low, high), p = interval[:2], interval[2]
    assert np.isnan(p).all() == np.isnan(low).all() == (hosts < FEWEST)
    if hosts < FEWEST: return
    wrong, covered = (p < .05).mean(), ((low <= 0) & (high >= 0)).mean()
    what = f'local contrast, {hosts} of 100 images lack the name'
    noted(what, false_positives=wrong, coverage=covered)
    assert wrong <= .08 and covered >= .92

# what is known

def population(seed, images, grid=(30, 40), size=(120, 160)):
    "Scenes with planted weights: regions, weights, and a row for each image: its design, map and usual map."
    g, weights = rng(seed, 'population'), random_weights(seed)
    scenes = {f'scene {i}': sample_scene(seed, i, size) for i in range(images)}
    regions, found = boxed(scenes, weights, size), []
    for i, scene in scenes.items():
        noise = 3 * ndimage.gaussian_filter(g.normal(size=grid), 3)
        found.append((*object_design(regions, i, grid), (density_on(grid, scene, weights) + noise).ravel()))
    usual = np.mean([v for *_, v in found], 0)
    rows = [(design, (cells @ v)[:, None], (cells @ usual)[:, None]) for design, cells, v in found]
    return SimpleNamespace(regions=regions, weights=pd.Series(weights), rows=rows)

def drawn(population, images):
    "The solution for some of its images; the usual map, like the network, is given."
    total = Adjustment(population.regions, 1)
    total.images = 1
    for k, i in enumerate(images):
        design, *maps = population.rows[i]
        values, usual = maps
        total.add_objects(f'draw {k}', design, dict(lift=values), dict(lift=usual))
    return solved(total)

SAMPLES = {30: 500, 80: 500, 300: 250} if NIGHTLY else {30: 25, 80: 25} # images in a sample -> samples

def intervals(seed):
    "Of samples of a population, beside the effects in all of it and the planted weights."
    all_of_it = population(seed, 5000 if NIGHTLY else 600)
    n = len(all_of_it.rows)
    truth = drawn(all_of_it, range(n)).effect
    for images, samples in SAMPLES.items():
        for r in range(samples):
            s = drawn(all_of_it, rng(seed, 'sample', r, images).integers(0, n, images))
            planted = all_of_it.weights[s.semantic.values]
            s = s.assign(truth=truth.sel(semantic=s.semantic), planted=('semantic', planted))
            yield s[['separating', 'low', 'high', 'truth', 'planted']].to_dataframe()

LEVELS = {'08 to 12': 12, '12 to 20': 20, '20 to 50': 50, 'over 50': np.inf} # images that separate: most

def test_intervals_cover_at_every_level_of_separation():
    "The additive summary of the whole population; and the planted weights, which is another question."
    table = pd.concat([t for seed in (20, 21) for t in intervals(seed)])
    assert table.low.isna().equals(table.separating < FEWEST)
    table = table.dropna()
    inside = table[['truth', 'planted']].apply(lambda v: v.between(table.low, table.high))
    level = pd.cut(table.separating, [FEWEST, *LEVELS.values()], labels=list(LEVELS), include_lowest=True)
    for k, part in inside.groupby(level, observed=True):
        covered = dict(cover_the_summary=part.truth.mean(), cover_planted_weights=part.planted.mean())
        noted(f'intervals of the adjusted effect, separating images {k}', intervals=len(part), **covered)
        if len(part) < 300: continue # fewer do not tell
        assert part.truth.mean() >= (.92 if NIGHTLY else .9), (k, part.truth.mean())
    assert inside.truth.mean() >= .92

class Faces(Regions):
    "A nose is on every face but some; hands and dogs are elsewhere."
    def __init__(self, images=60, apart=0):
        super().__init__({f'{i}': '' for i in range(images)}, ['dog', 'face', 'hand', 'nose'], [])
        self.apart = apart
    def masks(self, image, grid):
        g, found = rng(0, 'faces', image), {}
        order = g.permutation(3)
        for k, name in enumerate(('face', 'dog', 'hand')):
            if name != 'face' and g.random() >= .7: continue
            found[name] = box((g.uniform(3, 15), 4 + 8 * order[k]), (2, 2))
        if int(image) >= self.apart: found['nose'] = found['face']
        names = sorted(found)
        return names, np.stack([found[n] for n in names])

PLANTED = pd.Series(dict(dog=-.5, face=1., hand=.3, nose=.5))

def face_maps(regions):
    for i in regions.ids:
        m = smooth(rng(0, 'face map', i), ()) * .3
        for name, mask in zip(*regions.masks(i, GRID)): m = m + PLANTED[name] * mask
        yield i, m[None]

def test_names_that_never_come_apart_have_no_interval_but_their_sum_has():
    found = adjusted(face_maps(Faces()), Faces())
    table = found[['effect', 'low', 'high', 'separating']].to_dataframe()
    same, others = table.loc[['face', 'nose']], table.loc[['dog', 'hand']]
    assert same.low.isna().all() and others.low.notna().all() and (same.separating < 1).all()
    together = group_sums(found)
    assert together.names.tolist() == ['face + nose']
    relative = PLANTED.face + PLANTED.nose - PLANTED[['dog', 'hand']].mean()
    assert np.isclose(together.effect[0] - others.effect.mean(), relative, atol=.2)
    assert together.low[0] < together.effect[0] < together.high[0]

def test_images_that_separate_are_counted():
    few, many = (adjusted(face_maps(Faces(apart=k)), Faces(apart=k)) for k in (4, 30))
    nose = few.sel(semantic='nose')
    assert abs(float(nose.separating) - 4) < 1.5 and np.isnan(nose.low)
    nose = many.sel(semantic='nose')
    assert nose.separating > 15 and float(nose.low) < PLANTED.nose < float(nose.high)
    assert len(group_sums(many)) == 0

# names of bases

def neighbours(seed, images=120):
    "A lamp; a table, under it nine times in ten; and other things."
    g, found = rng(seed, 'neighbours'), []
    for _ in range(images):
        middle = g.uniform(.3, .7, 2) * GRID
        f = {'lamp': box(middle, (2, 2))} if g.random() < .6 else {}
        if (g.random() < .9) == bool(f): f['table'] = box(middle + (3, 0), (3, 3))
        for k in range(4):
            if g.random() < .5: f[f'other {k}'] = box(g.uniform(0, 1, 2) * GRID, (2, 2))
        found.append(f)
    return Given(found)

LAMPS, NOISE = slice(0, 4), slice(4, 8) # bases; the ninth is always the same

def logits_of_bases(regions, g):
    "Four that detect lamps, four that are noise, one that is constant."
    lamps = np.stack([f.get('lamp', np.zeros(GRID, bool)) for f in regions.found])
    seen = ndimage.gaussian_filter(lamps.astype(float), (0, .8, .8)) # features are blurred
    z = smooth(g, (len(lamps), 9)) - 1
    z[:, LAMPS] += 4 * seen[:, None] / seen.max()
    z[:, 8] = -3
    return torch.from_numpy(z).float()

def usual_activation(z, ids):
    total = torch.sigmoid(z).double().sum(0).numpy()
    return xr.Dataset(dict(total=(('basis', 'y', 'x'), total)), dict(image=list(map(str, ids))))

def named_bases(seed, images):
    "Names of bases by what they add, and q-values of names by overlap."
    regions = neighbours(seed, images)
    probe, z = Probe(regions, GRID, GRID), logits_of_bases(regions, rng(seed, 'detectors'))
    upper, lower = (z.transpose(0, 1).flatten(1).quantile(q, 1).numpy() for q in (.8, .2))
    thresholds = xr.DataArray(upper, dict(lower=('basis', lower)), ('basis',))
    overlap = Alignment(thresholds, len(regions.semantics))
    effect = Adjustment(regions, 9, usual_activation(z, regions.ids))
    for k in range(0, images, 40):
        batch = batch_of(probe, z, None, range(k, min(k + 40, images)))
        overlap.add(batch)
        effect.add(batch)
    q = pd.DataFrame(alignments(overlap, probe.layouts.count)['q_value'].T, columns=regions.semantics)
    return solved(effect), q

def noise_named(solution):
    "Share of the bases that are noise: that have a name, and whose estimate alone would give them one."
    names = responding(solution)
    estimate = solution.on.values[NOISE] >= RESPONDS
    return names.basis[names.basis.between(4, 7)].nunique() / 4, estimate.any(1).mean()

def lamps_named(solution, q, semantic):
    "Share of the bases that detect lamps that have this name, by what they add and by overlap."
    names = responding(solution)
    return (names.semantic.eq(semantic) & (names.basis < 4)).sum() / 4, (q[semantic][LAMPS] < .05).mean()

def shares_named(seed):
    "What bases are named, in a world of 120 images."
    solution, q = named_bases(seed, 120)
    assert np.isnan(solution.on[8]).all() and np.isnan(solution.on_frequency[8]).all()
    assert not (responding(solution).basis == 8).any()
    found = {}
    for s in ('lamp', 'table'): found[s], found[f'{s}_by_overlap'] = lamps_named(solution, q, s)
    found['noise'], found['noise_by_the_estimate_alone'] = noise_named(solution)
    return found

@pytest.mark.usefixtures('no_pictures')
def test_a_basis_is_named_by_what_it_detects_and_not_by_its_neighbour():
    share = pd.DataFrame([shares_named(seed) for seed in range(60 if NIGHTLY else 8)]).mean()
    noted('names of bases that detect lamps, and of noise; 120 images', **share)
    assert share.lamp >= .9 and share.table <= .05 and share.table_by_overlap > .5, share
    assert share.noise <= (.05 if NIGHTLY else .1), share

@pytest.mark.usefixtures('no_pictures')
def test_noise_is_not_named_where_images_are_few():
    shares = [noise_named(named_bases(seed, 60)[0]) for seed in range(60 if NIGHTLY else 8)]
    named, alone = np.mean(shares, 0)
    noted('names of bases that are noise; 60 images', named=named, named_by_the_estimate_alone=alone)
    assert named <= (.08 if NIGHTLY else .15) < alone

def scene_on_half(images=40):
    "Three things in most images, and a name that covers every second one."
    g, found = rng(0, 'scene'), []
    for i in range(images):
        f = {f'thing {k}': box(g.uniform(.2, .8, 2) * GRID, (2, 3)) for k in range(3) if g.random() < .7}
        if i % 2: f['scene'] = np.ones(GRID, bool)
        found.append(f)
    return Given(found)

def test_a_name_that_never_varies_within_an_image_is_not_known():
    regions, g = scene_on_half(), rng(0, 'scene maps')
    found = adjusted(((i, smooth(g, ())[None]) for i in regions.ids), regions)
    scene = found.sel(semantic='scene')
    assert scene.separating == 0 and scene['count'] == 20
    assert np.isnan([scene.low, scene.high, scene.p_value, scene.q_value]).all()
    assert found.low.drop_sel(semantic='scene').notnull().all()

def usual_map(total, images):
    "As from a reference pass of one basis over these images."
    return xr.Dataset(dict(total=(('basis', 'y', 'x'), total)), dict(image=list(images)))

def test_sums_with_another_usual_map_are_not_gone_on_from():
    regions = Given([{'thing': box((9, 12), (2, 2))}] * 3)
    def stamp(value, images=('a', 'b'), **options):
        return Adjustment(regions, 1, usual_map(np.full((1, *GRID), value), images), **options).stamp
    assert stamp(1.) == stamp(1.)
    assert len({stamp(1.), stamp(2.), stamp(1., ('a', 'c')), stamp(1., inside=['a'])}) == 4

def place_column(regions, usual, inside, own):
    "Of the design of image_0, whose map is `own`: what its place usually gives."
    total = Adjustment(regions, 1, usual, inside=inside)
    maps = {k: torch.from_numpy(own[None]) for k in ('lift', 'on')}
    total.add_maps(['image_0'], maps, {k: torch.from_numpy(usual.total.values) for k in ('lift', 'on')})
    (row,) = total.objects
    columns, X = row[1:3]
    return X[:, list(columns).index(4)] * len(X)**.5

def test_an_image_is_left_out_of_the_usual_map_only_where_it_is_in_it():
    "Probe and training share an id; whether they share the picture decides."
    regions = Given([{'thing': box((5, 6), (2, 2)), 'other': box((12, 18), (2, 2))}] * 2)
    first, second = (smooth(rng(0, i), (1,)) for i in ('image_0', 'image_1'))
    usual = usual_map(first + 3 * second, ['image_0', 'elsewhere'])
    _, cells = object_design(regions, 'image_0', GRID)
    for inside, expected in ((None, 3 * second), ([], (first + 3 * second) / 2)):
        place = cells @ expected[0].ravel()
        found = place_column(regions, usual, inside, first)
        assert np.allclose(found, place - place.mean(), atol=1e-5)
