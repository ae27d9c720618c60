"""Information against meaning: every dictionary of EfficientNet-lite0's features on OSIE, by how well a
readout of it predicts fixations (bits above the mean map) and by how selective its units are for names, on
images they were not chosen on: the statistics of the chapter on units.

python bench/frontier.py ../shared/data/osie runs/frontier [SEEDS [NAME ...]]
    SEEDS as 0,1,2; without names all of ARRANGEMENTS

Each training's numbers are kept in the folder, and it is not run again; all of them together are written to
bench/frontier.json.
"""
import copy, json, pickle, sys, time
from functools import partial
from pathlib import Path
from unittest import mock
import numpy as np, pandas as pd, torch
from torch import nn
from torch.utils.data import Dataset
from saliency_nb import training
from saliency_nb.adjustment import FOLDS, fold_errors, student_interval
from saliency_nb.bases import build_model, initialise, load_checkpoint
from saliency_nb.core import derived_seed
from saliency_nb.dictionaries import (Channels, Components, Learned, Parts, RandomDirections, ReadoutTraining,
                                      Rotated, SparseActivations, SparseAutoencoder, explained,
                                      sampled_places, with_dictionary)
from saliency_nb.fixations import SaliencyDataset, density, fixation_map, grid_sigma
from saliency_nb.hosts import Readout, register_host
from saliency_nb.metrics import cc, information_gain, nss
from saliency_nb.overlap import Overlaps, active_share, best_unit, effective_dimensions, seen_in
from saliency_nb.inputs import open_data
from saliency_nb.batches import FrozenFeatures
from saliency_nb.calibration import other_images
from saliency_nb.training import evaluate, train
from saliency_nb.units import Differences, known_names, mean_selectivity

SIZE, SEED = (240, 320), 0 # of the images; of the data's split
BACKBONE = dict(backbone='timm:tf_efficientnet_lite0', weights='lite0')
OUT = Path(__file__).with_name('frontier.json')

class Study:
    "Frozen features of all images, the host, named cells of the scored images."
    def __init__(self, data, folder):
        self.folder, self.found = Path(folder), open_data(data, SEED)
        sets = {name: SaliencyDataset(getattr(self.found, name), SIZE) for name in ('train', 'select', 'val')}
        torch.manual_seed(derived_seed(SEED, 'model'))
        self.host = build_model('readout', 1, **BACKBONE).host
        self.host.standardise(torch.stack([sets['train'][i]['image'] for i in range(60)]))
        self.host.keep(self.folder/'features')
        def seen(name): return FrozenFeatures(self.host, sets[name], mirrored=name == 'train')
        self.features = {name: seen(name) for name in sets}
        self.elsewhere = other_images(self.features['train'])
        self.places = sampled_places(self.features['train'])

    def of(self, name): return self.folder/name.replace(' ', '_').replace('/', '_')

    def model(self, n, seed, **options):
        "A model with this host's features."
        torch.manual_seed(derived_seed(seed, 'bases'))
        model = build_model('readout', n, **BACKBONE, **options)
        model.host.mean.copy_(self.host.mean)
        model.host.std.copy_(self.host.std)
        torch.nn.init.zeros_(model.readout.weight)
        return model

    def fitted(self, name, seed):
        "A dictionary, fitted once for each seed, and kept in the folder."
        file = self.of(name).with_suffix(f'.{seed}.pkl')
        if not file.is_file():
            dictionary = DICTIONARIES[name](self, seed).fit(self.places, seed)
            file.write_bytes(pickle.dumps(dictionary))
        return pickle.loads(file.read_bytes())

    def trained(self, model, epochs, out, seed, features=None, **training):
        features, start = features or self.features, time.process_time()
        training |= dict(seed=seed, trainer=dict(accelerator='cpu'))
        model = train(model, features['train'], features['select'], out, epochs, **training)
        self.cpu_seconds = time.process_time() - start
        return model

# ---- the published arrangement: a deep head, and bases on its last features

class Headed(nn.Module):
    "A trained head on the frozen features."
    activation, active = 'sigmoid', 0 # of its bases

    def __init__(self, width=192, drop=.2, **backbone):
        super().__init__()
        self.frozen, self.dim = Readout(**backbone), width
        def mixed(dilation):
            across = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, groups=width)
            return [across, nn.Conv2d(width, width, 1), nn.ReLU()]
        layers = [nn.Conv2d(self.frozen.dim, width, 1), nn.ReLU(), nn.Dropout2d(drop)]
        self.head = nn.Sequential(*layers, *mixed(1), *mixed(2), *mixed(4), nn.Dropout2d(drop))

    def forward(self, images): return self.head(self.frozen(images))

register_host('headed', Headed)

class HeadFeatures(Dataset):
    "Items of `FrozenFeatures` with a trained head's features."
    def __init__(self, head, items): self.head, self.items = head.eval(), items
    def __len__(self): return len(self.items)
    def __getitem__(self, i):
        item = dict(self.items[i])
        item.pop('mirrored', None)
        with torch.no_grad(): features = self.head(item['features'].float()[None])[0]
        return item | dict(features=features)

def bases_last(n, epochs=10, epochs2=2):
    def make(study, seed, out):
        images = {name: items.dataset for name, items in study.features.items()}
        some = torch.stack([images['train'][i]['image'] for i in range(60)])
        torch.manual_seed(derived_seed(seed, 'bases'))
        model = build_model('headed', n, **BACKBONE)
        model.host.frozen.standardise(some)
        model.host.frozen.keep(study.folder/'features')
        initialise(model, some[:20])
        kept, seconds = model.host.frozen.kept, 0
        for phase, (count, rate, every) in enumerate([(epochs, 2e-3, 4), (epochs2, 1e-3, 2)]):
            if phase: model = model.to_phase2()
            model.host.frozen.kept = kept
            folder, rates = out/f'phase{phase + 1}', dict(lr=rate, lr_every=every, keep=(count,))
            study.trained(model, count, folder, seed, images, **rates)
            model = load_checkpoint(folder/f'epoch_{count:03d}.safetensors') # the last: NSS rises to the end
            seconds += study.cpu_seconds
        study.cpu_seconds, own = seconds, copy.copy(study)
        own.features = {name: HeadFeatures(model.host.head, items) for name, items in study.features.items()}
        own.places = sampled_places(own.features['train'])
        model.bases.bias = nn.Parameter(torch.zeros(n)) # published bases have none
        return model, Learned(model).fit(own.places), own
    return make

# ---- what is compared: name -> function of study, seed, folder, which gives a trained model (or None),
# its dictionary, and the study with the features that this is a dictionary of

DICTIONARIES = {
    'autoencoder 512/16': lambda study, seed: SparseAutoencoder(512, 16, steps=1200, batch=1024),
    'autoencoder 1024/16': lambda study, seed: SparseAutoencoder(1024, 16, steps=1200, batch=1024),
    'autoencoder 1024/32': lambda study, seed: SparseAutoencoder(1024, 32, steps=1200, batch=1024),
    'random 512/16': lambda study, seed: RandomDirections(512, 16),
    'rotated 512/16': lambda study, seed: Rotated(study.fitted('autoencoder 512/16', seed)),
    'channels': lambda study, seed: Channels(),
    'components 256': lambda study, seed: Components(256),
    'parts 64': lambda study, seed: Parts(64),
}

def end_to_end(n, activation, epochs=6, **options):
    def make(study, seed, out):
        model = study.model(n, seed, activation=activation, **options)
        torch.nn.init.normal_(model.bases.weight, std=model.host.dim**-.5)
        torch.nn.init.constant_(model.bases.bias, -2. if activation == 'sigmoid' else 0.)
        model = study.trained(model, epochs, out, seed, task=ReadoutTraining)
        return model, Learned(model).fit(study.places), study
    return make

def frozen(name, epochs=6):
    def make(study, seed, out):
        dictionary, features = study.fitted(name, seed), study.features
        kind = dict(activation=dictionary.activation, active=dictionary.active)
        model = with_dictionary(study.model(len(dictionary.weight), seed, **kind), dictionary)
        if dictionary.activation == 'topk':
            features = {s: SparseActivations(model, study.features[s]) for s in ('train', 'select')}
        return study.trained(model, epochs, out, seed, features, task=ReadoutTraining), dictionary, study
    return make

def tuned(name, epochs=6, **training):
    def make(study, seed, out):
        dictionary = study.fitted(name, seed)
        model = study.model(len(dictionary.weight), seed, activation='topk', active=dictionary.active)
        with_dictionary(model, dictionary, fixed=False)
        task = partial(ReadoutTraining, dictionary=dictionary)
        model = study.trained(model, epochs, out, seed, task=task, **training)
        return model, Learned(model).fit(study.places), study
    return make

def by_surprise_alone(make):
    "The same without CC and NSS in the loss."
    def made(study, seed, out):
        with mock.patch.object(training, 'LOSS', (1., 0., 0.)): return make(study, seed, out)
    return made

def looked_at_only(name):
    def make(study, seed, out):
        return None, DICTIONARIES[name](study, seed).fit(study.places[::10], seed), study
    return make

ARRANGEMENTS = {
    'sparse autoencoder 512/16': frozen('autoencoder 512/16'),
    'sparse autoencoder 512/16, tuned': tuned('autoencoder 512/16'),
    'sparse autoencoder 512/16, tuned, reconstruction x 3': tuned('autoencoder 512/16', reconstruction=3.),
    'sparse autoencoder 512/16, tuned by surprise alone': by_surprise_alone(tuned('autoencoder 512/16')),
    'sigmoid, end to end, 256': end_to_end(256, 'sigmoid'),
    'random directions 512/16': frozen('random 512/16'),
    'sparse autoencoder 512/16, rotated': frozen('rotated 512/16'),
    'channels': frozen('channels'),
    'relu with L1, end to end, 256': end_to_end(256, 'relu', l1=.05),
    'principal components 256': frozen('components 256'),
    'sparse autoencoder 1024/16': frozen('autoencoder 1024/16'),
    'sparse autoencoder 1024/16, tuned': tuned('autoencoder 1024/16'),
    'sparse autoencoder 1024/32, tuned': tuned('autoencoder 1024/32'),
    'parts (NMF) 64': looked_at_only('parts 64'),
    'published arrangement, bases last, 128': bases_last(128),
}

# ---- what is measured

def meaning(dictionary, study):
    "Selectivity and overlaps of the units of names, on images they were not chosen on."
    names = len(study.found.regions.semantics)
    units = dictionary.encode(study.places[:2]).shape[1]
    told, overlaps = Differences(dictionary, names, units), Overlaps(dictionary, study.places, names)
    for image in seen_in(study.features['val'], study.found.regions):
        told.add(image)
        overlaps.add(image)
    known = known_names(told)
    def level(kept): return mean_selectivity(told, kept, known)
    everything = torch.ones(FOLDS)
    without = [level(everything - left) for left in torch.eye(FOLDS)]
    means = {k: v[known.numpy()].mean() for k, v in best_unit(overlaps).items()}
    return dict(selectivity=level(everything), **means), without

def measured(model, dictionary, study, out):
    "One row of the frontier; scores of each image, and selectivity without parts of the images, as files."
    row, without = meaning(dictionary, study)
    np.save(out/'selectivity_without.npy', without)
    held_out = sampled_places(study.features['val'], 50)
    codes = dictionary.encode(held_out)
    row |= dict(effective_dimensions=effective_dimensions(codes), units=codes.shape[1],
                active=codes.shape[1] * active_share(codes, dictionary.activation),
                variance_explained=explained(dictionary, held_out))
    if model is None: return row
    scores = evaluate(model, study.features['val'], elsewhere=study.elsewhere)
    scores[list(SCORES)].to_csv(out/'scores.csv')
    prior = dict(prior=float(model.prior.detach())) if hasattr(model, 'prior') else {}
    return row | scores[list(SCORES)].mean().to_dict() | prior

SCORES = 'cc', 'nss', 'information_gain'

def row_of(name, study, seed):
    "A training's numbers, from its folder where they are there."
    out = study.of(name)/f'seed_{seed}'
    if (out/'row.json').is_file(): return json.loads((out/'row.json').read_text())
    out.mkdir(parents=True, exist_ok=True)
    made = ARRANGEMENTS[name](study, seed, out)
    took = dict(cpu_seconds=study.cpu_seconds) if made[0] else {} # of the training, without the dictionary
    row = {k: round(float(v), 4) for k, v in (measured(*made, out) | took).items()}
    (out/'row.json').write_text(json.dumps(row))
    print(name, seed, row, flush=True)
    return row

# ---- beside it, and together

def people(study):
    "What half of the observers, blurred, tell of the other half; and the mean map of the training images."
    found = {'half of the observers': [], 'mean map of the training images': []}
    gaze, images = study.found.val.fixations, study.found.val.images
    for item in study.features['val']:
        f, frame = gaze[gaze.image == item['id']], images.loc[item['id'], ['height', 'width']]
        first = f.observer.rank(method='dense') % 2 == 0
        half, other = counted(f[first], frame), counted(f[~first], frame)
        sigma = grid_sigma(study.found.val.sigma, tuple(frame), SIZE)
        told, truth = (torch.from_numpy(density(v, sigma))[None].double() for v in (half, other))
        found['half of the observers'].append(scored(.99 * told + .01 / told.numel(), other, truth, study))
        usual = scored(study.elsewhere[1][None], item['fixations'], item['density'][None], study)
        found['mean map of the training images'].append(usual)
    return {k: dict(zip(SCORES, np.mean(v, 0).round(4).tolist())) for k, v in found.items()}

def counted(gaze, frame):
    "Fixations per cell."
    return fixation_map(gaze.x.to_numpy(), gaze.y.to_numpy(), tuple(frame), SIZE)

def scored(prediction, fixations, truth, study):
    fixations = torch.as_tensor(fixations)[None].float()
    bits = information_gain(prediction, fixations, study.elsewhere[1])
    return [float(v) for v in (cc(prediction, truth), nss(prediction, fixations), bits)]

def image_scores(study, name):
    "Scores of each image, mean over the seeds: (images, scores); None where there are none."
    files = sorted(study.of(name).glob('seed_*/scores.csv'))
    tables = [pd.read_csv(f, index_col=0) for f in files]
    return (sum(tables) / len(tables), len(tables)) if tables else (None, 0)

def differences_to(study, name, others):
    "Paired differences of scores, mean over images and standard error, of means over seeds."
    mine, seeds, found = *image_scores(study, name), {}
    for other in others:
        theirs, n = image_scores(study, other)
        if mine is None or theirs is None or other == name: continue
        paired = mine - theirs
        spread = paired.std() / len(paired)**.5
        found[other] = {k: [round(paired[k].mean(), 4), round(spread[k], 4)] for k in SCORES}
        found[other]['seeds'] = min(seeds, n)
    return found

def over_seeds(study, name, other):
    "Paired differences in meaning: mean over seeds with Student's interval; and over images, of that mean."
    files = {f.parent.name: f for f in study.of(name).glob('seed_*/row.json')}
    theirs = {f.parent.name: f for f in study.of(other).glob('seed_*/row.json')}
    shared = sorted(files.keys() & theirs.keys())
    if len(shared) < 2 or name == other: return None
    found = dict(seeds=len(shared))
    for k in ('selectivity', 'auprc', 'iou'):
        paired = [json.loads(files[s].read_text())[k] - json.loads(theirs[s].read_text())[k] for s in shared]
        error = np.std(paired, ddof=1) / len(paired)**.5
        middle = np.mean(paired)
        low, high, _ = student_interval(middle, error, len(paired) - 1)
        found[k] = [round(float(v), 4) for v in (middle, low, high)]
    def left_out(file): return np.load(file.parent/'selectivity_without.npy')
    without = [left_out(files[s]) - left_out(theirs[s]) for s in shared]
    influence = found['selectivity'][0] - np.mean(without, 0)
    found['selectivity_error_over_images'] = round(float(fold_errors(influence[None])[0]), 4)
    return found

def main(data, folder, seeds='0', *names):
    study = Study(data, folder)
    study.beside = people(study)
    print('features are there', flush=True)
    for seed in map(int, seeds.split(',')):
        for name in names or ARRANGEMENTS:
            row_of(name, study, seed)
            write(study)

def write(study):
    "All numbers there are."
    rows = []
    for name in ARRANGEMENTS:
        for file in sorted(study.of(name).glob('seed_*/row.json')):
            rows.append(dict(name=name, seed=int(file.parent.name[5:]), **json.loads(file.read_text())))
    against = 'sigmoid, end to end, 256', 'random directions 512/16', 'sparse autoencoder 512/16'
    pairs = {name: differences_to(study, name, against) for name in dict.fromkeys(r['name'] for r in rows)}
    random = 'random directions 512/16'
    meant = {name: found for name in pairs if (found := over_seeds(study, name, random))}
    whole = dict(rows=rows, differences=pairs, beyond_random=meant, beside=study.beside)
    OUT.write_text(json.dumps(whole, indent=1) + '\n')

if __name__ == '__main__': main(*sys.argv[1:])
