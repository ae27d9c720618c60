"""Contributions with 1,000 bootstrap replicates at the size of Visual Genome: time and peak memory; and the coverage of the intervals, at length.

    python bench/contributions.py                      512 bases x 1,300 semantics x 200 folds: at most 30 s on 2 cores and 6 GB
    python bench/contributions.py --coverage FILE      populations of generated activations, 200 samples each; goes on where it stopped

Both write their results to bench/contributions.json, which the chapter "Contributions" shows.
"""
import os
os.environ.setdefault('OMP_NUM_THREADS', '2')
import argparse, json, resource, sys, time
from pathlib import Path
import numpy as np, torch, xarray as xr
from saliency_nb.core import rng, versions
from saliency_nb.contributions import contributions, semantic_shares
from saliency_nb.uncertainty import coverage_study, coverage_summary, generated_population

SECONDS, GIGABYTES = 30, 6 # limits

def visual_genome(n=512, c=1300, folds=200, seed=0): # bases, semantics -> alignment with long-tailed counts
    g = torch.Generator().manual_seed(seed)
    counts = torch.poisson((40000 / folds / torch.arange(2, c + 2).float())[:, None].expand(c, folds), generator=g)
    mean = .3 * torch.rand(n, c, generator=g)**3
    iou = torch.empty(n, c, folds).normal_(generator=g).mul_(.05).add_(mean[..., None]).clamp_(0, 1).mul_(counts)
    contrast = torch.empty(n, c, folds).normal_(generator=g).mul_(.01).mul_(counts)
    total = counts.sum(1).clamp(min=1)
    pairs = dict(iou=(iou.sum(2) / total).double(), contrast=(contrast.sum(2) / total).double())
    return xr.Dataset({k: (('basis', 'semantic'), v.numpy()) for k, v in pairs.items()} | dict(fold_iou=(('basis', 'semantic', 'fold'), iou.numpy()), fold_contrast=(('semantic', 'fold'), contrast.sum(0).numpy()),
                      fold_count=(('semantic', 'fold'), counts.int().numpy()), count=('semantic', counts.sum(1).int().numpy()), area=('semantic', np.full(c, .1)), weight=('basis', torch.randn(n, generator=g).numpy())),
                      dict(semantic=[f's{i:04d}' for i in range(c)], category=('semantic', ['other'] * c)))

def simple_loop(alignment, replicates): # the same replicates one after the other, as one would write them first
    iou, n, w = alignment.fold_iou.values, alignment.fold_count.values, alignment.weight.values
    for draw in rng(0, 'bootstrap').multinomial(iou.shape[2], np.full(iou.shape[2], 1 / iou.shape[2]), replicates): w @ semantic_shares(iou @ draw.astype(np.float32) / np.maximum(n @ draw, 1))

def keep(out, name, **values):
    "Add results to the file."
    kept = json.loads(Path(out).read_text()) if Path(out).is_file() else {}
    Path(out).write_text(json.dumps(kept | {name: dict(command=' '.join(['python', *sys.argv]), versions=versions()) | values}, indent=1) + '\n')

def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument('--coverage', metavar='FILE', help='CSV of finished samples'); options.add_argument('--populations', type=int, default=6); options.add_argument('--samples', type=int, default=200)
    options.add_argument('--out', default='bench/contributions.json')
    args = options.parse_args()
    torch.set_num_threads(2)
    if args.coverage:
        found = coverage_summary(coverage_study([generated_population(200 + k) for k in range(args.populations)], args.samples, file=args.coverage)).round(3)
        print(found.to_string()); keep(args.out, f'coverage of nominal 95% intervals, {args.populations} populations, {args.samples} samples of each', **found.T.to_dict()); return
    alignment = visual_genome()
    start, busy = time.perf_counter(), time.process_time()
    table = contributions(alignment)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    start = time.perf_counter(); simple_loop(alignment, 2); loop = (time.perf_counter() - start) / 2 * 1000
    print(f'{len(table)} semantics, {table.contribution_low.notna().sum()} with intervals: {seconds:.1f} s ({SECONDS} s allowed; {busy:.1f} s of CPU time on 2 threads), peak memory {gigabytes:.1f} GB ({GIGABYTES} GB allowed); one replicate after the other in numpy: {loop:.0f} s for I alone')
    keep(args.out, '512 bases x 1,300 semantics x 200 folds, 1,000 replicates', seconds=round(seconds, 1), cpu_seconds=round(busy, 1), peak_GB=round(gigabytes, 1), one_replicate_after_the_other_seconds=round(loop))
    assert gigabytes <= GIGABYTES and seconds <= SECONDS, 'too slow or too large (a busy machine?)'

if __name__ == '__main__': main()
