"""Information against meaning: every dictionary of EfficientNet-lite0's features on OSIE, by how well a readout of it predicts
fixations (bits above the mean map) and by how selective its units are for names, on images they were not chosen on.

python bench/frontier.py ../shared/data/osie runs/frontier [NAME ...]   writes bench/frontier.json; without names all of ARRANGEMENTS
"""
import json, sys, time
from pathlib import Path
import numpy as np, torch
from saliency_nb.bases import build_model
from saliency_nb.core import derived_seed
from saliency_nb.dictionaries import (Channels, Components, Learned, Parts, RandomDirections, Rotated, SparseActivations,
                                      SparseAutoencoder, explained, sampled_places, with_dictionary)
from saliency_nb.fixations import SaliencyDataset
from saliency_nb.runs import open_data
from saliency_nb.training import FrozenFeatures, evaluate, other_images, train

SIZE, SEED = (240, 320), 0
BACKBONE = dict(backbone='timm:tf_efficientnet_lite0', weights='lite0')
OUT = Path(__file__).with_name('frontier.json')
TOP, SPLITS = 3, 2 # units per name; random halves of the images, each used both ways

def prepared(data, folder):
    "Frozen features of all images, the host, named cells of the scored images."
    found = open_data(data, SEED)
    sets = {name: SaliencyDataset(getattr(found, name), SIZE) for name in ('train', 'select', 'val')}
    torch.manual_seed(derived_seed(SEED, 'model'))
    host = build_model('readout', 1, **BACKBONE).host
    host.standardise(torch.stack([sets['train'][i]['image'] for i in range(60)]))
    host.keep(folder)
    features = {name: FrozenFeatures(host, s, name == 'train') for name, s in sets.items()}
    grid = features['val'][0]['features'].shape[1:]
    return host, features, named_cells(found.regions, features['val'], grid)

def named_cells(regions, dataset, grid):
    "Masks of names (images, names, h, w)."
    masks = torch.zeros(len(dataset), len(regions.semantics), *grid, dtype=torch.bool)
    for i, item in enumerate(dataset):
        if item['id'] not in regions.ids: continue
        names, cells = regions.masks(item['id'], grid)
        for name, mask in zip(names, cells): masks[i, regions.semantics.index(name)] = torch.as_tensor(mask)
    return masks

def model_like(host, n, **options):
    "A model with this host's features."
    torch.manual_seed(derived_seed(SEED, 'bases'))
    model = build_model('readout', n, **BACKBONE, **options)
    model.host.mean.copy_(host.mean)
    model.host.std.copy_(host.std)
    return model

# ---- what is compared: name -> function of (host, features, places, made) -> (trained model or None, codes of a place, seconds)

def end_to_end(n, activation, epochs=6, **options):
    def make(host, features, places, made, folder):
        model = model_like(host, n, activation=activation, **options)
        torch.nn.init.normal_(model.bases.weight, std=host.dim**-.5)
        torch.nn.init.constant_(model.bases.bias, -2. if activation == 'sigmoid' else 0.)
        torch.nn.init.zeros_(model.readout.weight)
        model = train(model, features['train'], features['select'], folder, epochs, lr=1e-3, lr_every=epochs - 2)
        return model, Learned(model).fit(places)
    return make

def given(dictionary_of, lr=.02, epochs=6):
    def make(host, features, places, made, folder):
        dictionary = dictionary_of(made)
        if not isinstance(dictionary, SparseAutoencoder) or not hasattr(dictionary, 'weight'): dictionary.fit(places, SEED)
        n = len(dictionary.weight)
        model = with_dictionary(model_like(host, n, activation=dictionary.activation, active=dictionary.active), dictionary)
        torch.nn.init.zeros_(model.readout.weight)
        learn = [SparseActivations(model, features[s]) if dictionary.activation == 'topk' else features[s] for s in ('train', 'select')]
        return train(model, *learn, folder, epochs, lr=lr, lr_every=epochs - 2), dictionary
    return make

def looked_at_only(dictionary):
    def make(host, features, places, made, folder): return None, dictionary.fit(places[::10], SEED)
    return make

def tuned(source, epochs=4, lr=5e-4):
    "A sparse autoencoder's model with its bases trained further, with the readout."
    def make(host, features, places, made, folder):
        model, dictionary = made[source]
        model = with_dictionary(model, dictionary, fixed=False)
        model.bases.requires_grad_(True)
        model = train(model, features['train'], features['select'], folder, epochs, lr=lr, lr_every=epochs - 1)
        return model, Learned(model).fit(places)
    return make

ARRANGEMENTS = {
    'sparse autoencoder 512/16': given(lambda made: SparseAutoencoder(512, 16, steps=1200, batch=1024)),
    'sigmoid, end to end, 256': end_to_end(256, 'sigmoid'),
    'random directions 512/16': given(lambda made: RandomDirections(512, 16)),
    'channels': given(lambda made: Channels(), lr=3e-3, epochs=4),
    'sparse autoencoder 512/16, rotated': given(lambda made: Rotated(made['sparse autoencoder 512/16'][1])),
    'principal components 256': given(lambda made: Components(256), lr=3e-3, epochs=4),
    'sparse autoencoder 1024/16': given(lambda made: SparseAutoencoder(1024, 16, steps=1200, batch=1024)),
    'sparse autoencoder 512/16, tuned': tuned('sparse autoencoder 512/16'),
    'relu with L1, end to end, 256': end_to_end(256, 'relu', l1=.05),
    'parts (NMF) 64': looked_at_only(Parts(64)),
}

# ---- what is measured

def codes_of(dictionary, dataset):
    "Codes of all places of all images, (images, N, places), float16."
    found = []
    for item in dataset: found.append(dictionary.encode(item['features'].flatten(1).T.float()).T.half())
    return torch.stack(found)

def differences(codes, masks, images):
    "On a name against the image's other named cells, mean over images, in standard deviations of the unit: (names, N)."
    total, count = torch.zeros(masks.shape[1], codes.shape[1]), torch.zeros(masks.shape[1])
    for i in images.tolist():
        on = masks[i].flatten(1).float()
        off = on.amax(0) * (1 - on)
        both = (on.sum(1) > 0) & (off.sum(1) > 0)
        a = codes[i].float().T
        total[both] += (on[both] @ a) / on[both].sum(1, keepdim=True) - (off[both] @ a) / off[both].sum(1, keepdim=True)
        count[both] += 1
    spread = codes[images].float().transpose(0, 1).flatten(1).std(1).clamp(min=1e-6)
    return total / count[:, None] / spread

def selectivity(codes, masks):
    "Units chosen on one half of the images, measured on the other: mean over names; over splits, both ways."
    found = []
    for split in range(SPLITS):
        order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(derived_seed(split, 'halves')))
        halves = [differences(codes, masks, half) for half in order.chunk(2)]
        for chosen_on, measured_on in (halves, halves[::-1]):
            units = chosen_on.topk(TOP, 1).indices
            found.append(float(measured_on.gather(1, units).mean()))
    return found

def effective_dimensions(codes):
    "Participation ratio of the covariance of the codes."
    places = codes.transpose(0, 1).flatten(1)[:, ::7].float()
    places = places - places.mean(1, keepdim=True)
    covariance = places @ places.T / places.shape[1]
    return float(covariance.diagonal().sum()**2 / covariance.square().sum())

def measured(model, dictionary, features, masks, elsewhere):
    "One row of the frontier."
    codes = codes_of(dictionary, features['val'])
    halves = selectivity(codes, masks)
    row = dict(selectivity=np.mean(halves), selectivity_sd_over_splits=np.std(halves), effective_dimensions=effective_dimensions(codes),
               units=codes.shape[1], active=float((codes != 0).float().mean() * codes.shape[1]),
               variance_explained=explained(dictionary, sampled_places(features['val'], 50)))
    if model is None: return row
    scores = evaluate(model, features['val'], elsewhere=elsewhere)
    means = scores[['cc', 'nss', 'information_gain']].mean().to_dict()
    return row | means | dict(information_gain_se=float(scores.information_gain.std() / len(scores)**.5), prior=float(model.prior))

def main(data, folder, *names):
    folder = Path(folder)
    start = time.time()
    host, features, masks = prepared(data, folder/'features')
    print(f'features after {time.time() - start:.0f} s', flush=True)
    elsewhere, places = other_images(features['train']), sampled_places(features['train'])
    table, made = (json.loads(OUT.read_text()) if OUT.is_file() else {}), {}
    for name in names or ARRANGEMENTS:
        start, cpu = time.time(), time.process_time()
        made[name] = ARRANGEMENTS[name](host, features, places, made, folder/name.replace(' ', '_').replace('/', '_'))
        took = dict(seconds=time.time() - start, cpu_seconds=time.process_time() - cpu)
        table[name] = measured(*made[name], features, masks, elsewhere) | took
        table[name] = {k: round(float(v), 4) for k, v in table[name].items()}
        OUT.write_text(json.dumps(table, indent=1) + '\n')
        print(name, table[name], flush=True)

if __name__ == '__main__': main(*sys.argv[1:])
