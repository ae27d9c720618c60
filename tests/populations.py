"""Populations of images whose statistics are known: do intervals from a sample of them hold?

For tests, the chapter How sure, and bench/contributions.py.
"""
import numpy as np, pandas as pd, torch, xarray as xr
from saliency_nb.chance import FEWEST
from saliency_nb.contributions import (contrast_effect, contribution_interval, effect_interval, fold_draws,
    of_folds, replicated_contributions, semantic_shares)
from saliency_nb.core import rng

def generated_masks(g, how_often, side, images, grid):
    "Boxes of semantics at random places, each in some of the images: (images, C, h w), 0 or 1."
    (h, w), shape = grid, (images, len(side))
    y, x = np.mgrid[:h, :w]
    reach = (side * np.exp(g.normal(0, .2, shape))).clip(max=.9)[..., None, None] / 2
    down = abs(y - g.uniform(0, h, shape)[..., None, None]) <= h * reach
    across = abs(x - g.uniform(0, w, shape)[..., None, None]) <= w * reach
    there = (g.random(shape) < how_often)[..., None, None]
    return torch.from_numpy(down & across & there).flatten(2).float()

def generated_bases(g, n_bases, n_semantics):
    "What bases answer to, (N, C), about a quarter of the semantics; and their weights, (N,)."
    shape = n_bases, n_semantics
    answer = 2 * g.normal(size=shape) * (g.random(shape) < .25)
    return torch.from_numpy(answer).float(), g.normal(-.3, 1, n_bases)

def generated_logits(g, answer, masks, grid):
    "Bases that answer to semantics, in some images more than in others, and to noise: (images, N, h w)."
    images, n_semantics = masks.shape[:2]
    coarse = torch.from_numpy(g.normal(size=(images, len(answer), 4, 5))).float()
    noise = torch.nn.functional.interpolate(coarse, size=grid, mode='bilinear').flatten(2)
    strength = torch.from_numpy(g.gamma(4, .25, (images, n_semantics, 1))).float()
    return answer @ (masks * strength) + 1.2 * noise

def dissected(z, threshold, weight, masks):
    "IoU and contrast, (2, images, N, C), of logits (images, N, K); NaN where an image lacks the semantic."
    on, part = (z > threshold).float(), weight[:, None] * z.sigmoid()
    region, size = masks.transpose(1, 2), masks.sum(2)[:, None]
    both, inside = on @ region, part @ region
    iou = both / (on.sum(2)[..., None] + size - both)
    outside = (part.sum(2)[..., None] - inside) / (z.shape[2] - size)
    return torch.stack([iou, inside / size - outside]).masked_fill(size == 0, torch.nan).numpy()

def generated_population(seed=0, images=3000, n_bases=32, n_semantics=24, grid=(12, 16)):
    "A generated model dissected on generated scenes, image by image: iou, contrast; weight of the bases."
    g, parts = rng(seed, 'population'), []
    how_often = np.exp(g.uniform(np.log(.02), np.log(.5), n_semantics))
    side = np.sqrt(g.uniform(.02, .35, n_semantics))
    answer, weight = generated_bases(g, n_bases, n_semantics)
    for k in range(0, images, 250):
        masks = generated_masks(g, how_often, side, min(250, images - k), grid)
        z = generated_logits(g, answer, masks, grid)
        if not parts: threshold = z.transpose(0, 1).flatten(1).quantile(.8, 1)[:, None]
        parts.append(dissected(z, threshold, torch.from_numpy(weight).float(), masks))
    values = zip(('iou', 'contrast'), np.concatenate(parts, 1))
    found = {name: (('image', 'basis', 'semantic'), v) for name, v in values}
    found['weight'] = 'basis', weight
    return xr.Dataset(found, dict(semantic=[f's{i:02d}' for i in range(n_semantics)]))

def fold_sums(belongs, values):
    "Sums of values (image, ...) over the folds that images belong to, (image, F) 0 or 1."
    return np.einsum('if,i...->...f', belongs, values.astype(np.float32), optimize=True)

def sampled(population, rows, folds=200, seed=0):
    "Some images of a population as `dissect` would sum them up: means, and sums over random parts (folds)."
    here = np.isfinite(population.iou.values[rows, 0])
    belongs = np.eye(folds, dtype=np.float32)[rng(seed, 'folds').integers(0, folds, len(rows))]
    n, found = here.sum(0), dict(weight=population.weight)
    for k in ('iou', 'contrast'):
        values = np.nan_to_num(population[k].values[rows])
        found[k] = ('basis', 'semantic'), values.sum(0, dtype=np.float64) / np.maximum(n, 1)
        found[f'fold_{k}'] = ('basis', 'semantic', 'fold'), fold_sums(belongs, values)
    found['fold_contrast'] = ('semantic', 'fold'), found['fold_contrast'][1].sum(0)
    found['fold_count'] = ('semantic', 'fold'), fold_sums(belongs, here).round().astype(int)
    found |= dict(count=('semantic', n), area=('semantic', np.full(len(n), np.nan)))
    coords = dict(semantic=population.semantic.values, basis=range(population.sizes['basis']))
    return xr.Dataset(found, coords | dict(category=('semantic', ['other'] * len(n))))

def sample_intervals(sample, replicates, seed):
    "95% intervals of C and I, low (C,) and high (C,), and two naive ones of I, straight from the bootstrap."
    w = sample.weight.values
    estimate = w @ semantic_shares(sample.iou.values)
    replicated, _ = replicated_contributions(sample, w, fold_draws(200, replicates, seed))
    rests_on = (of_folds(sample, 'fold_count') > 0).sum(1)
    low, high = np.quantile(replicated, [.025, .975], axis=0)
    return {'contrast C': effect_interval(contrast_effect(sample))[:2],
            'contribution I': contribution_interval(estimate, replicated, rests_on),
            'I, naive percentile': (low, high),
            'I, naive basic': (2 * estimate - high, 2 * estimate - low)}

def covered_by(population, images=400, seed=0, replicates=300):
    "Which intervals of a sample contain the truth, name by name: 1 or 0; NaN where none is given."
    whole, inside = population.mean('image'), {}
    contrast = whole.contrast.sum('basis').values
    contribution = whole.weight.values @ semantic_shares(whole.iou.values)
    rows = rng(seed, 'sample').integers(0, population.sizes['image'], images)
    sample = sampled(population, rows, seed=seed)
    enough = (of_folds(sample, 'fold_count') > 0).sum(1) >= FEWEST
    for name, (low, high) in sample_intervals(sample, replicates, seed).items():
        truth = contrast if name == 'contrast C' else contribution
        inside[name] = np.where(enough, (low <= truth) & (truth <= high), np.nan)
    return pd.DataFrame(inside, pd.Index(population.semantic.values, name='semantic'))

def coverage_summary(study):
    "How often intervals of `covered_by` hold: on average, for nine semantics in ten, share above 85%."
    per = study.astype(float).groupby(['population', 'semantic']).mean()
    above = (per.dropna(how='all') >= .85).mean()
    return pd.DataFrame(dict(mean=per.mean(), tenth=per.quantile(.1), above_85=above))
