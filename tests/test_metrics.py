"Metrics on random maps: against definitions written as plain loops, and under changes that must not matter."
import math
from collections import namedtuple
from itertools import product
import numpy as np, pytest, torch
from saliency_nb.core import DataError, rng
from saliency_nb.metrics import (area, auc_borji, auc_judd, cc, centre_bias, information_gain, kld, nss,
                                 other_fixations, saliency_loss, sauc, sim)

DENSITY, FIXATIONS = (cc, kld, sim), (nss, auc_judd, auc_borji, sauc, information_gain)
ALL = DENSITY + FIXATIONS
named = dict(ids=lambda m: m.__name__)
Maps = namedtuple('Maps', 'saliency density fixations others baseline')

def saliency_maps(g, kind, shape):
    if kind == 'noise': return g.random(shape)
    if kind == 'ties': return g.integers(0, 4, shape) / 4
    if kind == 'peaked': return g.random(shape)**30
    if kind == 'saturated': return g.integers(0, 2, shape)
    return np.full(shape, .7)

def maps(seed, kind='noise', shape=(3, 9, 13)):
    "Maps of some images; some pixels are looked at twice."
    saliency, g = saliency_maps(rng(seed, 'saliency', kind), kind, shape), rng(seed, 'maps', kind)
    fixations = g.poisson(.15, shape)
    fixations[:, 0, 0] = 2
    made = Maps(saliency, g.random(shape)**4, fixations, g.poisson(.8, shape), g.random(shape) + .1)
    return changed(made, lambda m: torch.from_numpy(np.asarray(m, float)))

def changed(m, change): return Maps(*map(change, m))

def score(metric, m):
    "A metric of saliency with what it needs beside it."
    if metric is sauc: return metric(m.saliency, m.fixations, m.others)
    if metric is information_gain: return metric(m.saliency, m.fixations, m.baseline)
    return metric(m.saliency, m.fixations if metric in FIXATIONS else m.density)

# Definitions for one image, whose maps are lists of numbers

EPSILON = 2.220446049250313e-16

def shares(values):
    total = sum(values)
    return [v / total for v in values]

def z_scores(values):
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean)**2 for v in values) / (len(values) - 1))
    return [(v - mean) / spread if max(values) > min(values) else 0. for v in values]

def looked_at(m): return [i for i, k in enumerate(m.fixations) if k > 0]

def area_by_loops(m, negatives, weight):
    "How often a pixel that was looked at has more than another one, ties one half."
    s, on = m.saliency, looked_at(m)
    won = sum(weight[j] * ((s[i] > s[j]) + (s[i] == s[j]) / 2) for i, j in product(on, negatives))
    return won / (len(on) * sum(weight[j] for j in negatives))

def cc_by_loops(m):
    pairs = zip(z_scores(m.saliency), z_scores(m.density))
    return sum(a * b for a, b in pairs) / (len(m.saliency) - 1)

def kld_by_loops(m):
    pairs = zip(shares(m.saliency), shares(m.density))
    return sum(b * math.log(EPSILON + b / (EPSILON + a)) for a, b in pairs)

def sim_by_loops(m): return sum(map(min, shares(m.saliency), shares(m.density)))

def nss_by_loops(m):
    z, on = z_scores(m.saliency), looked_at(m)
    return sum(z[i] for i in on) / len(on)

def auc_judd_by_loops(m):
    pixels, on = range(len(m.saliency)), looked_at(m)
    return area_by_loops(m, [i for i in pixels if i not in on], [1] * len(pixels))

def auc_borji_by_loops(m):
    pixels = range(len(m.saliency))
    return area_by_loops(m, pixels, [1] * len(pixels))

def sauc_by_loops(m): return area_by_loops(m, range(len(m.saliency)), m.others)

def information_gain_by_loops(m):
    p, q = shares(m.saliency), shares(m.baseline)
    on = looked_at(m)
    return sum(math.log2(EPSILON + p[i]) - math.log2(EPSILON + q[i]) for i in on) / len(on)

BY_LOOPS = {
    cc: cc_by_loops,
    kld: kld_by_loops,
    sim: sim_by_loops,
    nss: nss_by_loops,
    auc_judd: auc_judd_by_loops,
    auc_borji: auc_borji_by_loops,
    sauc: sauc_by_loops,
    information_gain: information_gain_by_loops,
}

@pytest.mark.parametrize('kind', ['noise', 'ties', 'peaked', 'saturated', 'constant'])
@pytest.mark.parametrize('metric', ALL, **named)
def test_definition(metric, kind):
    for seed in range(3):
        given = maps(seed, kind)
        images = [changed(Maps(*image), lambda m: m.flatten().tolist()) for image in zip(*given)]
        assert np.allclose(score(metric, given), list(map(BY_LOOPS[metric], images)), rtol=1e-10, atol=1e-10)

def shuffled(m):
    order = torch.randperm(m[0].numel(), generator=torch.Generator().manual_seed(0))
    return m.flatten(1)[:, order].view(m.shape)

CHANGES = {
    'flipped': lambda m: m.flip(-1),
    'upside down': lambda m: m.flip(-2),
    'transposed': lambda m: m.transpose(-1, -2),
    'shuffled': shuffled,
}

@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('metric', ALL, **named)
def test_pixels_moved_together(metric, change):
    for kind in ('noise', 'ties'):
        given = maps(0, kind)
        moved = changed(given, CHANGES[change])
        assert torch.allclose(score(metric, given), score(metric, moved), rtol=1e-12)

def same_score(metric, given, saliency):
    "Whether other saliency scores the same."
    other = score(metric, given._replace(saliency=saliency))
    return torch.allclose(score(metric, given), other, rtol=1e-9)

@pytest.mark.parametrize('metric', ALL, **named)
def test_scale_does_not_matter(metric):
    given = maps(1)
    for factor in (1e-6, 1e-3, 255, 1e6): assert same_score(metric, given, factor * given.saliency)

@pytest.mark.parametrize('metric', (cc, nss, auc_judd, auc_borji, sauc), **named)
def test_level_does_not_matter(metric):
    given = maps(2)
    for level in (-5., 3.): assert same_score(metric, given, given.saliency + level)

@pytest.mark.parametrize('metric', (auc_judd, auc_borji, sauc), **named)
def test_only_order_matters_to_auc(metric):
    given = maps(3, 'ties')
    whole = score(metric, given)
    assert torch.equal(whole, score(metric, given._replace(saliency=given.saliency**3 - 2)))
    reversed_score = score(metric, given._replace(saliency=-given.saliency))
    assert torch.allclose(whole + reversed_score, torch.ones(3, dtype=torch.double), rtol=1e-12)

@pytest.mark.parametrize('metric', ALL, **named)
def test_enlarged_by_repetition(metric):
    """Pixels doubled in both directions: shares and ranks stay.

    Only the n - 1 of the standard deviation moves. Predictions of exactly zero are left out: the epsilon
    that stands for them is per pixel.
    """
    given = maps(4, 'ties')
    given = given._replace(saliency=given.saliency + .25)
    twice = changed(given, lambda m: m.repeat_interleave(2, -1).repeat_interleave(2, -2))
    tolerance = 1e-2 if metric is nss else 1e-9
    assert torch.allclose(score(metric, given), score(metric, twice), rtol=tolerance)

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.uint8, torch.int64]

@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('metric', ALL, **named)
def test_number_types(metric, dtype):
    given = maps(5)
    whole = (given.saliency * 100).round(), (given.density * 100).round()
    given = Maps(*whole, *given[2:])
    typed = Maps(*[m.to(dtype) for m in given[:4]], given.baseline)
    assert torch.allclose(score(metric, typed), score(metric, given), rtol=1e-12)

@pytest.mark.parametrize('metric', ALL, **named)
def test_batch_size_inputs_and_gradients(metric):
    given = changed(maps(6, 'ties'), torch.Tensor.float)
    before = changed(given, torch.clone)
    given.saliency.requires_grad_()
    whole = score(metric, given)
    assert whole.shape == (3,) and whole.dtype == torch.double and not whole.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(given, before))
    single = [score(metric, Maps(*image)) for image in zip(*changed(given, lambda m: m.split(1)))]
    assert torch.allclose(whole, torch.cat(single), rtol=1e-12)

@pytest.mark.parametrize('metric', ALL, **named)
def test_image_that_nobody_looked_at(metric):
    given = maps(7)
    whole = score(metric, given)
    given.density[1] = given.fixations[1] = 0
    found = score(metric, given)
    assert found.isnan().tolist() == [False, True, False]
    assert torch.allclose(found[::2], whole[::2], rtol=1e-12)

def test_shuffled_auc_without_others():
    given = maps(0)
    assert sauc(given.saliency, given.fixations, torch.zeros(9, 13)).isnan().all()

@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('metric', ALL, **named)
def test_not_finite(metric, value):
    for broken in range(3):
        given = maps(8)
        if broken and metric in (DENSITY if broken == 2 else FIXATIONS): continue
        given[broken][1, 2, 3] = value
        with pytest.raises(DataError): score(metric, given)

@pytest.mark.parametrize('metric', ALL, **named)
def test_shapes_that_do_not_belong_together(metric):
    given = maps(9)
    s = given.saliency
    for wrong in (s.transpose(1, 2), s[:2], s[0], s[:, None]):
        with pytest.raises(DataError): score(metric, given._replace(saliency=wrong))

@pytest.mark.parametrize('metric', (kld, sim, information_gain), **named)
def test_negative_density(metric):
    given = maps(10)
    with pytest.raises(DataError): score(metric, given._replace(saliency=given.saliency - .5))

@pytest.mark.parametrize('seed', range(20))
def test_area_is_exact(seed):
    g = rng(seed, 'places')
    values = g.random(5000)**g.integers(1, 40) * 10.**g.integers(-30, 30)
    values = torch.from_numpy(values).to([torch.float32, torch.float64][seed % 2])
    if seed % 3 == 0: values = torch.from_numpy(g.integers(0, g.integers(1, 300), 5000)).to(values.dtype)
    if seed % 5 == 0: values = -values
    positives = values[torch.from_numpy(g.integers(0, 5000, g.integers(1, 200)))]
    won, tied = positives[:, None] > values, positives[:, None] == values
    assert math.isclose(area(positives, values), (won + tied / 2).double().mean(), rel_tol=1e-12)

def test_others_in_batches():
    f = maps(11).fixations
    whole = other_fixations(f)
    assert torch.equal(whole, torch.stack([f[1] + f[2], f[0] + f[2], f[0] + f[1]]))
    halves = other_fixations(f[:2], f.sum(0)), other_fixations(f[2:], f.sum(0))
    assert torch.equal(torch.cat(halves), whole)
    bias = centre_bias(f)
    assert torch.allclose(bias.sum((1, 2)), torch.ones(3, dtype=torch.double)) and bias.min() > 0

def loss_maps(seed):
    "Maps whose density sums to one."
    m = maps(seed)
    return m._replace(density=m.density / m.density.sum((1, 2), keepdim=True))

def test_loss_is_the_scores():
    m = loss_maps(12)
    s, beside = m.saliency, (m.density, m.fixations)
    expected = (3 * kld(s, m.density) - 5 * cc(s, m.density) - 7 * nss(s, m.fixations)).mean().float()
    assert torch.isclose(saliency_loss(s, *beside, (3, 5, 7)), expected, rtol=1e-4)
    assert torch.isclose(saliency_loss(100 * s, *beside), saliency_loss(s, *beside), rtol=1e-4)

def test_gradient_of_the_loss():
    m = loss_maps(13)
    s = .2 + .6 * m.saliency
    def exact(saliency): # float64
        scores = 10 * kld(saliency, m.density) - 2 * cc(saliency, m.density) - nss(saliency, m.fixations)
        return scores.mean().item()
    x = s.clone().requires_grad_()
    saliency_loss(x, m.density, m.fixations).backward()
    for place in ((0, 0, 0), (1, 4, 6), (2, 8, 12)):
        step = torch.zeros_like(s)
        step[place] = 1e-5
        slope = (exact(s + step) - exact(s - step)) / 2e-5
        assert math.isclose(x.grad[place], slope, rel_tol=1e-3, abs_tol=1e-5)

@pytest.mark.parametrize('logit', [-1e4, -100., -50., 0., 50., 1e4])
def test_loss_is_finite_where_saliency_is_constant_or_saturated(logit):
    m = changed(loss_maps(14), torch.Tensor.float)
    m.fixations[1] = 0 # an image without fixations
    for x in (torch.full_like(m.fixations, logit), torch.where(m.fixations > 0, -logit, logit)):
        x.requires_grad_()
        loss = saliency_loss(x.sigmoid(), m.density, m.fixations)
        loss.backward()
        assert loss.isfinite() and x.grad.isfinite().all()
