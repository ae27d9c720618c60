"Contributions as others use them: the agreed file format, folds against images, random names, coverage."
import json
import numpy as np, pandas as pd, pytest, torch, xarray as xr
from populations import covered_by, generated_population, sampled
from saliency_nb.bases import build_model, export_authors, save_checkpoint
from saliency_nb.chance import FEWEST, q_values
from saliency_nb.contributions import (contrast_effect, contributions, effect_interval, fold_draws,
    mean_effect, naming_p_values, permuted_orders, replicated_contributions, routes,
    semantic_shares)
from saliency_nb.published import read_authors
from saliency_nb.explain import explain
from saliency_nb.uncertainty import agreement, contrast_differences, contrast_effects
from saliency_nb.core import DataError, ParameterError, rng

@pytest.fixture(scope='module')
def population(): return generated_population(3, images=1200)

@pytest.fixture(scope='module')
def alignment(population): return sampled(population, np.arange(600), folds=50)

def test_published_contribution_by_hand(alignment):
    iou, w = alignment.iou.values, alignment.weight.values
    expected = np.zeros(iou.shape[1])
    for n in range(len(iou)):
        best = sorted(range(iou.shape[1]), key=lambda c: -iou[n, c])[:5]
        for c in best: expected[c] += w[n] * iou[n, c] / sum(iou[n, b] for b in best)
    table = contributions(alignment, replicates=50, permutations=100).set_index('semantic')
    table = table.loc[alignment.semantic.values]
    assert np.allclose(table.contribution, expected) and np.isclose(table.contribution.sum(), w.sum())
    assert np.allclose(table.contrast, alignment.contrast.sum('basis'))

def test_replicates_by_hand(alignment):
    draws = fold_draws(50, 7, seed=1)
    fast, kept = replicated_contributions(alignment, alignment.weight.values, draws, top=4)
    n = alignment.fold_count.values @ draws.T
    for r, d in enumerate(draws):
        shares = semantic_shares((alignment.fold_iou.values @ d) / np.maximum(n[:, r], 1), 4)
        assert np.allclose(fast[r], alignment.weight.values @ shares, atol=1e-5)
    assert np.isclose(kept.sum(1), 4).all()

def test_file_keeps_everything(alignment, tmp_path):
    step = float(abs(alignment.fold_iou).max()) / 32000
    packed = dict(fold_iou=dict(dtype='int16', scale_factor=step, _FillValue=-32768))
    alignment.to_netcdf(tmp_path/'alignment.nc', engine='h5netcdf', encoding=packed)
    read = xr.load_dataset(tmp_path/'alignment.nc', engine='h5netcdf')
    tables = (contributions(v, replicates=200, permutations=500) for v in (alignment, read))
    a, b = (table.set_index('semantic') for table in tables)
    numbers = a.select_dtypes('number').columns
    assert list(a.columns) == list(b.columns)
    assert np.allclose(a[numbers], b.loc[a.index, numbers], atol=5e-3, equal_nan=True)

def test_folds_are_as_good_as_single_images(population):
    rows = np.arange(300)
    values = population.contrast.values[rows].sum(1).T
    known = np.isfinite(values)
    sums, count = np.where(known, values, 0), known.astype(float)
    images = effect_interval(mean_effect(sums, count, population.semantic.values))
    folds = effect_interval(contrast_effect(sampled(population, rows)))
    width = images[1] - images[0]
    enough = known.sum(1) > 30
    for a, b in zip(images[:2], folds): assert (abs(a - b)[enough] < .3 * width[enough]).all()

def test_too_few_images_give_no_interval(population):
    table = contributions(sampled(population, np.arange(60)), replicates=50, permutations=50)
    assert table.low.isna().equals(table.q_value.isna())
    assert table.low[table.n_images < FEWEST].isna().all() and table.low[table.n_images > 20].notna().all()

def test_random_names_are_no_discoveries(alignment):
    shares, w = semantic_shares(alignment.iou.values), alignment.weight.values
    orders = permuted_orders(w, 200, seed=5)
    q = [q_values(naming_p_values(shares[order], w, 1000)) for order in orders]
    assert np.mean(np.array(q) < .05) <= .05

def test_real_names_are():
    "200 bases, ten semantics, weights by name."
    g = rng(0, 'real')
    name, truth = np.arange(200) % 10, np.array([2, -2, 1, -1, 0, 0, 0, 0, 0, 0.])
    q = q_values(naming_p_values(np.eye(10)[name], truth[name] + g.normal(0, 1, 200)))
    assert (q[:4] < .05).all() and (q[4:] > .01).all()

def test_permutations_matched_on_weight():
    w = rng(0, 'w').normal(size=37)
    for matched in (0, 8):
        orders = permuted_orders(w, 50, 0, matched)
        assert (np.sort(orders, 1) == np.arange(37)).all() and len({tuple(o) for o in orders}) == 50
    rank = np.argsort(np.argsort(-abs(w)))
    assert (rank[orders] // 8 == rank // 8).all()

def test_intervals_cover_the_population(population):
    "Also that of the published contribution, whose names are chosen by the data."
    held = pd.concat([covered_by(population, seed=seed) for seed in range(12)]).mean()
    assert held['contrast C'] >= .9 and held['contribution I'] >= .93 > held['I, naive basic']

def test_differences_and_seeds_need_the_same_images(population):
    a, b = sampled(population, np.arange(300)), sampled(population, np.arange(100, 400))
    with pytest.raises(ParameterError, match='different images'): contrast_effects([a, b])
    d = contrast_differences(a, a.assign(fold_contrast=2 * a.fold_contrast, contrast=2 * a.contrast))
    # nats: a prediction twice as steep raises everything twice as much
    assert np.allclose(d.difference, -d['first'], atol=1e-6)

def test_differences_by_folds_are_as_narrow_as_by_images(population):
    "Folds hold different numbers of images; that is no noise of the difference."
    a = sampled(population, np.arange(300)).assign_attrs(data='')
    b = a.assign(fold_contrast=a.fold_contrast - a.fold_count) # one nat less in every image
    d = contrast_differences(a, b)
    assert np.allclose(d.difference, 1, atol=1e-5) and np.allclose(d[['low', 'high']].dropna(), 1, atol=1e-5)

def test_agreement_is_paired(population):
    a = sampled(population, np.arange(900))
    a = a.assign(inside=a.contrast, outside=0 * a.contrast)
    truth = pd.Series(population.contrast.mean('image').sum('basis').values, a.semantic.values)
    found = agreement(a, truth, replicates=100)
    rho = found.spearman
    assert rho['contrast C'] > .9 and np.isclose(rho['C - I'], rho['contrast C'] - rho['contribution I'])
    assert found.low['C - I'] > 0

def test_routes_sum_to_the_contrast(alignment):
    assert np.allclose(routes(alignment).sum(), alignment.contrast.sum('basis'))

def some_names(g, bases=96, named=60, semantics=40):
    "Random overlaps, and names that may be true; the last bases have none."
    found = {k: g.random((bases, semantics)) for k in ('iou', 'chance_iou', 'q_value')}
    found['q_value'] = np.where(np.arange(bases)[:, None] < named, .1 * found['q_value'], .5)
    labels = dict(semantic=[f's{i}' for i in range(semantics)], category=('semantic', ['other'] * semantics))
    return xr.Dataset({k: (('basis', 'semantic'), v) for k, v in found.items()}, labels)

HOSTS = dict(dinet=dict(width=16), salicon=dict(width=16), transalnet=dict(width=16, size=(96, 128)))

@pytest.mark.parametrize('host,options', HOSTS.items())
def test_maps_sum_to_the_logit(host, options):
    torch.manual_seed(1)
    model = build_model(host, n_bases=96, phase=2, backbone='squeezenet1_0', **options).eval()
    model.readout.weight.data *= 20 # logits of the size of a trained model's
    image = torch.randn(3, 96, 128)
    maps = explain(model, image, some_names(rng(0, host)))
    with torch.no_grad(): logit = model.logits(image[None])[0].numpy()
    assert abs(maps.values.sum(0) - logit).max() <= 1e-4 and abs(logit).max() > 1
    assert abs(maps.sel(semantic='remainder')).max() > .01

SMALL = dict(backbone='squeezenet1_0', width=8, phase=2)
NAMES = 'face', 'sky', 'dog', 'red', 'car', 'zebra'

def listed(overlaps):
    "As the authors write a basis: largest first, four digits."
    order = sorted(zip(NAMES, overlaps), key=lambda pair: -pair[1])
    return {name: round(v, 4) for name, v in order}

def face_by_hand(result, w):
    "Each basis' weight by the share of its face in its five largest overlaps."
    for n, overlaps in enumerate(result):
        best = sorted(overlaps.values())[-5:]
        if overlaps['face'] in best: yield w[n] * overlaps['face'] / sum(best)

@pytest.mark.parametrize('theirs', [True, False])
def test_authors_files(theirs, tmp_path):
    torch.manual_seed(0)
    model = build_model('dinet', n_bases=6, **SMALL | (dict(backbone='resnet50') if theirs else {}))
    file = tmp_path/('model_best.pth' if theirs else 'model.safetensors')
    file = export_authors(model, file) if theirs else save_checkpoint(model, file)
    dissected = tmp_path/'proto_dessection_result_dinet.json'
    result = [listed(overlaps) for overlaps in rng(0, 'authors').random((6, 6))]
    dissected.write_text(json.dumps(result))
    table = contributions(read_authors(dissected, file))
    w = model.readout.weight.detach()[0].sum((1, 2)).numpy()
    found = table.set_index('semantic').contribution['face']
    assert np.isclose(found, sum(face_by_hand(result, w)), atol=1e-6) and table.low.isna().all()
    other = save_checkpoint(build_model('dinet', n_bases=5, **SMALL), tmp_path/'other.safetensors')
    with pytest.raises(DataError, match='6 bases|no such'): read_authors(dissected, other)
