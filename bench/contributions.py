"""Contributions with 1,000 bootstrap replicates at the size of Visual Genome: time, peak memory; coverage.

    python bench/contributions.py                512 bases x 1,300 semantics x 200 folds:
                                                 at most 30 s on 2 cores and 6 GB
    python bench/contributions.py --coverage     six populations of generated activations,
                                                 200 samples of each: do the intervals hold?

Both write their results to bench/contributions.json, which the chapter "How sure" shows.
"""
import os
os.environ.setdefault('OMP_NUM_THREADS', '2')
import argparse, json, resource, sys, time
from pathlib import Path
import numpy as np, pandas as pd, torch, xarray as xr
from saliency_nb.core import rng, versions
from saliency_nb.contributions import contributions, semantic_shares

sys.path.append(str(Path(__file__).resolve().parent.parent/'tests'))
from populations import coverage_summary, covered_by, generated_population

SECONDS, GIGABYTES = 30, 6 # limits
OUT = Path(__file__).with_name('contributions.json')

def visual_genome(n=512, c=1300, folds=200, seed=0):
    "An alignment of bases and semantics with long-tailed counts."
    g = torch.Generator().manual_seed(seed)
    often = 40000 / folds / torch.arange(2, c + 2).float()
    counts = torch.poisson(often[:, None].expand(c, folds), generator=g)
    mean = .3 * torch.rand(n, c, generator=g)**3
    noise = torch.empty(n, c, folds).normal_(generator=g).mul_(.05)
    iou = noise.add_(mean[..., None]).clamp_(0, 1).mul_(counts)
    contrast = torch.empty(n, c, folds).normal_(generator=g).mul_(.01).mul_(counts)
    total = counts.sum(1).clamp(min=1)
    both = 'basis', 'semantic'
    means = {k: (v.sum(2) / total).double().numpy() for k, v in dict(iou=iou, contrast=contrast).items()}
    found = {k: (both, v) for k, v in means.items()}
    found['fold_iou'] = (*both, 'fold'), iou.numpy()
    found['fold_contrast'] = ('semantic', 'fold'), contrast.sum(0).numpy()
    found['fold_count'] = ('semantic', 'fold'), counts.int().numpy()
    found |= dict(count=('semantic', counts.sum(1).int().numpy()), area=('semantic', np.full(c, .1)))
    found['weight'] = 'basis', torch.randn(n, generator=g).numpy()
    names = [f's{i:04d}' for i in range(c)]
    return xr.Dataset(found, dict(semantic=names, category=('semantic', ['other'] * c)))

def simple_loop(alignment, replicates):
    "The same replicates one after the other, as one would write them first."
    iou, n, w = alignment.fold_iou.values, alignment.fold_count.values, alignment.weight.values
    folds = iou.shape[2]
    for draw in rng(0, 'bootstrap').multinomial(folds, np.full(folds, 1 / folds), replicates):
        w @ semantic_shares(iou @ draw.astype(np.float32) / np.maximum(n @ draw, 1))

def keep(name, **values):
    "Add results to the file."
    kept = json.loads(OUT.read_text()) if OUT.is_file() else {}
    kept[name] = dict(command=' '.join(['python', *sys.argv]), versions=versions()) | values
    OUT.write_text(json.dumps(kept, indent=1) + '\n')

def coverage(populations=6, samples=200):
    "How often intervals hold."
    parts = []
    for i in range(populations):
        population = generated_population(200 + i)
        parts += [covered_by(population, seed=s).assign(population=i) for s in range(samples)]
        print(f'population {i + 1} of {populations}', flush=True)
    found = coverage_summary(pd.concat(parts)).round(3)
    print(found.to_string())
    what = f'coverage of nominal 95% intervals, {populations} populations, {samples} samples of each'
    keep(what, **found.T.to_dict())

def speed():
    "Time and memory of the table."
    alignment = visual_genome()
    start, busy = time.perf_counter(), time.process_time()
    table = contributions(alignment)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    start = time.perf_counter()
    simple_loop(alignment, 2)
    loop = (time.perf_counter() - start) / 2 * 1000
    print(f'{len(table)} semantics, {table.contribution_low.notna().sum()} with intervals: '
          f'{seconds:.1f} s ({SECONDS} s allowed; {busy:.1f} s of CPU time on 2 threads), '
          f'peak memory {gigabytes:.1f} GB ({GIGABYTES} GB allowed); '
          f'one replicate after the other in numpy: {loop:.0f} s for I alone')
    known = dict(seconds=round(seconds, 1), cpu_seconds=round(busy, 1), peak_GB=round(gigabytes, 1))
    known |= dict(one_replicate_after_the_other_seconds=round(loop))
    keep('512 bases x 1,300 semantics x 200 folds, 1,000 replicates', **known)
    assert gigabytes <= GIGABYTES and seconds <= SECONDS, 'too slow or too large (a busy machine?)'

def main():
    as_written = argparse.RawDescriptionHelpFormatter
    options = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    options.add_argument('--coverage', action='store_true', help='how often intervals hold')
    torch.set_num_threads(2)
    coverage() if options.parse_args().coverage else speed()

if __name__ == '__main__': main()
