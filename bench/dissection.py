"""Dissection against the published procedure on the same arrays, what it costs beside the network, and how it grows.

    python bench/dissection.py [--images 75000 --osie ../shared/data/osie --weights ../shared/weights/squeezenet1_0_imagenet.safetensors]

The published procedure is written by us from its description: pair by pair, thresholding included, in torch. All times are processor time of one thread, the shortest of several
(or the sum, where many images are added), so that what else the machine does counts little. `--images` is the size of the simulated data set: its activations are generated, its
memory is measured at a seventh and at all of that size, each in a process of its own. Writes bench/dissection.json.
"""
import argparse, json, platform, resource, subprocess, sys, time
from pathlib import Path
import numpy as np, torch
from saliency_nb.bases import build_model, initialise
from saliency_nb.chance import habits_of
from saliency_nb.core import versions
import saliency_nb.dissection as dissection
from saliency_nb.dissection import Dissection, dissect, intersections, packed, results, tail_bits
from saliency_nb.semantics import osie_regions
from saliency_nb.thresholds import LogitHistograms, Zoom, Zooms, adaptive_thresholds
from simulated import Simulated, pair_loop

parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
parser.add_argument('--images', type=int, default=3500); parser.add_argument('--n-bases', type=int, default=512); parser.add_argument('--semantics', type=int, default=1300)
parser.add_argument('--grid', type=int, nargs=2, default=(60, 80), help='of the simulated data set'); parser.add_argument('--osie', default='../shared/data/osie'); parser.add_argument('--probe', type=int, default=100, help='OSIE images')
parser.add_argument('--weights', default='../shared/weights/squeezenet1_0_imagenet.safetensors'); parser.add_argument('--out', default='bench/dissection.json')
parser.add_argument('--simulate', type=int, help=argparse.SUPPRESS)
args = parser.parse_args()
torch.set_num_threads(1)

def best(work, repeats=7):
    "Shortest processor time, in ms."
    times = []
    for _ in range(repeats): start = time.thread_time(); work(); times.append(1000 * (time.thread_time() - start))
    return min(times)

def count(words): return np.bitwise_count(words).sum(0, dtype=np.uint32)

def numpy_bits(z, thresholds, masks):
    on, g = packed(z.numpy() > thresholds.numpy()[:, None]).T.copy(), packed(masks.numpy()).T
    both = np.stack([count(on & m[:, None]) for m in g.T], 1).astype(float)
    return both / (count(on)[:, None] + count(g) - both)

def compiled(z, thresholds, masks):
    on, g = tail_bits(z.numpy(), thresholds.numpy(), -thresholds.numpy())[0], packed(masks.numpy())
    both = intersections(on, g).T.astype(float)
    return both / (count(on.T)[:, None] + count(g.T) - both)

def simulation(images, n, semantics, grid, most=25):
    "Dissect generated activations: a few maps of noise, shifted from image to image. Returns processor seconds and what was found."
    g = torch.Generator().manual_seed(0); maps = torch.randn(3, n, *grid, generator=g); kernels = torch.randn(n, 3, 3, generator=g)
    upper = torch.full((n,), .84); habits = habits_of(Simulated(images, semantics, most), grid); total = Dissection(habits, n, kernels)
    taken = 0.
    for i, names, masks in habits.masks:
        z = maps[i % 3].roll(i % (grid[0] * grid[1]), -1)
        start = time.thread_time(); total.add_logits(i, names, masks, z, upper, -upper); taken += time.thread_time() - start
    return taken, total

if args.simulate:
    seconds, total = simulation(args.simulate, args.n_bases, args.semantics, tuple(args.grid))
    while_adding = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = results(total)
    print(json.dumps(dict(images=args.simulate, seconds=round(seconds, 2), ms_per_image=round(1000 * seconds / args.simulate, 2), peak_GiB_adding=round(while_adding, 3),
                          peak_GiB_with_results=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3), tested=int(found.p_value.notnull().sum()))))
    sys.exit()

found = dict(command=' '.join(['python', *sys.argv]), device=f'{platform.processor() or platform.machine()}, one thread', versions=versions())
def report(name, **values):
    "Print and keep, so that what was measured is there even if the rest is not."
    found[name] = values; print(f'{name}:', ', '.join(f'{k} {v}' for k, v in values.items()), flush=True)
    Path(args.out).write_text(json.dumps(found, indent=1) + '\n')

# the ladder
g = torch.Generator().manual_seed(0)
z, masks, t = torch.randn(512, 4800, generator=g), torch.rand(25, 4800, generator=g) < .1, torch.full((512,), .84)
expected = pair_loop(z[:32], t[:32], masks)
for f in (numpy_bits, compiled): assert abs(f(z, t, masks)[:32] - expected).max() <= 1e-12
slow, bits, fast = 16 * best(lambda: pair_loop(z[:32], t[:32], masks), 3), *(best(lambda: f(z, t, masks), 25) for f in (numpy_bits, compiled))
report('alignment of one image, 512 bases, 60 x 80, 25 semantics', published_ms=round(slow, 1), numpy_bits_ms=round(bits, 2), numpy_bits_ratio=round(slow / bits), compiled_both_tails_ms=round(fast, 2), compiled_ratio=round(slow / fast))
h = LogitHistograms(512).add(z); zooms = Zooms([Zoom(h, .8), Zoom(h, .8, False)]); zooms.add(z)
first, second = best(lambda: h.add(z)), best(lambda: zooms.add(z))
report('thresholds of one image, 512 bases, 60 x 80', histograms_ms=round(first, 2), second_look_both_tails_ms=round(second, 2))

# growth of everything that is done with one image: both tails, chance, activations, contrast, folds
for name, (n, c, grid) in dict(base=(256, 25, (30, 40)), bases_doubled=(512, 25, (30, 40)), semantics_doubled=(256, 50, (30, 40)), places_fourfold=(256, 25, (60, 80)), full=(512, 25, (60, 80))).items():
    report(f'all statistics, {name}', bases=n, semantics_per_image=c, grid=list(grid), ms_per_image=round(1000 * min(simulation(12, n, 60, grid, c)[0] for _ in range(2)) / 12, 2))

# end to end on real images
if Path(args.osie).is_dir():
    regions = osie_regions(Path(args.osie)/'labels', Path(args.osie)/'stimuli'); regions = regions.subset(list(regions.ids)[:args.probe])
    weights = dict(weights=args.weights) if Path(args.weights).is_file() else {}
    images = torch.stack([dissection.read_image(regions.image_path(i), (240, 320)) for i in list(regions.ids)[:20]])
    model = initialise(build_model('dinet', n_bases=128, backbone='squeezenet1_0', width=128, **weights), images[:4]).eval()
    thresholds = adaptive_thresholds(model, images)
    spent = dict(decoding=0., forward=0.)
    def timed(work, name):
        def f(*a):
            start = time.thread_time(); r = work(*a); spent[name] += time.thread_time() - start
            return r
        return f
    dissection.read_image, regions.masks, model.basis_logits = timed(dissection.read_image, 'decoding'), timed(regions.masks, 'decoding'), timed(model.basis_logits, 'forward')
    start = time.thread_time(); dissect(model, regions, thresholds); total = time.thread_time() - start
    rest = total - sum(spent.values())
    report('OSIE, SqueezeNet DINet, 128 bases, 240 x 320', images=len(regions), decoding_ms=round(1000 * spent['decoding'] / len(regions), 1), forward_ms=round(1000 * spent['forward'] / len(regions), 1),
           everything_else_ms=round(1000 * rest / len(regions), 2), share_of_everything_else=round(rest / total, 4), share_beside_forward_alone=round(rest / (rest + spent['forward']), 4))
else: print(f'{args.osie}: not here, so real images are left out')

# the size of Visual Genome
sizes = [json.loads(subprocess.run([sys.executable, __file__, '--simulate', str(n), '--n-bases', str(args.n_bases), '--semantics', str(args.semantics), '--grid', *map(str, args.grid)], capture_output=True, text=True, check=True).stdout) for n in (args.images * 2 // 15, args.images)]
for s in sizes: report(f'simulated, {s["images"]} images, {args.n_bases} bases, {args.semantics} semantics, grid {args.grid[0]} x {args.grid[1]}', **s)
report('growth with images', images=sizes[1]['images'] / sizes[0]['images'], time=round(sizes[1]['seconds'] / sizes[0]['seconds'], 3), peak_memory=round(sizes[1]['peak_GiB_adding'] / sizes[0]['peak_GiB_adding'], 3))
