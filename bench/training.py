"""Time per training step, ours beside a straightforward implementation of the published procedure.

    python bench/training.py [--backbone resnet50 --size 480 640]

The published procedure, written by us from its description: BatchNorm live everywhere, also below what is
frozen; float32 in the default memory layout; every epoch of phase 2 runs the frozen layers again; the loss in
plain tensor operations. Ours: the step of `saliency_nb.training` (channels_last, frozen part in eval mode),
in float32 and in bfloat16, with and without cached activations. Steps of the variants alternate, so that what
else the machine does hits all of them; a time is the median over the steps. Writes bench/training.json.
"""
import argparse, json, platform, resource, time
from pathlib import Path
import torch
import torch.nn.functional as F
from saliency_nb.bases import build_model, freeze_below_readout, initialise
from saliency_nb.core import MEMORY, versions
from saliency_nb.batches import Preloaded, with_activations
from saliency_nb.training import SaliencyTraining

parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
parser.add_argument('--backbone', default='squeezenet1_0')
parser.add_argument('--width', type=int, default=256)
parser.add_argument('--n-bases', type=int, default=512)
parser.add_argument('--size', type=int, nargs=2, default=(240, 320))
parser.add_argument('--batch', type=int, default=10)
parser.add_argument('--steps', type=int, default=7)
parser.add_argument('--images', type=int, default=60, help='of the epochs of phase 2')
parser.add_argument('--threads', type=int, default=2)
parser.add_argument('--out', default='bench/training.json')
args = parser.parse_args()
torch.set_num_threads(args.threads)
device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')

def item(i):
    g = torch.Generator().manual_seed(i)
    h, w = args.size
    fixations = torch.zeros(h, w)
    fixations[torch.randint(h, (30,), generator=g), torch.randint(w, (30,), generator=g)] = 1
    density = F.avg_pool2d(fixations[None], 25, 1, 12)[0] + 1e-6
    image = torch.randn(3, h, w, generator=g)
    return dict(image=image, fixations=fixations, density=density / density.sum(), id=str(i))

data = Preloaded([item(i) for i in range(args.images)])

def stacked(items, k, names):
    "A batch on the device; after the last item comes the first."
    chosen = [items[(k * args.batch + j) % len(items)] for j in range(args.batch)]
    return {n: torch.stack([item[n] for item in chosen]).to(device) for n in names}

def batch(k): return stacked(data, k, ('image', 'fixations', 'density'))

def model(phase):
    torch.manual_seed(0)
    first = build_model('dinet', n_bases=args.n_bases, backbone=args.backbone, width=args.width)
    first = initialise(first, torch.stack([data[i]['image'] for i in range(2)]))
    return (first if phase == 1 else first.to_phase2()).to(device)

def plain_loss(s, density, fixations):
    "10 KLD - 2 CC - NSS in plain float32 operations."
    s, q = s.flatten(1), density.flatten(1)
    p = s / s.sum(1, keepdim=True)
    kld = (q * torch.log(q / (p + 1e-7) + 1e-7)).sum(1)
    a, b = s - s.mean(1, keepdim=True), q - q.mean(1, keepdim=True)
    cc = (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()
    z, f = a / s.std(1, keepdim=True), fixations.flatten(1)
    return (10 * kld - 2 * cc - (z * f).sum(1) / f.sum(1)).mean()

def descend(adam, loss):
    "A step of the optimiser."
    adam.zero_grad()
    loss.backward()
    adam.step()

class Published:
    "Plain loop: everything in train mode, gradients where they are asked for."
    def __init__(self, phase):
        self.model = model(phase).train()
        if phase == 2:
            for part in (self.model.host, self.model.bases): part.requires_grad_(False)
        learned = [p for p in self.model.parameters() if p.requires_grad]
        self.adam = torch.optim.Adam(learned, 1e-4, weight_decay=1e-7)

    def step(self, b):
        descend(self.adam, plain_loss(self.model(b['image']), b['density'], b['fixations']))

class Ours:
    "The step of `SaliencyTraining`, as Lightning calls it."
    def __init__(self, phase, half=False):
        self.module = SaliencyTraining(model(phase)).to(memory_format=torch.channels_last)
        self.half = half
        type(self.module).current_epoch = property(lambda _: 0) # there is no trainer here
        if phase == 2: freeze_below_readout(self.module.model)
        self.module.model.train()
        if phase == 2: freeze_below_readout(self.module.model)
        self.adam = self.module.configure_optimizers()[0][0]

    def step(self, b):
        with torch.autocast(device.type, torch.bfloat16, enabled=self.half):
            loss = self.module.training_step(b, 0)
        descend(self.adam, loss)

def seconds(work, *a):
    if device.type == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    work(*a)
    if device.type == 'cuda': torch.cuda.synchronize()
    return time.perf_counter() - start

def compare(variants):
    "Median seconds per step, steps of the variants taking turns; the first step warms up."
    taken, memory = {k: [] for k in variants}, {}
    for step in range(args.steps + 1):
        b = batch(step)
        for name, v in variants.items():
            t = seconds(v.step, b)
            if step: taken[name].append(t)
            if device.type == 'cuda': memory[name] = torch.cuda.max_memory_allocated() / 2**30
    return {k: sorted(v)[len(v) // 2] for k, v in taken.items()}, memory

def phase2_epochs():
    "Seconds of the first epoch (activations computed once) and of a further one."
    ours = Ours(2)
    cache = []
    def epoch():
        for k in range(len(data) // args.batch):
            ours.step(stacked(cache[0], k, ('activations', 'fixations', 'density')))
    def first():
        MEMORY.allow(32.)
        cache.append(with_activations(ours.module.model, data, args.batch))
        ours.module.model.train()
        epoch()
    return seconds(first), sorted(seconds(epoch) for _ in range(3))[1]

def described(times, memory):
    "Rows of a phase."
    rows = {}
    for name, t in times.items():
        rows[name] = dict(seconds_per_step=round(t, 4), ratio=round(times['published'] / t, 2))
        if memory: rows[name]['peak_GiB'] = round(memory[name], 2)
    return rows

def told(phase, times, memory):
    "Print the rows of a phase."
    for name, t in times.items():
        peak = f', peak {memory[name]:.1f} GiB' if memory else ''
        print(f'phase {phase}, {name:15s} {t * 1e3 / args.batch:7.1f} ms per image,',
              f'{times["published"] / t:.2f} x the published{peak}', flush=True)

sizes = f'--size {args.size[0]} {args.size[1]} --batch {args.batch} --threads {args.threads}'
shape = f'--backbone {args.backbone} --width {args.width} --n-bases {args.n_bases}'
processor = f'{platform.processor() or platform.machine()}, {args.threads} threads'
named = torch.cuda.get_device_name() if device.type == 'cuda' else processor
result = dict(command=f'python bench/training.py {shape} {sizes}', device=named, versions=versions())
for phase in (1, 2):
    variants = {'published': Published(phase), 'ours, float32': Ours(phase)}
    times, memory = compare(variants | {'ours, bfloat16': Ours(phase, half=True)})
    result[f'phase {phase}'] = described(times, memory)
    told(phase, times, memory)
first, further = phase2_epochs()
cached = dict(first_epoch_seconds=round(first, 3), further_epoch_seconds=round(further, 3))
result['phase 2, cached'] = cached | dict(share=round(further / first, 4), images=args.images)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
result['peak_GiB_of_process'] = round(peak, 2)
print(f'phase 2, activations cached: first epoch {first:.2f} s, a further one {further:.2f} s =',
      f'{further / first:.1%}')
Path(args.out).write_text(json.dumps(result, indent=1) + '\n')
