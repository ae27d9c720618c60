"""Does factorising cost accuracy, and what does the number of bases do?

The original model, phase 1 and phase 2 of the three hosts, on OSIE, over seeds.

    python bench/factorising.py --data ../shared/data/osie
                                --weights ../shared/weights/squeezenet1_0_imagenet.safetensors

Light versions (SqueezeNet, 192 x 256 px, E = 128; TranSalNet with width 16), all three forms of a host
trained by the same recipe. Each training is a row of bench/factorising.csv, written as soon as it is done; a
row whose settings and data are unchanged is not made again, so the command can be interrupted and repeated.
Delete the file after a change of the code that could matter; the revision a row was made with is part of it.
The table is drawn from the CSV by nbs/analyses/factorising.ipynb.
"""
import argparse, subprocess, time
from pathlib import Path
import pandas as pd, torch
from saliency_nb.bases import build_model, initialise
from saliency_nb.core import derived_seed, fingerprint, whole_file
from saliency_nb.fixations import SaliencyDataset
from saliency_nb.inputs import open_data
from saliency_nb.fitting import compared_with_original, fit_bases, fit_summary
from saliency_nb.batches import preloaded, with_activations
from saliency_nb.training import evaluate, train

WIDTH = dict(dinet=128, salicon=64, transalnet=16) # features: 128, 2 x 64, 16
RATE = dict(dinet=1e-4, salicon=1e-4, transalnet=3e-4) # TranSalNet's transformers start from random weights

parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
parser.add_argument('--data', required=True)
parser.add_argument('--weights', required=True)
parser.add_argument('--out', default='runs/factorising')
parser.add_argument('--table', default='bench/factorising.csv')
parser.add_argument('--hosts', nargs='+', default=list(WIDTH))
parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
parser.add_argument('--bases', type=int, nargs='*', default=[32, 64, 256, 512],
                    help='numbers of bases for DINet, besides 128')
parser.add_argument('--size', type=int, nargs=2, default=(192, 256))
parser.add_argument('--epochs', type=int, default=6)
parser.add_argument('--precision', default='bf16-mixed')
args = parser.parse_args()

found, size, table = open_data(args.data), tuple(args.size), Path(args.table)
sets = [preloaded(SaliencyDataset(getattr(found, name), size)) for name in ('train', 'select', 'val')]
learn, select = sets[:2]
val = sets[2]
common = found.fingerprint(), size, args.epochs, args.precision
settings = {h: fingerprint(*common, WIDTH[h], RATE[h]) for h in WIDTH}
git = dict(capture_output=True, text=True, cwd=Path(__file__).parent)
revision = subprocess.run(['git', 'describe', '--always', '--dirty'], **git).stdout.strip()
rows = pd.read_csv(table).to_dict('records') if table.is_file() else []

WHICH = ['host', 'bases', 'seed', 'form'] # columns that say which training a row is

def record(new):
    rows[:] = [r for r in rows if any(r[k] != new[k] for k in WHICH)] + [new]
    table.parent.mkdir(parents=True, exist_ok=True)
    sorted_rows = pd.DataFrame(rows).sort_values(WHICH)
    with whole_file(table) as part: sorted_rows.to_csv(part, index=False, float_format='%.5f')

def known(host, n, seed, form):
    wanted = dict(zip(WHICH, (host, n, seed, form))) | dict(settings=settings[host])
    return any(wanted.items() <= r.items() for r in rows)

def fresh(host, seed, **shape):
    torch.manual_seed(derived_seed(seed, 'model'))
    if host == 'transalnet': shape |= dict(size=size)
    shape |= dict(backbone='squeezenet1_0', weights=args.weights, width=WIDTH[host])
    model = build_model(host, **shape)
    return initialise(model, torch.stack([learn[i]['image'] for i in range(20)]))

def activations_of(model):
    "Of all scored images, ten at a time."
    def batch(i): return torch.stack([val[j]['image'] for j in range(i, min(i + 10, len(val)))])
    with torch.no_grad(): return torch.cat([model.activations(batch(i)) for i in range(0, len(val), 10)])

def bases_state(model):
    "Dead and saturated share of the bases on the scored images."
    a = activations_of(model)
    dead = a.amax((0, 2, 3)) - a.amin((0, 2, 3)) < 1e-3
    saturated = (a < .01) | (a > .99)
    return dict(dead=dead.float().mean().item(), saturated=saturated.float().mean().item())

def done(host, n, seed, form, model, start, **more):
    s = evaluate(model, val).mean()
    minutes = (time.time() - start) / 60
    row = dict(host=host, bases=n, seed=seed, form=form, **s.to_dict(), minutes=minutes)
    record(row | dict(settings=settings[host], revision=revision) | more)
    print(f'{host}, {n} bases, seed {seed}, {form}: CC {s.cc:.4f}, NSS {s.nss:.3f}, {minutes:.1f} min',
          flush=True)

def trained(model, host, seed, name, sets=(learn, select), **more):
    "A model trained by the recipe of its host."
    trainer = dict(precision=args.precision, accelerator='auto', devices=1)
    how = dict(epochs=args.epochs, batch=10, seed=seed, lr=RATE[host], lr_every=4, every=20, trainer=trainer)
    how |= dict(data=settings[host], say=lambda _: None) | more
    return train(model, *sets, Path(args.out)/f'{host}_{seed}_{name}', **how)

def without_bases(host, n, seed):
    "The original model, and bases fitted to it."
    start = time.time()
    original = trained(fresh(host, seed, phase=0), host, seed, 'original')
    done(host, 0, seed, 'original', original, start)
    start = time.time()
    fitted = fit_bases(original, learn, n, seed=seed)
    carried, *_ = fit_summary(compared_with_original(original, fitted, val))['variance']
    done(host, n, seed, 'fitted', fitted, start, reconstructed=carried, **bases_state(fitted))

def one(host, n, seed):
    "All forms of a host with n bases; the original model has none and is trained once."
    fitted = known(host, 0, seed, 'original') and known(host, n, seed, 'fitted')
    if n == 128 and not fitted: without_bases(host, n, seed)
    if known(host, n, seed, 'phase 1') and known(host, n, seed, 'phase 2'): return
    start = time.time()
    first = trained(fresh(host, seed, n_bases=n), host, seed, f'{n}_phase1')
    done(host, n, seed, 'phase 1', first, start, **bases_state(first))
    start = time.time()
    exact = first.to_phase2()
    sets = [with_activations(exact, s) for s in (learn, select)]
    second = trained(exact, host, seed, f'{n}_phase2', sets, lr=1e-3, trainer=dict(devices=1))
    done(host, n, seed, 'phase 2', second, start, **bases_state(second))

for seed in args.seeds:
    for host in args.hosts: one(host, 128, seed)
for seed in args.seeds:
    for n in args.bases: one('dinet', n, seed)
