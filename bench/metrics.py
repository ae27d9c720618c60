"""AUC-Judd of a 480 x 640 prediction with 300 fixations on one core, beside the usual versions.

    python bench/metrics.py

Every version scores the same maps; a time is the median of 50 runs, checks of the input included. The usual
version (argsort) is blind to ties: its error is the last column. scipy's ranks are exact with ties, and ours
must agree with them.
"""
import os
os.environ.update(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1')
import time
import numpy as np, pandas as pd, torch
from scipy.stats import rankdata
from saliency_nb.core import rng
from saliency_nb.fixations import density, fixation_map
from saliency_nb.metrics import auc_judd

SIZE, FIXATIONS, RUNS, LIMIT = (480, 640), 300, 50, 10. # (H, W) px, number, number, ms

def area(rank, fixated): # (M,) ranks from 1, (M,) bool -> AUC of fixated against all other pixels
    n = fixated.sum()
    return (rank[fixated].sum() - n * (n + 1) / 2) / (n * (len(rank) - n))

def by_argsort(saliency, fixations): # (1, H, W) tensors -> AUC; blind to ties
    values = saliency.flatten()
    rank = torch.empty(len(values), dtype=torch.double)
    rank[values.argsort()] = torch.arange(1, len(values) + 1, dtype=torch.double)
    return area(rank, fixations.flatten() > 0)

def by_rankdata(saliency, fixations): # (1, H, W) tensors -> AUC; exact with ties
    return area(rankdata(saliency.numpy().ravel()), fixations.numpy().ravel() > 0)

def predictions(fixations): # (H, W) counts -> {name: (1, H, W) float32}
    g = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(1, 1, 60, 80, generator=g) - 3
    def up(mode): return torch.nn.functional.interpolate(logits, size=SIZE, mode=mode).sigmoid()[0]
    smooth = torch.from_numpy(density(fixations, 24.))[None]
    noise = torch.rand(1, *SIZE, generator=g)
    return {'blurred fixations': smooth, 'same, 8 bit': (smooth / smooth.max() * 255).round(),
            'basis grid, bilinear': up('bilinear'), 'basis grid, nearest': up('nearest'),
            'noise': noise, 'noise, most values small': noise**8}

def milliseconds(versions, *maps): # {name: function} -> {name: median time in ms}
    times = {name: [] for name in versions}
    for name, version in versions.items():
        for _ in range(RUNS + 3):
            start = time.perf_counter()
            version(*maps)
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * np.median(t[3:]) for name, t in times.items()} # the first three warm up

def central_fixations(): # (H, W) counts, each fixation in a pixel of its own
    centre = density(fixation_map([320], [240], SIZE, SIZE), 80.).ravel().astype(float)
    drawn = dict(replace=False, p=centre / centre.sum())
    where = rng(0, 'bench metrics').choice(len(centre), FIXATIONS, **drawn)
    return fixation_map(where % SIZE[1], where // SIZE[1], SIZE, SIZE)

def row(versions, *maps):
    "Times and scores of all versions on the same maps."
    ms, score = milliseconds(versions, *maps), {k: float(v(*maps)) for k, v in versions.items()}
    assert abs(score['ours'] - score['rankdata']) < 1e-12, score
    found = {f'{name}, ms': ms[name] for name in ('ours', 'argsort', 'rankdata')}
    found |= {f'{name} / ours': ms[name] / ms['ours'] for name in ('argsort', 'rankdata')}
    return found | {'AUC': score['ours'], 'error of argsort': f"{score['argsort'] - score['ours']:.0e}"}

def main():
    torch.set_num_threads(1)
    fixations = central_fixations()
    versions = dict(ours=auc_judd, argsort=by_argsort, rankdata=by_rankdata)
    counts = torch.from_numpy(fixations)[None]
    rows = {name: row(versions, saliency, counts) for name, saliency in predictions(fixations).items()}
    table = pd.DataFrame(rows).T.infer_objects()
    print(f'AUC-Judd, {SIZE[0]} x {SIZE[1]}, {FIXATIONS} fixations, one core, median of {RUNS},',
          f'torch {torch.__version__}')
    print(table.to_string(float_format='{:.2f}'.format))
    slowest = table['ours, ms'].max()
    where = 'within' if slowest <= LIMIT else 'ABOVE'
    print(f'slowest of ours: {slowest:.2f} ms, {where} the limit of {LIMIT:g} ms')

if __name__ == '__main__': main()
