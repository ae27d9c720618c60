"""Dissection against the published procedure on the same arrays; its cost beside the network, its growth.

    python bench/dissection.py [--images 3500 --probe 100 --osie ../shared/data/osie
                                --weights ../shared/weights/squeezenet1_0_imagenet.safetensors]

The published procedure is written by us from its description: pair by pair, thresholding included, in torch.
All times are processor time of one thread, the shortest of several (or the sum, where many images are added),
so that what else the machine does counts little. `--images` is the size of the simulated data set: its
activations are generated, its memory is measured at a seventh and at all of that size, each in a process of
its own. Writes bench/dissection.json.
"""
import argparse, json, platform, resource, subprocess, sys, time
from pathlib import Path
from unittest.mock import patch
import numpy as np, torch, xarray as xr
from saliency_nb.adjustment import Adjustment, solved
from saliency_nb.bases import build_model, initialise
from saliency_nb.core import versions
from saliency_nb.dissection import Alignment, Contrast, dissect, over_regions
from saliency_nb.pictures import read_image
from saliency_nb.regions import osie_regions
from saliency_nb.thresholds import reference_pass, sample_thresholds
from simulated import Simulated, generated_batches, pair_loop

parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
parser.add_argument('--images', type=int, default=3500)
parser.add_argument('--n-bases', type=int, default=512)
parser.add_argument('--semantics', type=int, default=1300)
parser.add_argument('--grid', type=int, nargs=2, default=(60, 80), help='of the simulated data set')
parser.add_argument('--osie', default='../shared/data/osie')
parser.add_argument('--probe', type=int, default=100, help='OSIE images')
parser.add_argument('--weights', default='../shared/weights/squeezenet1_0_imagenet.safetensors')
parser.add_argument('--out', default='bench/dissection.json')
parser.add_argument('--simulate', type=int, help=argparse.SUPPRESS)
args = parser.parse_args()
torch.set_num_threads(1)

def best(work, repeats=7):
    "Shortest processor time, in ms."
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        work()
        times.append(1000 * (time.thread_time() - start))
    return min(times)

def thresholds_of(n):
    level = np.full(n, .84, np.float32)
    return xr.DataArray(level, dict(lower=('basis', -level)), ('basis',))

def simulation(images, n, semantics, grid, most=25):
    "Processor seconds for the sums of generated activations: both tails, partners, contrast, folds."
    regions = Simulated(images, semantics, most)
    total, lifted = Alignment(thresholds_of(n), semantics), Contrast(n, semantics, images)
    taken = 0.
    for batch in generated_batches(regions, n, grid, images):
        start = time.thread_time()
        total.add(batch)
        lifted.add(batch)
        taken += time.thread_time() - start
    return taken

if args.simulate:
    seconds = simulation(args.simulate, args.n_bases, args.semantics, tuple(args.grid))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    known = dict(images=args.simulate, seconds=round(seconds, 2))
    known |= dict(ms_per_image=round(1000 * seconds / args.simulate, 2), peak_GiB=round(peak, 3))
    print(json.dumps(known))
    sys.exit()

device = f'{platform.processor() or platform.machine()}, one thread'
found = dict(command=' '.join(['python', *sys.argv]), device=device, versions=versions())
def report(name, **values):
    "Print and keep, so that what was measured is there even if the rest is not."
    found[name] = values
    print(f'{name}:', ', '.join(f'{k} {v}' for k, v in values.items()), flush=True)
    Path(args.out).write_text(json.dumps(found, indent=1) + '\n')

# alignment of one image
g = torch.Generator().manual_seed(0)
z, masks = torch.randn(512, 4800, generator=g), torch.rand(25, 4800, generator=g) < .1
t = torch.full((512,), .84)
def ours(z, t, masks):
    on = (z > t[:, None]).float()
    both = over_regions(on[None], masks.float(), torch.zeros(len(masks), dtype=torch.long)).T.double().numpy()
    return both / (on.sum(1, keepdim=True).double().numpy() + masks.sum(1).double().numpy() - both)
assert abs(ours(z, t, masks)[:32] - pair_loop(z[:32], t[:32], masks)).max() <= 1e-12
slow, fast = 16 * best(lambda: pair_loop(z[:32], t[:32], masks), 3), best(lambda: ours(z, t, masks), 25)
report('alignment of one image, 512 bases, 60 x 80, 25 semantics',
       published_ms=round(slow, 1), ours_ms=round(fast, 2), ratio=round(slow / fast))

# growth of everything that is done with one image: both tails, partners, activations, contrast, folds
sizes = dict(base=(256, 25, (30, 40)), bases_doubled=(512, 25, (30, 40)),
             semantics_doubled=(256, 50, (30, 40)), places_fourfold=(256, 25, (60, 80)),
             full=(512, 25, (60, 80)))
for name, (n, c, grid) in sizes.items():
    ms = 1000 * min(simulation(20, n, 60, grid, c) for _ in range(2)) / 20
    shape = dict(bases=n, semantics_per_image=c, grid=list(grid))
    report(f'all statistics, {name}', **shape, ms_per_image=round(ms, 2))

# end to end on real images
spent = {}
def timed(work, name, clock=time.process_time):
    def f(*a):
        start = clock()
        result = work(*a)
        spent[name] += clock() - start
        return result
    return f

def measured(name, images, work):
    "Result of a pass; ms per image, and the share that is neither decoding nor one forward pass."
    spent.update(decoding=0., forward=0.)
    start = time.process_time()
    result = work()
    whole = time.process_time() - start
    times = dict(spent, everything_else=whole - sum(spent.values()))
    known = {f'{name}_{k}_ms': round(1000 * v / images, 2) for k, v in times.items()}
    return result, known | {f'{name}_share_of_everything_else': round(times['everything_else'] / whole, 4)}

def passes(model, regions, images, size):
    "Thresholds, dissection and adjusted effects."
    model.basis_logits = timed(model.basis_logits, 'forward')
    regions.masks = timed(regions.masks, 'decoding', time.thread_time) # in threads of their own
    seen, known = measured('reference', len(images), lambda: reference_pass(model, images))
    effects = Adjustment(regions, model.bases.out_channels, seen.usual())
    thresholds = sample_thresholds(seen.sample())
    with patch('saliency_nb.dissection.read_image', timed(read_image, 'decoding', time.thread_time)):
        def work(): return dissect(model, regions, thresholds, size, also=(effects,))
        known |= measured('dissection', len(regions), work)[1]
    return known | measured('solving', len(regions), lambda: solved(effects))[1]

def on_osie(backbone, n, size, **options):
    regions = osie_regions(Path(args.osie)/'labels', Path(args.osie)/'stimuli')
    ids = list(regions.ids)
    images = torch.stack([read_image(regions.image_path(i), size) for i in ids[-20:]])
    model = build_model('dinet', n_bases=n, backbone=backbone, **options)
    model = initialise(model, images[:4]).eval()
    found = passes(model, regions.subset(ids[:args.probe]), images, size)
    report(f'OSIE, DINet on {backbone}, {n} bases, {size[0]} x {size[1]}', images=args.probe, **found)

if Path(args.osie).is_dir():
    weights = args.weights if Path(args.weights).is_file() else None
    on_osie('squeezenet1_0', 128, (240, 320), width=128, weights=weights)
    on_osie('resnet50', 512, (480, 640))
else: print(f'{args.osie}: not here, so real images are left out')

# a large data set
def apart(images):
    sizes = ['--n-bases', args.n_bases, '--semantics', args.semantics, '--grid', *args.grid]
    command = [str(word) for word in (sys.executable, __file__, '--simulate', images, *sizes)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
few, many = apart(args.images // 7), apart(args.images)
for s in (few, many):
    of = f'{args.n_bases} bases, {args.semantics} semantics, grid {args.grid[0]} x {args.grid[1]}'
    report(f'simulated, {s["images"]} images, {of}', **s)
growth = {name: round(many[k] / few[k], 3)
          for name, k in dict(images='images', time='seconds', peak_memory='peak_GiB').items()}
report('growth with images', **growth)
