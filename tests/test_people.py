"Effects of names on people and on models, on simulated fixations whose answer is known."
import cv2, numpy as np, pandas as pd, pytest
from dataclasses import replace
from types import SimpleNamespace
from scipy.optimize import minimize
from scipy.stats import spearmanr
from given import Given
from nightly import NIGHTLY, noted
from saliency_nb import people as chapter
from saliency_nb.adjustment import object_design
from saliency_nb.chance import FEWEST
from saliency_nb.contributions import fold_draws, resampled
from saliency_nb.core import ParameterError, rng
from saliency_nb.fixations import FixationSet
from saliency_nb.people import (agreement_with_people, beside_people, closer, count_objects, differences,
                                effect_intervals, fit_counts, likeliest, lost_bits, occurring, people_maps,
                                seen_by_all)
from saliency_nb.regions import BoxRegions
from saliency_nb.world import STUFF, THINGS, log_density, named_boxes, random_weights, sample_scene

GRID = 18, 24
y, x = ((np.arange(k) + .5) / k * 2 - 1 for k in GRID)
BIAS = 2 * np.exp(-(x**2 + y[:, None]**2) / .6) # nats

def box(middle, half):
    y, x = np.mgrid[:GRID[0], :GRID[1]]
    return (abs(y - middle[0]) <= half[0]) & (abs(x - middle[1]) <= half[1])

def scattered(seed, images, names=8):
    "Things with usual places, each in half of the images."
    g = rng(seed, 'scattered')
    usual, found = g.uniform(.15, .85, (names, 2)) * GRID, []
    for _ in range(images):
        things = {}
        for k in range(names):
            if g.random() >= .5: continue
            middle = usual[k] + g.normal(size=2) * (2.5, 3.5)
            things[f'thing {k}'] = box(middle, 2 * np.exp(.3 * g.normal(size=2)))
        found.append({name: mask for name, mask in things.items() if mask.any()})
    return Given(found)

def densities(regions, weights, own=None, noise=0., seed=0): # own (S,) per name: preferences of observers
    "Densities of S observers on every image: bias, weights, and what is peculiar to each thing."
    g = rng(seed, 'things')
    for i in regions.ids:
        height = np.repeat(BIAS[None], 1 if own is None else len(next(iter(own.values()))), 0)
        for name, mask in zip(*regions.masks(i, GRID)):
            e = weights[name] + noise * g.normal() + (0 if own is None else own[name])
            height = height + np.reshape(e, (-1, 1, 1)) * mask
        p = np.exp(height)
        yield i, p / p.sum((1, 2), keepdims=True)

def looked(g, p, n):
    "n fixations drawn from a density, as a map of counts."
    return g.multinomial(n, p.ravel() / p.sum()).reshape(p.shape)

def looked_each(g, densities, n): return np.stack([looked(g, p, n) for p in densities])

def simulated(seed, images=40, observers=10, each=8, preferences=.4, weight=.7, noise=.3, regions=None):
    "Regions, planted weights, counts of people's fixations, and how many there are on an image."
    g, regions = rng(seed, 'simulated'), regions or scattered(seed, images)
    weights = {s: weight * g.normal() for s in regions.semantics}
    own = {s: preferences * g.normal(size=observers) for s in weights}
    drawn = densities(regions, weights, own, noise, seed)
    looks = [(i, looked_each(g, p, each)) for i, p in drawn]
    people = count_objects(looks, regions, crossed=True)
    return SimpleNamespace(regions=regions, weights=pd.Series(weights), people=people, n=observers * each)

def as_model(regions, weights, fixations):
    return count_objects(((i, fixations * p) for i, p in densities(regions, weights)), regions)

def looks_of_group(g, regions, weights, n, **options):
    "Fixations that nobody is named with."
    return [(i, looked_each(g, p, n)) for i, p in densities(regions, weights, **options)]

@pytest.fixture(autouse=True)
def remembered(monkeypatch):
    "Objects of an image are found once, whoever looks at them."
    known = {}
    def found(regions, image, grid, depth):
        key = id(regions), image, depth
        if key not in known: known[key] = regions, object_design(regions, image, grid, depth)
        return known[key][1]
    monkeypatch.setattr(chapter, 'object_design', found)

# the fit

def test_fit_is_that_of_a_poisson_model_with_a_level_for_each_image():
    people = simulated(0, images=12).people
    people, slight = occurring(people)
    people = replace(people, counts=people.counts + .25 / people.counts.shape[1]) # fractions are as good
    X, n = people.design, people.counts.sum(1)
    b = likeliest(people, slight)
    both = np.column_stack([np.eye(12)[people.owner], X]) # a level for each image, then the effects
    penalty = np.r_[np.zeros(12), slight]
    def loss(v):
        eta = both @ v + np.log(people.cells)
        gradient = both.T @ (np.exp(eta) - n) + penalty * v
        return (np.exp(eta) - n * eta).sum() + penalty @ v**2 / 2, gradient
    options = dict(maxiter=20000, maxfun=40000, ftol=1e-15, gtol=1e-9)
    found = minimize(loss, np.zeros(12 + len(b)), jac=True, method='L-BFGS-B', options=options)
    assert np.allclose(found.x[12:], b, atol=2e-4)

def test_effects_do_not_depend_on_the_number_of_fixations_if_it_is_the_same_everywhere():
    s = simulated(0)
    few, many = (fit_counts(as_model(s.regions, s.weights, n)) for n in (1, 1000))
    assert np.allclose(few.effect, many.effect, atol=1e-6)

def annotated(scene, semantics):
    "Numbers of names and corners of boxes, in shares of the image."
    names, boxes = zip(*named_boxes(scene))
    top_left, sides = np.hsplit(np.array(boxes, float), 2)
    corners = np.hstack([top_left, top_left + sides]) / np.tile(scene['size'][::-1], 2)
    return np.array([semantics.index(n) for n in names]), corners

def scenes(seed, images, grid=(30, 40), size=(120, 160), fixations=150):
    "Drawn scenes: regions as annotated, planted weights, fixations of people who know them."
    g, weights = rng(seed, 'scenes'), random_weights(seed)
    regions = BoxRegions({f'scene {i}': None for i in range(images)}, sorted(weights), [])
    regions.boxes, looks = {}, []
    for k, i in enumerate(regions.ids):
        scene = sample_scene(seed, k, size)
        regions.boxes[i] = annotated(scene, regions.semantics)
        density = np.exp(log_density(scene, weights)).astype(np.float32)
        p = cv2.resize(density, grid[::-1], interpolation=cv2.INTER_AREA).astype(float)
        looks.append((i, looked(g, p, fixations)[None]))
    return SimpleNamespace(regions=regions, weights=pd.Series(weights), looks=looks)


def level_taken_off(values):
    kinds = [s for s in values.index if s in STUFF + THINGS]
    return values - values.index.isin(kinds) * values[kinds].mean()

def test_planted_weights_are_recovered_from_drawn_scenes():
    errors, rho = [], []
    for seed in range(20, 30 if NIGHTLY else 21):
        s = scenes(seed, 80)
        found = fit_counts(count_objects(s.looks, s.regions)).effect.to_series()
        planted = s.weights[found.index]
        errors.append(level_taken_off(found) - level_taken_off(planted))
        rho.append(spearmanr(found, planted).statistic)
    error = (pd.concat(errors)**2).mean()**.5
    noted("people's effects, planted weights of drawn scenes", spearman=np.median(rho), error_nats=error)
    assert np.median(rho) > .95 and error < .25

# intervals

def test_intervals_cover_where_observers_differ_and_find_nothing_where_nothing_is():
    "Observers who differ must be resampled, too; a model of people over-weights nothing."
    within = {0: [], 1: []} # whether weights lie in their interval; over images only, and over observers, too
    wrong, over = [], []
    for seed in range(125 if NIGHTLY else 26):
        s = simulated(seed)
        fit, model = fit_counts(s.people), fit_counts(as_model(s.regions, s.weights, s.n))
        for crossed, found in within.items():
            t = effect_intervals(fit.assign_attrs(crossed=crossed)).dropna()
            found += list(s.weights[t.index].between(t.low, t.high))
        over += list(differences(fit, model).q_value.dropna() < .05)
        same = simulated(1000 + seed, weight=0, regions=s.regions).people
        wrong += list(effect_intervals(fit_counts(same)).p_value.dropna() < .05)
    narrow, held = map(np.mean, within.values())
    noted("people's effects", names=len(within[1]), coverage=held, coverage_over_images_only=narrow,
          false_positives=np.mean(wrong), true_model_over_weights=np.mean(over))
    assert len(within[1]) >= 200 and held >= .92 and narrow < held
    assert np.mean(wrong) <= .08 and np.mean(over) <= .05

def test_a_name_that_is_over_weighted_is_found():
    found = []
    for seed in range(60 if NIGHTLY else 6):
        s = simulated(seed, images=100, each=25, preferences=.1, noise=.2)
        heavier = as_model(s.regions, s.weights + .7 * (s.weights.index == 'thing 3'), s.n)
        t = differences(fit_counts(s.people), fit_counts(heavier))
        claimed = t.q_value < .05
        right = claimed['thing 3'] and t.low['thing 3'] > 0
        others = claimed.drop('thing 3').mean()
        found.append(dict(found=right, difference_nats=t.difference['thing 3'], others=others))
    mean = pd.DataFrame(found).mean()
    noted('a model that over-weights one name by .7 nat, 100 images', **mean)
    assert mean.found >= .9 and abs(mean.difference_nats - .7) < .15

def test_what_nobody_looks_at_is_said_to_be_unknown():
    s = simulated(3)
    inside = s.people.design[:, s.regions.semantics.index('thing 2')] > 0
    never = fit_counts(replace(s.people, counts=s.people.counts * ~inside[:, None]))
    t = effect_intervals(never)
    assert t.loc['thing 2'].isna().all() and t.drop('thing 2').notna().all(axis=None)
    assert never.fixations.sel(semantic='thing 2') == 0 and never['count'].sel(semantic='thing 2') > 10

def test_what_is_not_told_apart_is_said_to_be_unknown():
    people, twins = simulated(3).people, ['thing 7', 'twin']
    design = np.insert(people.design, 8, people.design[:, 7], 1) # another name of thing 7
    both = fit_counts(replace(people, design=design, semantics=np.array([*people.semantics, 'twin'])))
    t = effect_intervals(both)
    assert (both.separating.sel(semantic=twins) < FEWEST).all() and t.low[twins].isna().all()
    assert t.effect[twins].notna().all() and t.low.drop(twins).notna().all()

def test_a_name_in_few_images_has_no_interval():
    s = simulated(4)
    column = s.people.design[:, s.regions.semantics.index('thing 2')]
    column[s.people.owner > 12] = 0 # elsewhere it goes without its name
    fit = fit_counts(s.people)
    assert fit['count'].sel(semantic='thing 2') < FEWEST and np.isfinite(fit.effect.sel(semantic='thing 2'))
    t = effect_intervals(fit)
    assert t.loc['thing 2', ['low', 'p_value']].isna().all() and t.low.drop('thing 2').notna().all()

def test_nothing_to_compare_is_one_sentence():
    s = simulated(0, images=8)
    people = s.people
    for wrong in (replace(people, counts=people.counts * 0), replace(people, design=people.design * 0)):
        with pytest.raises(ParameterError, match='nothing to compare within an image'): fit_counts(wrong)
    other = people.part(np.arange(8) < 6)
    with pytest.raises(ParameterError, match='different images'): beside_people(people, other)
    with pytest.raises(ParameterError, match='give two or more'): count_objects([], s.regions)

# observers

def looks_of(viewings):
    known = dict(path='', height=18, width=24, map_path=None, split='')
    images = pd.DataFrame(known, sorted({i for i, _ in viewings}))
    rows = [(i, o, 3., 2.) for i, o in viewings]
    fixations = pd.DataFrame(rows, columns=['image', 'observer', 'x', 'y'])
    return FixationSet('looks', images, fixations, 1.)

def test_observers_are_resampled_only_where_each_saw_half_of_the_images():
    all_of_them = looks_of([(i, o) for i in 'abcd' for o in 'vwxyz'])
    own = looks_of([(i, f'{i}{k}') for i in 'abcd' for k in range(6)])
    unnamed = looks_of([(i, '') for i in 'abcd'])
    assert [seen_by_all(f) for f in (all_of_them, own, unnamed)] == [True, False, False]
    shapes = [next(iter(people_maps(f, GRID)))[1].shape for f in (all_of_them, own, unnamed)]
    assert shapes == [(5, *GRID), (2, *GRID), (1, *GRID)]
    assert all(m.sum() == 6 for _, m in people_maps(own, GRID))

# worth and agreement

def test_a_name_is_worth_bits_on_unseen_images_if_it_attracts():
    s, g = simulated(5, images=80), rng(5, 'bits')
    weights = pd.Series(0., s.regions.semantics)
    weights['thing 1'] = 2.
    t = lost_bits(count_objects(looks_of_group(g, s.regions, weights, s.n), s.regions))
    assert t.bits['thing 1'] > .05 and t.bits_low['thing 1'] > 0 and (t.bits.drop('thing 1') < .02).all()

def replicated(fit, draws): return fit.effect.values, resampled(fit.rename(image='fold'), draws)

def closeness(seed, off, further):
    "Two models, whose weights are off by so much at random."
    g, regions = rng(seed, 'closeness'), scattered(seed, 30, 14)
    weights = pd.Series({s: .7 * g.normal() for s in regions.semantics})
    looks = looks_of_group(g, regions, weights, 100, noise=.3, seed=seed)
    models = [as_model(regions, weights + s * g.normal(size=14), 100) for s in (off, further)]
    draws = fold_draws(30, 200, seed)
    counted = [*models, count_objects(looks, regions)]
    return closer(*[replicated(fit_counts(d), draws) for d in counted], seed)

def test_closer_is_said_where_it_is_so_and_not_elsewhere():
    equal = pd.DataFrame([closeness(s, .5, .5) for s in range(200 if NIGHTLY else 10)])
    other = pd.DataFrame([closeness(s, .1, 3.) for s in range(60 if NIGHTLY else 4)])
    claims = ((equal.low > 0) | (equal.high < 0)).mean()
    noted('one of two models is closer to people', claimed_of_equals=claims, found=(other.low > 0).mean())
    assert claims <= (.05 if NIGHTLY else .1) and (other.low > 0).mean() >= .5 and not (other.high < 0).any()

def test_agreement_stands_beside_its_ceilings():
    s = simulated(7, images=60, each=25, preferences=0., noise=0.)
    t = agreement_with_people(s.people, as_model(s.regions, s.weights, s.n))
    assert list(t.index) == ['model and people', 'two halves of the observers', 'two halves of the images']
    assert (t.spearman > .7).all()
    assert ((t.low < t.spearman) & (t.spearman <= t.high) & (t.high <= 1)).all()
    permuted = pd.Series(rng(7, 'no').permutation(s.weights), s.weights.index)
    unrelated = agreement_with_people(s.people, as_model(s.regions, permuted, s.n))
    assert unrelated.spearman.iloc[0] < t.spearman.iloc[0] - .3
