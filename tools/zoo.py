"""Put the model of a run into the package (saliency_nb/zoo; chapter "Models in the box").

python tools/zoo.py RUN NAME [what=TEXT data=TEXT licence=TEXT limits=TEXT ...]
    its weights, what the run found out about it, and a card whose numbers come from the run's files; what a
    run cannot know (see above) is given by hand, or taken from the card that is there
python tools/zoo.py RUN NAME --probe PROBE
    a second run of the same weights on other probe images (`run --checkpoint ... --probe ...`), beside it
"""
import argparse
import shutil
from pathlib import Path
import numpy as np
from safetensors.torch import load_file
from saliency_nb.bases import load_checkpoint, recipe_text
from saliency_nb.core import (CheckpointError, ParameterError, read_arrays, read_json, read_table,
    writable_folder, write_arrays, write_json)
from saliency_nb.models import ZOO, card_of, is_frozen, record_of
from saliency_nb.weights import write_tensors

MOST = 14e6 # bytes of all models together
FROZEN = 'host.backbone.' # begins the names of the backbone's tensors
BESIDE = 'contributions.csv', 'units.json', 'units.csv' # of a second run on other probe images
DERIVED = (*BESIDE, 'thresholds.nc', 'alignment.nc', 'adjusted.nc', 'calibration.json', 'scores.csv',
    'controls.csv', 'people.csv', 'people_agreement.csv') # what a run finds out
BY_HAND = 'what', 'data', 'source', 'licence', 'command', 'ceilings', 'limits', 'probes' # of a card
PATHS = 'data', 'out', 'probe', 'plugin', 'checkpoint', 'weights' # of which a card has the last part only

def half(t):
    "A tensor as it is stored: in half precision where its numbers fit."
    t = t.detach().cpu().contiguous()
    return t.half() if t.is_floating_point() and t.half().isfinite().all() else t

def parted(model):
    "Tensors of the backbone that all models share, and those of this model alone."
    tensors = {k: half(t) for k, t in model.state_dict().items()}
    shared = {k: t for k, t in tensors.items() if is_frozen(model) and k.startswith(FROZEN)}
    return shared, {k: t for k, t in tensors.items() if k not in shared}

def share_backbone(tensors, file):
    "Store a backbone, unless it is there; another one is refused."
    if not file.is_file(): write_tensors(tensors, file)
    there = load_file(file)
    if there.keys() == tensors.keys() and all(there[k].equal(t) for k, t in tensors.items()): return
    raise ParameterError(f'{file}: holds another backbone than that of this model; all models here '
                         'share one, so give a zoo of its own.')

def mean_scores(run):
    "Number of images and mean scores of a run's model in phase 2; empty where it was not scored."
    if not (run/'scores.csv').is_file(): return {}
    table = read_table(run/'scores.csv')
    table = table[table.model == 'phase 2'].drop(columns=['model', 'image'])
    means = {k: dict(mean=float(v.mean()), standard_error=float(v.sem())) for k, v in table.items()}
    return dict(images=len(table), scores=means)

def run_card(run, name, known):
    "What a run knows of its model, and what is said of it by hand."
    record = record_of(run)
    p = record['parameters']
    calibration = read_json(run/'calibration.json', 'the calibration of a run')['network']
    kept = {k: Path(str(v)).name if k in PATHS else v for k, v in p.items()}
    card = dict(name=name, size=[p['height'], p['width']], tau=calibration['tau'], bits=calibration['bits'])
    return card | mean_scores(run) | dict(parameters=kept, versions=record.get('versions', {})) | known

def write_packed(found, file):
    "Arrays in little room."
    numbers = [k for k, v in found.variables.items() if v.dtype.kind in 'fiu' and v.ndim]
    write_arrays(found, file, encoding=dict.fromkeys(numbers, dict(compression='gzip', compression_opts=9)))

def require_room(zoo):
    "Models may not grow too large."
    size = sum(f.stat().st_size for f in zoo.rglob('*') if f.is_file())
    if size > MOST:
        raise ParameterError(f'{zoo}: {size / 1e6:.1f} MB are more than the {MOST / 1e6:.0f} MB that '
                             'models may take; leave one out.')

def save_to_zoo(run, name, zoo=ZOO, **known):
    "Put the model of a run into the zoo; known: texts of its card."
    run, zoo = Path(run), writable_folder(zoo)
    said = card_of(zoo/name) if (zoo/name/'card.json').is_file() else {}
    card = run_card(run, name, {k: said[k] for k in BY_HAND if k in said} | known)
    model = load_checkpoint(run/'phase2/best.safetensors')
    shared, own = parted(model)
    if shared: share_backbone(shared, zoo/'backbone.safetensors')
    folder = writable_folder(zoo/name)
    write_tensors(own, folder/'model.safetensors', saliency_nb=recipe_text(model))
    for file in DERIVED:
        if not (run/file).is_file(): continue
        if file.endswith('.nc'): write_packed(read_arrays(run/file), folder/file)
        else: shutil.copyfile(run/file, folder/file)
    write_json(card, folder/'card.json')
    require_room(zoo)

def add_probe_to_zoo(run, name, probe, zoo=ZOO):
    "Put what a run found out about a model on other images beside it, without the parts behind intervals."
    run, zoo = Path(run), Path(zoo)
    found = read_arrays(run/'alignment.nc')
    weights = [a.weight.values for a in (found, read_arrays(zoo/name/'alignment.nc'))]
    if len({len(w) for w in weights}) > 1 or not np.allclose(*weights, atol=1e-3):
        raise CheckpointError(f'{run}: dissected another model than {name}; give a run of its checkpoint.')
    folder = writable_folder(zoo/name/probe)
    kept = found[['iou', 'chance_iou', 'q_value', 'contrast', 'prior']].astype('float32')
    write_packed(kept, folder/'alignment.nc')
    for file in BESIDE: shutil.copyfile(run/file, folder/file)
    require_room(zoo)

def main():
    as_written = argparse.RawDescriptionHelpFormatter
    options = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    options.add_argument('run', help='folder of a run')
    options.add_argument('name', help='of the model')
    options.add_argument('known', nargs='*', metavar='KEY=TEXT', help=f'for the card: {", ".join(BY_HAND)}')
    options.add_argument('--probe', help='name for other probe images, e.g. coco')
    given = options.parse_args()
    if given.probe: add_probe_to_zoo(given.run, given.name, given.probe)
    else: save_to_zoo(given.run, given.name, **dict(text.split('=', 1) for text in given.known))

if __name__ == '__main__': main()
