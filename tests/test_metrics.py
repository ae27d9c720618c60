"Metrics on random maps: against definitions written as plain loops, and under changes that must not matter."
import math
import numpy as np, pytest, torch
from saliency_nb.core import DataError, rng
from saliency_nb.metrics import auc_borji, auc_judd, cc, centre_bias, information_gain, kld, nss, other_fixations, place_sum, places, saliency_loss, sauc, sim

DENSITY, FIXATIONS = (cc, kld, sim), (nss, auc_judd, auc_borji, sauc, information_gain)
ALL = DENSITY + FIXATIONS
named = dict(ids=lambda m: m.__name__)

def maps(seed, kind='noise', shape=(3, 9, 13)):
    "Saliency, density, fixations (some pixels hit twice), fixations of others, baseline."
    g = rng(seed, 'maps', kind)
    saliency = {'noise': g.random(shape), 'ties': g.integers(0, 4, shape) / 4, 'peaked': g.random(shape)**30, 'saturated': g.integers(0, 2, shape), 'constant': np.full(shape, .7)}[kind]
    fixations = g.poisson(.15, shape); fixations[:, 0, 0] = 2
    return [torch.from_numpy(np.asarray(m, float)) for m in (saliency, g.random(shape)**4, fixations, g.poisson(.8, shape), g.random(shape) + .1)]

def score(metric, s, q, f, others, baseline):
    return metric(s, *{sauc: (f, others), information_gain: (f, baseline)}.get(metric, (f if metric in FIXATIONS else q,)))

def by_loops(metric, s, q, f, others, baseline): # one image, nested lists flattened
    s, q, f, others, baseline = (m.flatten().tolist() for m in (s, q, f, others, baseline))
    n, on = len(s), [i for i, k in enumerate(f) if k > 0]
    share = lambda m: [v / sum(m) for v in m]
    def z(m):
        mean = sum(m) / n
        spread = math.sqrt(sum((v - mean)**2 for v in m) / (n - 1))
        return [(v - mean) / spread if max(m) > min(m) else 0. for v in m]
    def area(negatives, weight):
        won = sum(weight[j] * ((s[i] > s[j]) + (s[i] == s[j]) / 2) for i in on for j in negatives)
        return won / (len(on) * sum(weight[j] for j in negatives))
    e = 2.220446049250313e-16
    return {cc: lambda: sum(a * b for a, b in zip(z(s), z(q))) / (n - 1),
            kld: lambda: sum(b * math.log(e + b / (e + a)) for a, b in zip(share(s), share(q))),
            sim: lambda: sum(map(min, share(s), share(q))),
            nss: lambda: sum(z(s)[i] for i in on) / len(on),
            auc_judd: lambda: area([i for i in range(n) if i not in on], [1] * n),
            auc_borji: lambda: area(range(n), [1] * n),
            sauc: lambda: area(range(n), others),
            information_gain: lambda: sum(math.log2(e + share(s)[i]) - math.log2(e + share(baseline)[i]) for i in on) / len(on)}[metric]()

@pytest.mark.parametrize('kind', ['noise', 'ties', 'peaked', 'saturated', 'constant'])
@pytest.mark.parametrize('metric', ALL, **named)
def test_definition(metric, kind):
    for seed in range(3):
        given = maps(seed, kind)
        assert np.allclose(score(metric, *given), [by_loops(metric, *image) for image in zip(*given)], rtol=1e-10, atol=1e-10)

CHANGES = {'flipped': lambda m: m.flip(-1), 'upside down': lambda m: m.flip(-2), 'transposed': lambda m: m.transpose(-1, -2),
           'shuffled': lambda m: m.flatten(1)[:, torch.randperm(m[0].numel(), generator=torch.Generator().manual_seed(0))].view(m.shape)}
@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('metric', ALL, **named)
def test_pixels_moved_together(metric, change):
    for kind in ('noise', 'ties'):
        given = maps(0, kind)
        assert torch.allclose(score(metric, *given), score(metric, *map(CHANGES[change], given)), rtol=1e-12)

@pytest.mark.parametrize('metric', ALL, **named)
def test_scale_does_not_matter(metric):
    s, *rest = maps(1)
    for factor in (1e-6, 1e-3, 255, 1e6): assert torch.allclose(score(metric, s, *rest), score(metric, factor * s, *rest), rtol=1e-9)

@pytest.mark.parametrize('metric', (cc, nss, auc_judd, auc_borji, sauc), **named)
def test_level_does_not_matter(metric):
    s, *rest = maps(2)
    for level in (-5., 3.): assert torch.allclose(score(metric, s, *rest), score(metric, s + level, *rest), rtol=1e-9)

@pytest.mark.parametrize('metric', (auc_judd, auc_borji, sauc), **named)
def test_only_order_matters_to_auc(metric):
    s, *rest = maps(3, 'ties')
    assert torch.equal(score(metric, s, *rest), score(metric, s**3 - 2, *rest))
    assert torch.allclose(score(metric, s, *rest) + score(metric, -s, *rest), torch.ones(3, dtype=torch.double), rtol=1e-12)

@pytest.mark.parametrize('metric', ALL, **named)
def test_enlarged_by_repetition(metric):
    "Pixels doubled in both directions: shares and ranks stay, only the n - 1 of the standard deviation moves. (Predictions of exactly zero are left out: the epsilon that stands for them is per pixel.)"
    twice = lambda m: m.repeat_interleave(2, -1).repeat_interleave(2, -2)
    given = maps(4, 'ties'); given[0] += .25
    assert torch.allclose(score(metric, *given), score(metric, *map(twice, given)), rtol=1e-2 if metric is nss else 1e-9)

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.uint8, torch.int64], ids=str)
@pytest.mark.parametrize('metric', ALL, **named)
def test_number_types(metric, dtype):
    given = maps(5)
    given[0] = (given[0] * 100).round()
    q = (given[1] * 100).round()
    expected = score(metric, given[0], q, *given[2:])
    assert torch.allclose(score(metric, given[0].to(dtype), q.to(dtype), given[2].to(dtype), given[3].to(dtype), given[4]), expected, rtol=1e-12)

@pytest.mark.parametrize('metric', ALL, **named)
def test_batch_size_inputs_and_gradients(metric):
    given = [m.float() for m in maps(6, 'ties')]
    before = [m.clone() for m in given]
    given[0].requires_grad_()
    whole = score(metric, *given)
    assert whole.shape == (3,) and whole.dtype == torch.double and not whole.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(given, before))
    assert torch.allclose(whole, torch.cat([score(metric, *(m[i:i+1] for m in given)) for i in range(3)]), rtol=1e-12)

@pytest.mark.parametrize('metric', ALL, **named)
def test_image_that_nobody_looked_at(metric):
    s, q, f, others, baseline = maps(7)
    whole = score(metric, s, q, f, others, baseline)
    q[1] = f[1] = 0
    found = score(metric, s, q, f, others, baseline)
    assert found.isnan().tolist() == [False, True, False] and torch.allclose(found[::2], whole[::2], rtol=1e-12)

def test_shuffled_auc_without_others(): assert sauc(*(maps(0)[i] for i in (0, 2)), torch.zeros(9, 13)).isnan().all()

@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('metric', ALL, **named)
def test_not_finite(metric, value):
    for broken in range(3):
        given = maps(8)
        if broken and metric in (DENSITY if broken == 2 else FIXATIONS): continue
        given[broken][1, 2, 3] = value
        with pytest.raises(DataError): score(metric, *given)

@pytest.mark.parametrize('metric', ALL, **named)
def test_shapes_that_do_not_belong_together(metric):
    s, *rest = maps(9)
    for wrong in (s.transpose(1, 2), s[:2], s[0], s[:, None]):
        with pytest.raises(DataError): score(metric, wrong, *rest)

@pytest.mark.parametrize('metric', (kld, sim, information_gain), **named)
def test_negative_density(metric):
    s, *rest = maps(10)
    with pytest.raises(DataError): score(metric, s - .5, *rest)

@pytest.mark.parametrize('seed', range(20))
def test_table_of_places_is_exact(seed):
    g = rng(seed, 'places')
    values = torch.from_numpy(g.random(5000)**g.integers(1, 40) * 10.**g.integers(-30, 30)).to([torch.float32, torch.float64][seed % 2])
    if seed % 3 == 0: values = torch.from_numpy(g.integers(0, g.integers(1, 300), 5000)).to(values.dtype)
    if seed % 5 == 0: values = -values
    ordered = values[torch.from_numpy(g.integers(0, 5000, g.integers(1, 200)))].sort().values
    for steps in (2, 50, 2**16): assert place_sum(values, ordered, steps, portion=777) == places(values, ordered).sum()

def test_others_in_batches():
    f = maps(11)[2]
    whole = other_fixations(f)
    assert torch.equal(whole, torch.stack([sum(f[j] for j in range(3) if j != i) for i in range(3)]))
    assert torch.equal(torch.cat([other_fixations(f[:2], f.sum(0)), other_fixations(f[2:], f.sum(0))]), whole)
    assert torch.allclose(centre_bias(f).sum((1, 2)), torch.ones(3, dtype=torch.double)) and centre_bias(f).min() > 0

def test_loss_is_the_scores():
    s, q, f, *_ = maps(12)
    q = q / q.sum((1, 2), keepdim=True)
    expected = (3 * kld(s, q) - 5 * cc(s, q) - 7 * nss(s, f)).mean().float()
    assert torch.isclose(saliency_loss(s, q, f, (3, 5, 7)), expected, rtol=1e-4)
    assert torch.isclose(saliency_loss(100 * s, q, f), saliency_loss(s, q, f), rtol=1e-4)

def test_gradient_of_the_loss():
    s, q, f, *_ = maps(13)
    s, q = .2 + .6 * s, q / q.sum((1, 2), keepdim=True)
    exact = lambda m: (10 * kld(m, q) - 2 * cc(m, q) - nss(m, f)).mean().item() # float64
    x = s.clone().requires_grad_(); saliency_loss(x, q, f).backward()
    for place in ((0, 0, 0), (1, 4, 6), (2, 8, 12)):
        step = torch.zeros_like(s); step[place] = 1e-5
        assert math.isclose(x.grad[place], (exact(s + step) - exact(s - step)) / 2e-5, rel_tol=1e-3, abs_tol=1e-5)

@pytest.mark.parametrize('logit', [-1e4, -100., -50., 0., 50., 1e4])
def test_loss_is_finite_where_saliency_is_constant_or_saturated(logit):
    _, q, f, *_ = maps(14)
    q, f = (q / q.sum((1, 2), keepdim=True)).float(), f.float()
    f[1] = 0 # an image without fixations
    for x in (torch.full_like(f, logit), torch.where(f > 0, -logit, logit)):
        x.requires_grad_(); loss = saliency_loss(x.sigmoid(), q, f); loss.backward()
        assert loss.isfinite() and x.grad.isfinite().all()
