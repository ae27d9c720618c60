"What a name adds by itself, and what its place adds, on simulated maps whose answer is known."
import cv2, numpy as np, pandas as pd, pytest, torch, xarray as xr
from scipy import ndimage
from given import Given, batch_of, no_pictures
from nightly import NIGHTLY, noted
from saliency_nb.adjustment import SEPARATING, Adjustment, adjusted, group_sums, object_design, responding, solved
from saliency_nb.contributions import contributions, local_sums, p_values
from saliency_nb.core import rng
from saliency_nb.dissection import Alignment, Contrast, Probe, alignments, contrasts
from saliency_nb.semantics import BoxRegions, Regions
from saliency_nb.world import log_density, named_boxes, random_weights, sample_scene

GRID = (18, 24)

def box(middle, half):
    y, x = np.mgrid[:GRID[0], :GRID[1]]
    return (abs(y - middle[0]) <= half[0]) & (abs(x - middle[1]) <= half[1])

def smooth(g, shape, sigma=2): # standard deviation 1
    v = ndimage.gaussian_filter(g.normal(size=(*shape, *GRID)), (*[0] * len(shape), sigma, sigma))
    return v / v.std((-1, -2), keepdims=True)

def scattered(seed, images):
    "One thing is always in the middle; seven have usual places, and are in six of ten images."
    g = rng(seed, 'scattered')
    usual, found = g.uniform(.15, .85, (8, 2)) * GRID, []
    for _ in range(images):
        f = {'middle': box(np.array(GRID) / 2 - .5 + .5 * g.normal(size=2), (2, 2.5))}
        for k in range(1, 8):
            if g.random() < .6: f[f'thing {k}'] = box(usual[k] + g.normal(size=2) * (2.5, 3.5), 2 * np.exp(.3 * g.normal(size=2)))
        found.append({k: m for k, m in f.items() if m.any()})
    return Given(found)

y, x = ((np.arange(k) + .5) / k * 2 - 1 for k in GRID)
y = y[:, None]
BIAS = dict(gaussian=x**2 + y**2, above=x**2 + (y + .4)**2, anisotropic=.4 * x**2 + 2 * y**2, side=(x - .6)**2 + y**2)
BIAS = {k: 2 * np.exp(-v / .6) for k, v in BIAS.items()} # nats

# position

def biased(regions, bias, seed):
    "Designs, and what maps of bias and noise are on them, with the mean of a thousand other maps as the usual map."
    g = rng(seed, 'biased')
    noise, reference = smooth(g, (len(regions.ids),)), smooth(g, ()) / 1000**.5
    for i, own in zip(regions.ids, noise):
        design, cells = object_design(regions, i, GRID)
        yield i, design, {k: cells @ (b + own).ravel() for k, b in bias.items()}, {k: cells @ (b + reference).ravel() for k, b in bias.items()}

def test_no_name_adds_anything_where_only_position_does():
    "Maps that do not see the image at all: bias of four shapes, and noise; one thing is always where the bias is."
    found = {k: [] for k in BIAS}
    for seed in range(125 if NIGHTLY else 25):
        regions = scattered(seed, 100)
        totals = {k: Adjustment(regions, 1) for k in BIAS}
        for total in totals.values(): total.inside = {'another image'}
        for i, design, values, usual in biased(regions, BIAS, seed):
            for k, total in totals.items(): total.add_objects(i, design, dict(lift=values[k][:, None]), dict(lift=usual[k][:, None]))
        for k, total in totals.items(): found[k].append(solved(total)[['effect', 'p_value']].to_dataframe())
    for k, tables in found.items():
        table = pd.concat(tables)
        wrong, bias = (table.p_value < .05).mean(), table.effect.groupby(level=0).mean().abs().max()
        noted(f'adjusted contrast, only position: {k}', tests=len(table), false_positives=wrong, largest_bias_nats=bias)
        assert wrong <= (.08 if NIGHTLY else .11) and bias < (.05 if NIGHTLY else .15), (k, wrong, bias)

def test_the_local_part_of_a_contrast_is_zero_where_only_position_speaks(no_pictures):
    plain, local, values = {k: [] for k in BIAS}, {k: [] for k in BIAS}, {k: [] for k in BIAS}
    for seed in range(125 if NIGHTLY else 25):
        regions = scattered(seed, 100)
        regions.found = [f if i % 5 else {k: m for k, m in f.items() if k != 'middle'} for i, f in enumerate(regions.found)] # in eight of ten images
        probe = Probe(regions, GRID, GRID)
        maps = torch.from_numpy(smooth(rng(seed, 'local'), (100,))[:, None]).float()
        for k, b in BIAS.items():
            total, z = Contrast(1, len(regions.semantics), 100), maps + torch.from_numpy(b).float()
            for start in range(0, 100, 25): total.add(batch_of(probe, z, z, range(start, start + 25)))
            found = xr.Dataset(contrasts(total))
            sums, counts = local_sums(found)
            assert np.allclose(found.contrast.sum('basis'), found.elsewhere.sum('basis') + sums.sum(1) / counts.sum(1), atol=1e-9) # C = C_pos + C_loc
            plain[k].append(p_values(found.fold_contrast.values, counts))
            local[k].append(p_values(sums, counts))
            values[k].append(sums.sum(1) / counts.sum(1))
    for k in BIAS:
        share = lambda p: (np.concatenate(p) < .05).mean()
        bias = abs(np.mean(values[k], 0)).max()
        noted(f'local contrast, only position: {k}', false_positives=share(local[k]), false_positives_of_C=share(plain[k]), largest_bias_nats=bias)
        assert share(local[k]) <= (.08 if NIGHTLY else .11) and bias < .05 + (not NIGHTLY) * .05 and share(plain[k]) > .5

# what is known

def population(seed, images, grid=(30, 40), size=(120, 160)):
    "Scenes with planted weights: regions, weights, and for each image its design, its cells and its map with noise."
    g, weights = rng(seed, 'population'), random_weights(seed)
    scenes = {f'scene {i}': sample_scene(seed, i, size) for i in range(images)}
    boxed = BoxRegions(dict.fromkeys(scenes), sorted(weights), [])
    boxed.boxes, found = {}, []
    for i, s in scenes.items():
        names, boxes = zip(*named_boxes(s))
        left, top, width, height = np.array(boxes, float).T
        boxed.boxes[i] = np.array([boxed.semantics.index(n) for n in names]), np.stack([left / size[1], top / size[0], (left + width) / size[1], (top + height) / size[0]], 1)
        noise = 3 * ndimage.gaussian_filter(g.normal(size=grid), 3)
        values = cv2.resize(log_density(s, weights).astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA) + noise
        design, cells = object_design(boxed, i, grid)
        found.append((design, cells @ values.ravel(), cells, values.ravel()))
    usual = np.mean([v for *_, v in found], 0)
    return boxed, weights, [(design, v[:, None], (cells @ usual)[:, None]) for design, v, cells, _ in found]

def drawn(regions, rows, drawn_rows):
    "The solution for some images of a population; the usual map, like the network, is given."
    total = Adjustment(regions, 1)
    total.inside = {'another image'}
    for k, r in enumerate(drawn_rows):
        design, values, usual = rows[r]
        total.add_objects(f'draw {k}', design, dict(lift=values), dict(lift=usual))
    return solved(total)

def test_intervals_cover_at_every_level_of_separation():
    "Of the additive summary of the whole population; and of the planted weights, which is another question."
    held = []
    for seed in (20, 21):
        regions, weights, rows = population(seed, 5000 if NIGHTLY else 600)
        truth = drawn(regions, rows, range(len(rows))).effect
        for images, samples in ((30, 500), (80, 500), (300, 250)) if NIGHTLY else ((30, 25), (80, 25)):
            for r in range(samples):
                s = drawn(regions, rows, rng(seed, 'sample', r, images).integers(0, len(rows), images))
                s = s.assign(truth=truth.sel(semantic=s.semantic), planted=('semantic', pd.Series(weights)[s.semantic.values]))
                held.append(s[['separating', 'low', 'high', 'truth', 'planted']].to_dataframe())
    table = pd.concat(held)
    assert table.low.isna().equals(table.separating < SEPARATING)
    table = table.dropna()
    inside = pd.DataFrame({k: (table.low <= table[k]) & (table[k] <= table.high) for k in ('truth', 'planted')})
    level = pd.cut(table.separating, [SEPARATING, 12, 20, 50, np.inf], labels=['08 to 12', '12 to 20', '20 to 50', 'over 50'], include_lowest=True)
    for k, part in inside.groupby(level, observed=True):
        noted(f'intervals of the adjusted contrast, separating images {k}', intervals=len(part), cover_the_summary=part.truth.mean(), cover_planted_weights=part.planted.mean())
        if len(part) >= 300: assert part.truth.mean() >= (.92 if NIGHTLY else .9), (k, part.truth.mean()) # fewer do not tell
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
            if name == 'face' or g.random() < .7: found[name] = box((g.uniform(3, 15), 4 + 8 * order[k]), (2, 2))
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
    assert table.low[['face', 'nose']].isna().all() and table.low[['dog', 'hand']].notna().all() and (table.separating[['face', 'nose']] < 1).all()
    together = group_sums(found)
    assert together.names.tolist() == ['face + nose']
    relative = PLANTED.face + PLANTED.nose - PLANTED[['dog', 'hand']].mean()
    assert np.isclose(together.effect[0] - table.effect[['dog', 'hand']].mean(), relative, atol=.2) and together.low[0] < together.effect[0] < together.high[0]

def test_images_that_separate_are_counted():
    few, many = (adjusted(face_maps(Faces(apart=k)), Faces(apart=k)) for k in (4, 30))
    assert abs(float(few.separating.sel(semantic='nose')) - 4) < 1.5 and np.isnan(few.low.sel(semantic='nose'))
    nose = many.sel(semantic='nose')
    assert nose.separating > 15 and float(nose.low) < PLANTED.nose < float(nose.high) and len(group_sums(many)) == 0

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
        found.append({k: m for k, m in f.items() if m.any()})
    return Given(found)

def test_a_basis_is_named_by_what_it_detects_and_not_by_its_neighbour(no_pictures):
    by_overlap, by_effect = [], []
    for seed in range(60 if NIGHTLY else 15):
        regions, g = neighbours(seed), rng(seed, 'detectors')
        probe, n = Probe(regions, GRID, GRID), 6
        lamps = np.stack([f.get('lamp', np.zeros(GRID, bool)) for f in regions.found])
        seen = ndimage.gaussian_filter(lamps.astype(float), (0, .8, .8)) # features are blurred
        z = torch.from_numpy(4 * seen[:, None] / seen.max() + smooth(g, (len(lamps), n)) - 1).float()
        limits = z.transpose(0, 1).flatten(1).quantile(.8, 1).numpy(), z.transpose(0, 1).flatten(1).quantile(.2, 1).numpy()
        thresholds = xr.DataArray(limits[0], dict(lower=('basis', limits[1])), ('basis',))
        usual = xr.Dataset(dict(total=(('basis', 'y', 'x'), torch.sigmoid(z).double().sum(0).numpy())), dict(image=list(map(str, regions.ids))))
        overlap, effect = Alignment(thresholds, len(regions.semantics)), Adjustment(regions, n, usual)
        for k in range(0, len(probe), 40):
            batch = batch_of(probe, z, None, range(k, min(k + 40, len(probe))))
            overlap.add(batch)
            effect.add(batch)
        q = alignments(overlap, probe.layouts.count)['q_value'][1]
        by_overlap.append([(q[regions.semantics.index(s)] < .05).mean() for s in ('lamp', 'table')])
        names = responding(solved(effect))
        by_effect.append([names.semantic.eq(s).sum() / n for s in ('lamp', 'table')])
    (lamp, table), (lamp_overlap, table_overlap) = np.mean(by_effect, 0), np.mean(by_overlap, 0)
    noted('names of bases that detect lamps', lamp=lamp, table=table, lamp_by_overlap=lamp_overlap, table_by_overlap=table_overlap)
    assert lamp >= .9 and table <= .05 and table_overlap > .5
