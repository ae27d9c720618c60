"""Does factorising cost accuracy, and what does the number of bases do? Original model, phase 1 and phase 2 of the three hosts, on OSIE, over seeds.

    python bench/factorising.py --data ../shared/data/osie --weights ../shared/weights/squeezenet1_0_imagenet.safetensors

Light versions (SqueezeNet, 192 x 256 px, E = 128; TranSalNet with width 16), all three forms of a host trained by the same recipe. Each training is a row of
bench/factorising.csv, written as soon as it is done; a row whose settings and data are unchanged is not made again, so the command can be
interrupted and repeated. Delete the file after a change of the code that could matter; the revision a row was made with is part of it.
The table is drawn from the CSV by nbs/analyses/factorising.ipynb.
"""
import argparse, subprocess, time
from pathlib import Path
import pandas as pd, torch
from saliency_nb.bases import build_model, initialise, saturated_share
from saliency_nb.core import derived_seed, fingerprint, whole_file
from saliency_nb.fixations import SaliencyDataset
from saliency_nb.inputs import open_data
from saliency_nb.fitting import fit_bases, reconstruction_quality
from saliency_nb.batches import preloaded, with_activations
from saliency_nb.training import evaluate, train

WIDTH = dict(dinet=128, salicon=64, transalnet=16) # features: 128, 2 x 64, 16
RATE = dict(dinet=1e-4, salicon=1e-4, transalnet=3e-4) # TranSalNet's transformers start from random weights and need more

parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
parser.add_argument('--data', required=True); parser.add_argument('--weights', required=True)
parser.add_argument('--out', default='runs/factorising'); parser.add_argument('--table', default='bench/factorising.csv')
parser.add_argument('--hosts', nargs='+', default=list(WIDTH)); parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
parser.add_argument('--bases', type=int, nargs='*', default=[32, 64, 256, 512], help='numbers of bases for DINet, besides 128')
parser.add_argument('--size', type=int, nargs=2, default=(192, 256)); parser.add_argument('--epochs', type=int, default=6); parser.add_argument('--precision', default='bf16-mixed')
args = parser.parse_args()

found, size, table = open_data(args.data), tuple(args.size), Path(args.table)
learn, select, val = (preloaded(SaliencyDataset(getattr(found, name), size)) for name in ('train', 'select', 'val'))
settings = {h: fingerprint(found.fingerprint(), size, args.epochs, args.precision, WIDTH[h], RATE[h]) for h in WIDTH}
revision = subprocess.run(['git', 'describe', '--always', '--dirty'], capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()
rows = pd.read_csv(table).to_dict('records') if table.is_file() else []

def record(new):
    rows[:] = [r for r in rows if any(r[k] != new[k] for k in ('host', 'bases', 'seed', 'form'))] + [new]
    table.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(table) as part: pd.DataFrame(rows).sort_values(['host', 'bases', 'seed', 'form']).to_csv(part, index=False, float_format='%.5f')

def known(host, n, seed, form): return any((r['host'], r['bases'], r['seed'], r['form'], r['settings']) == (host, n, seed, form, settings[host]) for r in rows)

def fresh(host, seed, **shape):
    torch.manual_seed(derived_seed(seed, 'model'))
    model = build_model(host, backbone='squeezenet1_0', weights=args.weights, width=WIDTH[host], **(dict(size=size) if host == 'transalnet' else {}), **shape)
    return initialise(model, torch.stack([learn[i]['image'] for i in range(20)]))

def bases_state(model):
    "Dead and saturated share of the bases on the scored images."
    with torch.no_grad(): a = torch.cat([model.activations(torch.stack([val[j]['image'] for j in range(i, min(i + 10, len(val)))])) for i in range(0, len(val), 10)])
    return dict(dead=(a.amax((0, 2, 3)) - a.amin((0, 2, 3)) < 1e-3).float().mean().item(), saturated=saturated_share(a).mean().item())

def done(host, n, seed, form, model, start, **more):
    s = evaluate(model, val).mean()
    record(dict(host=host, bases=n, seed=seed, form=form, **s.to_dict(), minutes=(time.time() - start) / 60, settings=settings[host], revision=revision) | more)
    print(f'{host}, {n} bases, seed {seed}, {form}: CC {s.cc:.4f}, NSS {s.nss:.3f}, {(time.time() - start) / 60:.1f} min', flush=True)

def one(host, n, seed):
    "All forms of a host with n bases; the original model has none and is trained once."
    common = dict(epochs=args.epochs, batch=10, seed=seed, lr=RATE[host], lr_every=4, data=settings[host], every=20, trainer=dict(precision=args.precision, accelerator='auto', devices=1))
    folder, quiet = Path(args.out), dict(say=lambda _: None)
    if n == 128 and not (known(host, 0, seed, 'original') and known(host, n, seed, 'fitted')):
        start = time.time(); original = train(fresh(host, seed, phase=0), learn, select, folder/f'{host}_{seed}_original', **common, **quiet)
        done(host, 0, seed, 'original', original, start)
        start = time.time(); fitted = fit_bases(original, learn, n, seed=seed)
        done(host, n, seed, 'fitted', fitted, start, reconstructed=reconstruction_quality(fitted, val), **bases_state(fitted))
    if known(host, n, seed, 'phase 1') and known(host, n, seed, 'phase 2'): return
    start = time.time(); first = train(fresh(host, seed, n_bases=n), learn, select, folder/f'{host}_{seed}_{n}_phase1', **common, **quiet)
    done(host, n, seed, 'phase 1', first, start, **bases_state(first))
    start = time.time(); exact = first.to_phase2()
    second = train(exact, *(with_activations(exact, s) for s in (learn, select)), folder/f'{host}_{seed}_{n}_phase2', **common | dict(lr=1e-3, trainer=dict(devices=1)), **quiet)
    done(host, n, seed, 'phase 2', second, start, **bases_state(second))

for seed in args.seeds:
    for host in args.hosts: one(host, 128, seed)
for seed in args.seeds:
    for n in args.bases: one('dinet', n, seed)
