"""Thresholds, dissection and adjusted effects of one model: CPU seconds now and before.

    git worktree add --detach /tmp/before da2ae49^ && make -C /tmp/before .venv/.ready
    python bench/engine.py --before /tmp/before

OSIE, light DINet (SqueezeNet, 128 bases, 240 x 320), 100 reference and 200 probe images, one thread.
Each code in a process of its own, with its own packages; processor time is counted after the imports and
after 24 images have been analysed (compiled loops are ready). Runs alternate; medians and their ratio.
Writes bench/engine.json.
"""
import argparse, json, os, subprocess, sys, time
from pathlib import Path
from statistics import median

parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
parser.add_argument('--before', required=True, help='a checkout of the code before')
parser.add_argument('--osie', default='../shared/data/osie')
parser.add_argument('--weights', default='../shared/weights/squeezenet1_0_imagenet.safetensors')
parser.add_argument('--runs', type=int, default=5, help='of each code')
parser.add_argument('--probe', type=int, default=200, help='images')
parser.add_argument('--out', default='bench/engine.json')
parser.add_argument('--work', choices=['before', 'now'], help=argparse.SUPPRESS)
args = parser.parse_args()
SIZE = 240, 320

def before(model, images, regions):
    from saliency_nb.adjustment import adjusted_contrasts
    from saliency_nb.dissection import dissect
    from saliency_nb.thresholds import adaptive_thresholds
    dissect(model, regions, adaptive_thresholds(model, images), SIZE)
    adjusted_contrasts(model, regions, SIZE)

def now(model, images, regions):
    from saliency_nb.adjustment import Adjustment, solved
    from saliency_nb.dissection import dissect
    from saliency_nb.thresholds import reference_pass, sample_thresholds
    seen = reference_pass(model, images)
    effects = Adjustment(regions, model.bases.out_channels, seen.usual())
    dissect(model, regions, sample_thresholds(seen.sample()), SIZE, also=(effects,))
    solved(effects)

def spent():
    "Processor seconds of one analysis, in this process."
    import torch
    from saliency_nb.bases import build_model, initialise
    from saliency_nb.pictures import read_image
    from saliency_nb.regions import osie_regions
    torch.set_num_threads(1)
    torch.manual_seed(0)
    regions = osie_regions(Path(args.osie)/'labels', Path(args.osie)/'stimuli')
    ids = list(regions.ids)
    images = torch.stack([read_image(regions.image_path(i), SIZE) for i in ids[-100:]])
    model = build_model('dinet', n_bases=128, backbone='squeezenet1_0', width=128, weights=args.weights)
    model = initialise(model, images[:4]).eval()
    work = dict(before=before, now=now)[args.work]
    work(model, images[:3], regions.subset(ids[:24]))
    start = time.process_time()
    work(model, images, regions.subset(ids[:args.probe]))
    return time.process_time() - start

if args.work:
    print(spent())
    sys.exit()

def apart(which):
    folder = Path(args.before if which == 'before' else Path(__file__).parent.parent).resolve()
    own = dict(os.environ, PYTHONPATH=str(folder), OMP_NUM_THREADS='1')
    command = [folder/'.venv/bin/python', __file__, *sys.argv[1:], '--work', which]
    ended = subprocess.run(command, env=own, capture_output=True, text=True, check=True)
    return float(ended.stdout.split()[-1])

times = dict(before=[], now=[])
for _ in range(args.runs):
    for which, seconds in times.items():
        seconds.append(round(apart(which), 2))
        print(which, seconds[-1], 'CPU seconds', flush=True)
found = dict(command=' '.join(['python', *sys.argv]), probe=args.probe, reference=100, cpu_seconds=times)
middle = {k: median(v) for k, v in times.items()}
found |= dict(median=middle, ratio=round(middle['now'] / middle['before'], 3))
print(middle, 'ratio', found['ratio'])
Path(args.out).write_text(json.dumps(found, indent=1) + '\n')
