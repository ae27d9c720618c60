"Effects of names on people and on models, on simulated fixations whose answer is known."
import cv2, numpy as np, pandas as pd, pytest
from dataclasses import replace
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
from saliency_nb.people import (agreement_with_people, beside_people, closer, count_objects, differences, effect_intervals,
                                fit_counts, likeliest, lost_bits, occurring, people_maps, seen_by_all)
from saliency_nb.regions import BoxRegions
from saliency_nb.world import STUFF, THINGS, log_density, named_boxes, random_weights, sample_scene

GRID = (18, 24)
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
        f = {}
        for k in range(names):
            if g.random() < .5: f[f'thing {k}'] = box(usual[k] + g.normal(size=2) * (2.5, 3.5), 2 * np.exp(.3 * g.normal(size=2)))
        found.append({k: m for k, m in f.items() if m.any()})
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

def simulated(seed, images=40, observers=10, each=8, preferences=.4, weight=.7, noise=.3, regions=None):
    "Regions, planted weights, people's fixations, and how many there are."
    g, regions = rng(seed, 'simulated'), regions or scattered(seed, images)
    weights = {s: weight * g.normal() for s in regions.semantics}
    own = {s: preferences * g.normal(size=observers) for s in weights}
    looks = []
    for i, p in densities(regions, weights, own, noise, seed):
        looks.append((i, np.stack([g.multinomial(each, q.ravel() / q.sum()).reshape(GRID) for q in p])))
    return regions, pd.Series(weights), count_objects(looks, regions, crossed=True), observers * each

def as_model(regions, weights, fixations):
    return count_objects(((i, fixations * p) for i, p in densities(regions, weights)), regions)

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
    regions, _, people, _ = simulated(0, images=12)
    kept, slight = occurring(people, 1e-3)
    X, n = people.design[:, kept], people.counts.sum(1) + .25 # fractions are as good
    b = likeliest(X, n, people.cells, people.owner, slight)
    levels = np.eye(12)[people.owner]
    def loss(v):
        eta = X @ v[12:] + levels @ v[:12] + np.log(people.cells)
        return (np.exp(eta) - n * eta).sum() + slight @ v[12:]**2 / 2, np.column_stack([levels, X]).T @ (np.exp(eta) - n) + np.r_[np.zeros(12), slight * v[12:]]
    found = minimize(loss, np.zeros(12 + len(b)), jac=True, method='L-BFGS-B', options=dict(maxiter=20000, maxfun=40000, ftol=1e-15, gtol=1e-9))
    assert np.allclose(found.x[12:], b, atol=2e-4)

def test_effects_do_not_depend_on_the_number_of_fixations_if_it_is_the_same_everywhere():
    regions, weights, _, _ = simulated(0)
    few, many = (fit_counts(as_model(regions, weights, n)) for n in (1, 1000))
    assert np.allclose(few.effect, many.effect, atol=1e-6)

def scenes(seed, images, grid=(30, 40), size=(120, 160), fixations=150):
    "Drawn scenes: regions as annotated, planted weights, fixations of people who know them."
    g, weights = rng(seed, 'scenes'), random_weights(seed)
    boxed, looks = BoxRegions({f'scene {i}': None for i in range(images)}, sorted(weights), []), []
    boxed.boxes = {}
    for k, i in enumerate(boxed.ids):
        scene = sample_scene(seed, k, size)
        names, boxes = zip(*named_boxes(scene))
        left, top, width, height = np.array(boxes, float).T
        corners = left / size[1], top / size[0], (left + width) / size[1], (top + height) / size[0]
        boxed.boxes[i] = np.array([boxed.semantics.index(n) for n in names]), np.stack(corners, 1)
        p = cv2.resize(np.exp(log_density(scene, weights)).astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA).astype(float)
        looks.append((i, g.multinomial(fixations, p.ravel() / p.sum()).reshape(1, *grid)))
    return boxed, pd.Series(weights), looks

def level_taken_off(values):
    kinds = [s for s in values.index if s in STUFF + THINGS]
    return values - values.index.isin(kinds) * values[kinds].mean()

def test_planted_weights_are_recovered_from_drawn_scenes():
    errors, rho = [], []
    for seed in range(20, 30 if NIGHTLY else 21):
        regions, weights, looks = scenes(seed, 80)
        found = fit_counts(count_objects(looks, regions)).effect.to_series()
        errors.append(level_taken_off(found) - level_taken_off(weights[found.index]))
        rho.append(spearmanr(found, weights[found.index]).statistic)
    error = pd.concat(errors)
    noted("people's effects, planted weights of drawn scenes", spearman=np.median(rho), error_nats=(error**2).mean()**.5)
    assert np.median(rho) > .95 and (error**2).mean()**.5 < .25

# intervals

def test_intervals_cover_where_observers_differ_and_find_nothing_where_nothing_is():
    "Observers who differ must be resampled, too; a model of people over-weights nothing."
    held, narrow, wrong, over = [], [], [], []
    for seed in range(125 if NIGHTLY else 26):
        regions, weights, people, n = simulated(seed)
        fit, model = fit_counts(people), fit_counts(as_model(regions, weights, n))
        for crossed, found in ((1, held), (0, narrow)):
            t = effect_intervals(fit.assign_attrs(crossed=crossed)).dropna()
            found += list((t.low <= weights[t.index]) & (weights[t.index] <= t.high))
        over += list(differences(fit, model).q_value.dropna() < .05)
        _, _, same, _ = simulated(1000 + seed, weight=0, regions=regions)
        wrong += list(effect_intervals(fit_counts(same)).p_value.dropna() < .05)
    noted("people's effects", names=len(held), coverage=np.mean(held), coverage_over_images_only=np.mean(narrow),
          false_positives=np.mean(wrong), true_model_over_weights=np.mean(over))
    assert len(held) >= 200 and np.mean(held) >= .92 and np.mean(wrong) <= .08 and np.mean(over) <= .05
    assert np.mean(narrow) < np.mean(held)

def test_a_name_that_is_over_weighted_is_found():
    found = []
    for seed in range(60 if NIGHTLY else 6):
        regions, weights, people, n = simulated(seed, images=100, each=25, preferences=.1, noise=.2)
        heavier = as_model(regions, weights + .7 * (weights.index == 'thing 3'), n)
        t = differences(fit_counts(people), fit_counts(heavier))
        found.append([t.q_value['thing 3'] < .05 and t.low['thing 3'] > 0, t.difference['thing 3'], (t.q_value.drop('thing 3') < .05).mean()])
    power, difference, others = np.mean(found, 0)
    noted('a model that over-weights one name by .7 nat, 100 images', found=power, difference_nats=difference, others=others)
    assert power >= .9 and abs(difference - .7) < .15

def test_what_nobody_looks_at_and_what_is_not_told_apart_is_said_to_be_unknown():
    regions, _, people, _ = simulated(3)
    inside = people.design[:, regions.semantics.index('thing 2')] > 0
    never = fit_counts(replace(people, counts=people.counts * ~inside[:, None]))
    t = effect_intervals(never)
    assert t.loc['thing 2'].isna().all() and t.drop('thing 2').notna().all(axis=None)
    assert never.fixations.sel(semantic='thing 2') == 0 and never['count'].sel(semantic='thing 2') > 10
    twin = np.insert(people.design, 8, people.design[:, 7], 1) # another name of thing 7
    both = fit_counts(replace(people, design=twin, semantics=[*people.semantics, 'twin']))
    t = effect_intervals(both)
    assert (both.separating.sel(semantic=['thing 7', 'twin']) < FEWEST).all() and t.low[['thing 7', 'twin']].isna().all()
    assert t.effect[['thing 7', 'twin']].notna().all() and t.low.drop(['thing 7', 'twin']).notna().all()

def test_a_name_in_few_images_has_no_interval():
    regions, weights, people, _ = simulated(4)
    column = people.design[:, regions.semantics.index('thing 2')]
    column[people.owner > 12] = 0 # elsewhere it goes without its name
    fit = fit_counts(people)
    assert fit['count'].sel(semantic='thing 2') < FEWEST and np.isfinite(fit.effect.sel(semantic='thing 2'))
    t = effect_intervals(fit)
    assert np.isnan(t.low['thing 2']) and np.isnan(t.p_value['thing 2']) and t.low.drop('thing 2').notna().all()

def test_nothing_to_compare_is_one_sentence():
    regions, weights, people, n = simulated(0, images=8)
    for wrong in (replace(people, counts=people.counts * 0), replace(people, design=people.design * 0)):
        with pytest.raises(ParameterError, match='nothing to compare within an image'): fit_counts(wrong)
    other = people.of_images(np.arange(8) < 6)
    with pytest.raises(ParameterError, match='different images'): beside_people(people, other)
    with pytest.raises(ParameterError, match='give two or more'): count_objects([], regions)

# observers

def looks_of(viewings):
    images = pd.DataFrame(dict(path='', height=18, width=24, map_path=None, split=''), sorted({i for i, _ in viewings}))
    fixations = pd.DataFrame([(i, o, 3., 2.) for i, o in viewings], columns=['image', 'observer', 'x', 'y'])
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
    regions, _, _, n = simulated(5, images=80)
    weights = pd.Series(0., regions.semantics)
    weights['thing 1'] = 2.
    g = rng(5, 'bits')
    looks = [(i, g.multinomial(n, p.ravel() / p.sum()).reshape(1, *GRID)) for i, p in densities(regions, weights)]
    t = lost_bits(count_objects(looks, regions))
    assert t.bits['thing 1'] > .05 and t.bits_low['thing 1'] > 0 and (t.bits.drop('thing 1') < .02).all()

def replicated(fit, draws): return fit.effect.values, resampled(fit.rename(image='fold'), draws)

def closeness(seed, off, further):
    "Two models, whose weights are off by so much at random."
    g, regions = rng(seed, 'closeness'), scattered(seed, 30, 14)
    weights = pd.Series({s: .7 * g.normal() for s in regions.semantics})
    looks = [(i, g.multinomial(100, p.ravel() / p.sum()).reshape(1, *GRID)) for i, p in densities(regions, weights, noise=.3, seed=seed)]
    models = [as_model(regions, weights + s * g.normal(size=14), 100) for s in (off, further)]
    draws = fold_draws(30, 200, seed)
    first, second, truth = (replicated(fit_counts(d), draws) for d in (*models, count_objects(looks, regions)))
    return closer(first, second, truth, seed)

def test_closer_is_said_where_it_is_so_and_not_elsewhere():
    equal = pd.DataFrame([closeness(s, .5, .5) for s in range(200 if NIGHTLY else 10)])
    other = pd.DataFrame([closeness(s, .1, 3.) for s in range(60 if NIGHTLY else 4)])
    claims = ((equal.low > 0) | (equal.high < 0)).mean()
    noted('one of two models is closer to people', claimed_of_equals=claims, found=(other.low > 0).mean())
    assert claims <= (.05 if NIGHTLY else .1) and (other.low > 0).mean() >= .5 and not (other.high < 0).any()

def test_agreement_stands_beside_its_ceilings():
    regions, weights, people, n = simulated(7, images=60, each=25, preferences=0., noise=0.)
    t = agreement_with_people(people, as_model(regions, weights, n))
    assert list(t.index) == ['model and people', 'two halves of the observers', 'two halves of the images']
    assert (t.spearman > .7).all() and ((t.low < t.spearman) & (t.spearman <= t.high) & (t.high <= 1)).all()
    unrelated = agreement_with_people(people, as_model(regions, pd.Series(rng(7, 'no').permutation(weights), weights.index), n))
    assert unrelated.spearman.iloc[0] < t.spearman.iloc[0] - .3
