"""How much do trainings of one model differ? Ten small runs on one generated world with one data seed.

    python bench/seeds.py [--folder runs/seeds]

Per name, in nats, of the contrast C and of the adjusted effect: value, the mean over trainings; seeds, the
standard deviation between trainings; images, the standard error of the mean over images (what all trainings
share); own, the standard error over images of what one training makes of them differently from the others; n,
the number of images. And the real runs against each other: in which share of the names two single trainings
differ at q < .05 by a test over images alone, and in which share of the 126 splits into two families of five
any name differs at q < .05 (the splits overlap, so that is one observation more than a rate). bits:
information gain of each run, bits per fixation over a uniform map, on the images that choose the epoch. The
host is that of the preset light, bases on a frozen backbone: what differs between trainings are the
dictionary and the readout. Writes bench/seeds.json.
"""
import os
os.environ.setdefault('OMP_NUM_THREADS', '1')
import argparse, itertools, json, tempfile
from pathlib import Path
import numpy as np, torch
from saliency_nb.adjustment import fold_errors, freedom, student_interval
from saliency_nb.chance import q_values
from saliency_nb.core import versions
from saliency_nb.stages import Analysis
from saliency_nb.networks import preset
from saliency_nb.uncertainty import contrast_effects, effect_differences, family, same_images
from saliency_nb.world import make_world

SIZES = preset('light', 'readout') | dict(model='readout', height=120, width=160, n_bases=128)
SIZES |= dict(min_images=1, data_seed=0)
RUNS = 10

def trained(folder, world, seed):
    "Alignment and adjusted effects of one run."
    where = dict(out=folder/f'seed_{seed}', data=world)
    analysis = Analysis(seed=seed, accelerator='cpu', control=False, **where, **SIZES)
    return analysis.dissection(), analysis.adjustment(), analysis.calibration()['network']['bits']

def spreads(effects):
    "What moves each name's value."
    effects = same_images(effects)
    found = family(effects)
    apart = [family([e]).influence - found.influence for e in effects]
    own = np.mean([fold_errors(i)**2 for i in apart], 0) * RUNS / (RUNS - 1)
    between = np.maximum(found.values.var(0, ddof=1) - own, 0)
    columns = dict(value=found.values.mean(0), seeds=between**.5, images=fold_errors(found.influence))
    columns |= dict(own=own**.5, n=found.images)
    def of(i): return {k: round(float(v[i]), 4) for k, v in columns.items()}
    return {name: of(i) for i, name in enumerate(effects[0].semantic.values)}

def by_images(a, b):
    "Share of the names that two single trainings differ in, by a test over images alone."
    one, other = (family([e]) for e in same_images([a, b]))
    error = fold_errors(one.influence - other.influence)
    p = student_interval(one.values[0] - other.values[0], error, freedom(one.images))[2]
    return (q_values(p) < .05).mean()

def compared(effects):
    "The real runs against each other."
    pairs = [by_images(a, b) for a, b in itertools.combinations(effects, 2)]
    any_name = []
    for chosen in itertools.combinations(range(1, RUNS), RUNS // 2 - 1):
        first = {0, *chosen}
        sides = [[e for i, e in enumerate(effects) if (i in first) == side] for side in (True, False)]
        any_name.append((effect_differences(*sides).q_value < .05).any())
    return dict(names_that_differ_in_single_trainings=float(np.mean(pairs)), splits=len(any_name),
                splits_with_any_difference=float(np.mean(any_name)))

def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--folder', default='', help='for the runs; finished ones are not made again')
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(args.folder or tempfile.mkdtemp()).resolve()
    world = make_world(folder/'world', n_images=400, size=(120, 160), seed=0, val_share=.4)
    alignments, adjusted, bits = zip(*(trained(folder, world, seed) for seed in range(RUNS)))
    kept = dict(command='python bench/seeds.py', versions=versions(), sizes=SIZES, runs=RUNS)
    kept['bits'] = [round(b, 3) for b in bits]
    for what, effects in dict(contrast=contrast_effects(alignments), adjusted=list(adjusted)).items():
        kept[what] = dict(names=spreads(effects)) | compared(effects)
        print(what, {k: v for k, v in kept[what].items() if k != 'names'})
    (Path(__file__).parent/'seeds.json').write_text(json.dumps(kept, indent=1) + '\n')

if __name__ == '__main__': main()
